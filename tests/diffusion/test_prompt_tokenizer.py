"""Prompts become the ids of the published pipelines."""

import json
import shutil

import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file

from jaxtbpr.core import tokenizer
from jaxtbpr.diffusion.prompt_tokenizer import open_prompt_tokenizer
from tests.conftest import DATA

FOLDER = DATA / "reference" / "diffusion"


@pytest.mark.parametrize("model", ["sd1_tiny", "sd2_tiny"])
def test_ids_are_those_of_the_reference(model):
    published = load_file(FOLDER / f"models_{model}.safetensors")["input_ids"]
    prompts = json.loads((FOLDER / f"models_{model}.json").read_text())["prompts"]
    words = open_prompt_tokenizer(FOLDER / model / "tokenizer", 77)
    np.testing.assert_array_equal(words.encode(prompts), published)


@pytest.mark.parametrize(("model", "pad"), [("sd1_tiny", 999), ("sd2_tiny", 0)])
def test_what_pads_is_the_checkpoint_s(model, pad):
    words = open_prompt_tokenizer(FOLDER / model / "tokenizer", 77)
    (ids,) = words.encode(["a man"])
    count = words.count("a man")
    assert words.pad == pad
    assert (ids[count:] == pad).all()
    assert ids[0] == 998
    assert ids[count - 1] == 999


def test_tokens_are_counted_before_they_are_cut():
    words = open_prompt_tokenizer(FOLDER / "sd1_tiny" / "tokenizer", 77)
    assert words.count("a man " * 60) == 122
    assert words.encode(["a man " * 60]).shape == (1, 77)


def test_tokens_that_the_model_has_not_learned_are_told():
    words = open_prompt_tokenizer(FOLDER / "sd1_tiny" / "tokenizer", 77)
    assert words.problem("a man, 3 < 4") == ""
    assert words.problem("<s1>, a man by <s0><s1>").startswith("has <s1>, <s0>, which this model")
    assert words.problem("<|endoftext|>") == ""
    assert words.problem("<s1> " * 80).startswith("has <s1>, which this model")  # each once


LEARNED = {"<s0>": 1000, "<s1>": 1001, "<s1>_1": 1002, "My-Style": 1003}


@pytest.fixture(params=["added_tokens.json", "tokenizer.json"])
def learned(request, tmp_path):
    """Words with learned tokens, as transformers 4 and 5 write them, and whether case counts."""
    source = FOLDER / "sd1_tiny" / "tokenizer"
    if request.param == "added_tokens.json":
        shutil.copytree(source, tmp_path / "words")
        (tmp_path / "words" / request.param).write_text(json.dumps(LEARNED))
    else:
        (tmp_path / "words").mkdir()
        found = tokenizer.load(source)
        found.add_special_tokens([tokenizer.START, tokenizer.END])
        found.add_tokens([tokenizers.AddedToken(token, normalized=True) for token in LEARNED])
        found.save(str(tmp_path / "words" / request.param))
    return open_prompt_tokenizer(tmp_path / "words", 20), request.param == "added_tokens.json"


def test_learned_tokens_are_read_as_the_pipelines_read_them(learned):
    """The ids are what diffusers 0.35.2 and 0.42.1 give; see tests/isolated."""
    words, cased = learned
    assert words.size == 1004
    for prompt, expected in (
        ("a man by <s0>, <s1> red", [320, 542, 65, 344, 1000, 267, 1001, 1002, 629]),
        ("A MAN My-Style<s0>x", [320, 542, 1003, 1000, 343]),
        ("<S0> a", [283, 338, 271, 285, 320] if cased else [1000, 320]),
    ):
        ids = [998, *expected, 999]
        assert words.count(prompt) == len(ids)
        padded = [*ids, *[words.pad] * (20 - len(ids))]
        np.testing.assert_array_equal(words.encode([prompt]), [padded])
    assert words.problem("by <s0><s1>") == ""
    assert words.problem("by <s0><s7>").startswith("has <s7>, which this model has not learned")
    long = words.encode(["<s0> " * 40])[0]
    assert (long[0], long[-1], set(long[1:-1])) == (998, 999, {1000})
    assert words.problem("<s0> " * 40) == "has 42 tokens, but the text encoder takes 20: shorten it"
