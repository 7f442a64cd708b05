"""Prompts become the ids of the published pipelines."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxtbpr.diffusion.words import open_words
from tests.conftest import DATA

FOLDER = DATA / "reference" / "diffusion"


@pytest.mark.parametrize("model", ["sd1_tiny", "sd2_tiny"])
def test_ids_are_those_of_the_reference(model):
    published = load_file(FOLDER / f"models_{model}.safetensors")["input_ids"]
    prompts = json.loads((FOLDER / f"models_{model}.json").read_text())["prompts"]
    words = open_words(FOLDER / model / "tokenizer", 77)
    np.testing.assert_array_equal(words.encode(prompts), published)


@pytest.mark.parametrize(("model", "pad"), [("sd1_tiny", 999), ("sd2_tiny", 0)])
def test_what_pads_is_the_checkpoint_s(model, pad):
    words = open_words(FOLDER / model / "tokenizer", 77)
    (ids,) = words.encode(["a man"])
    count = words.count("a man")
    assert words.pad == pad
    assert (ids[count:] == pad).all()
    assert ids[0] == 998
    assert ids[count - 1] == 999


def test_tokens_are_counted_before_they_are_cut():
    words = open_words(FOLDER / "sd1_tiny" / "tokenizer", 77)
    assert words.count("a man " * 60) == 122
    assert words.encode(["a man " * 60]).shape == (1, 77)


def test_tokens_that_the_model_has_not_learned_are_told():
    words = open_words(FOLDER / "sd1_tiny" / "tokenizer", 77)
    assert words.problem("a man, 3 < 4") == ""
    assert words.problem("<s1>, a man by <s0><s1>").startswith("has <s1>, <s0>, which this model")
    assert words.problem("<|endoftext|>") == ""
    assert words.problem("<s1> " * 80).startswith("has <s1>, which this model")  # each once
