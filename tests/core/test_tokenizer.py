"""Vocabularies learned and loaded, and captions as token ids."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer

from jaxtbpr.core import tokenizer as tokens
from jaxtbpr.core.errors import InputError

CAPTIONS = [
    f"A {age} {sex} wearing a {colour} {garment}, carrying a bag!"
    for age in ("young", "old")
    for sex in ("man", "woman")
    for colour in ("red", "blue", "green", "black")
    for garment in ("coat", "jacket", "striped shirt")
]


@pytest.fixture(scope="module")
def learned():
    return tokens.learn(CAPTIONS, 400)


def test_a_row_is_start_the_caption_end_and_zeros(learned):
    start, end = tokens.special_ids(learned)
    row = tokens.encode(learned, ["a red coat"], 12)[0]
    used = int(np.argmax(row)) + 1
    assert row.dtype == np.int32
    assert (row[0], row[used - 1]) == (start, end)
    assert (row[used:] == 0).all()
    assert (row[:used] > 0).all()
    assert learned.decode(row[1 : used - 1].tolist()).strip() == "a red coat"


def test_the_end_token_has_the_greatest_id_and_padding_is_zero(learned):
    size = learned.get_vocab_size()
    assert tokens.special_ids(learned) == (size - 2, size - 1)
    assert learned.token_to_id(tokens.PAD) == 0
    assert size <= 400


def test_a_long_caption_is_cut_before_the_end_token(learned):
    long = tokens.encode(learned, ["a red coat " * 50], 200)[0]
    short = tokens.encode(learned, ["a red coat " * 50], 8)[0]
    np.testing.assert_array_equal(short[:7], long[:7])
    assert short[7] == tokens.special_ids(learned)[1]


@pytest.mark.parametrize("length", [20, 77, 168])
def test_only_the_length_in_tokens_cuts_a_caption_whatever_its_words(learned, length):
    text = tokens.clean_caption("a red coat, " * 100)
    assert len(text.split()) == 300
    row = tokens.encode(learned, [text], length)[0]
    assert (row > 0).all()


def test_cut_captions_are_counted_to_the_token_and_told_in_one_sentence(learned):
    texts = ["A red coat!", "a red coat " * 40, "a red coat " * 90]
    whole = tokens.count(learned, tokens.clean_caption(texts[1]))
    assert tokens.count_cut(learned, texts, whole).cut == 1
    assert tokens.count_cut(learned, texts, whole - 1) == tokens.Cut(2, 3, whole - 1)
    assert tokens.count_cut(learned, texts * 4, whole - 1) == tokens.Cut(8, 12, whole - 1)
    assert str(tokens.count_cut(learned, texts, 77)) == "2 of 3 captions are cut at 77 tokens"
    assert str(tokens.Cut(1, 1234, 5, "prompts")) == "1 of 1,234 prompts is cut at 5 tokens"


def test_common_words_become_single_tokens(learned):
    assert (tokens.encode(learned, ["wearing a jacket"], 12)[0] > 0).sum() == 5


def test_case_and_blanks_do_not_matter(learned):
    rows = tokens.encode(learned, ["A RED   coat", "a red coat", " a\tred\ncoat "], 12)
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


def test_text_beyond_the_learned_captions_is_never_lost(learned):
    text = "naïve 人 🙂 ß zebra-print"
    ids = tokens.encode(learned, [text], 77)[0]
    assert learned.decode(ids[1 : np.argmax(ids)].tolist()).strip() == text.lower()


def test_broken_unicode_and_entities_are_fixed(learned):
    rows = tokens.encode(learned, ["cafÃ© &amp;amp;\x00 b\x1bar", "café & bar"], 32)
    np.testing.assert_array_equal(rows[0], rows[1])


def test_special_tokens_spelled_out_are_ordinary_text(learned, tmp_path):
    tokens.save(learned, tmp_path / "tokenizer.json")
    for one in (learned, tokens.load(tmp_path)):
        row = tokens.encode(one, ["red <|endoftext|> coat <|pad|>"], 64)[0]
        assert (row == tokens.special_ids(one)[1]).sum() == 1
        assert np.argmax(row) == (row > 0).sum() - 1


def test_an_empty_caption_is_start_and_end(learned):
    assert (tokens.encode(learned, ["", "  "], 6) > 0).sum(1).tolist() == [2, 2]
    assert tokens.encode(learned, [], 6).shape == (0, 6)


def test_many_captions_are_encoded_as_few_are(learned, monkeypatch):
    whole = tokens.encode(learned, CAPTIONS, 24)
    monkeypatch.setattr(tokens, "_CHUNK", 5)
    np.testing.assert_array_equal(tokens.encode(learned, CAPTIONS, 24), whole)


def test_a_saved_tokenizer_gives_the_same_ids(learned, tmp_path):
    tokens.save(learned, tmp_path / "tokenizer.json")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = tokens.load(path)
        np.testing.assert_array_equal(
            tokens.encode(loaded, CAPTIONS, 24), tokens.encode(learned, CAPTIONS, 24)
        )
        assert loaded.to_str() == learned.to_str()


@pytest.mark.parametrize(
    "leave",
    [
        lambda t: t.enable_padding(length=77, pad_id=3),
        lambda t: t.enable_truncation(4),
        lambda t: setattr(t.model, "dropout", 0.9),
    ],
    ids=["padding", "truncation", "dropout"],
)
def test_what_another_program_left_in_tokenizer_json_is_not_obeyed(learned, tmp_path, leave):
    other = Tokenizer.from_str(learned.to_str())
    leave(other)
    other.save(str(tmp_path / "tokenizer.json"))
    found = tokens.load(tmp_path)
    expected = tokens.encode(learned, CAPTIONS, 24)
    np.testing.assert_array_equal(tokens.encode(found, CAPTIONS, 24), expected)
    assert [tokens.count(found, text) for text in ("", CAPTIONS[0])] == [
        2, tokens.count(learned, CAPTIONS[0])
    ]  # fmt: skip


def test_learning_gives_the_same_bytes_in_every_process_and_order(learned):
    program = (
        "import json, sys; from jaxtbpr.core import tokenizer as t;"
        "print(t.learn(json.load(sys.stdin), 400).to_str(), end='')"
    )
    shuffled = random.Random(0).sample(CAPTIONS, len(CAPTIONS))
    for seed, captions in (("1", CAPTIONS), ("2", shuffled)):
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=json.dumps(captions),
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == learned.to_str()


def test_the_vocabulary_grows_with_its_size():
    assert tokens.learn(CAPTIONS, 300).get_vocab_size() == 300
    assert tokens.learn(CAPTIONS * 2, 310).get_vocab_size() == 310


def clip_folder(path, merges):
    """Writes CLIP's two files: 256 bytes, the 256 that end a word, merges, start and end."""
    from tokenizers import pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = letters + [letter + "</w>" for letter in letters] + ["".join(m) for m in merges]
    vocab = {word: k for k, word in enumerate([*words, tokens.START, tokens.END])}
    (path / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (path / "merges.txt").write_text("\n".join(lines) + "\n")
    return vocab


def test_clips_vocabulary_files_are_read_its_way(tmp_path):
    merges = [("r", "e"), ("re", "d</w>"), ("c", "o"), ("a", "t</w>"), ("co", "at</w>")]
    vocab = clip_folder(tmp_path, merges)
    loaded = tokens.load(tmp_path)
    row = tokens.encode(loaded, ["Red coat's 12 <|endoftext|>"], 32)[0]
    expected = ["red</w>", "coat</w>", "'", "s</w>", "1</w>", "2</w>", "<", "|</w>"]
    assert row[0] == vocab[tokens.START]
    assert [loaded.id_to_token(int(t)) for t in row[1:7]] == expected[:6]
    assert np.argmax(row) == (row > 0).sum() - 1


def test_a_clip_tokenizer_survives_saving(tmp_path):
    clip_folder(tmp_path, [("r", "e"), ("re", "d</w>")])
    loaded = tokens.load(tmp_path)
    tokens.save(loaded, tmp_path / "tokenizer.json")
    again = tokens.load(tmp_path)
    np.testing.assert_array_equal(
        tokens.encode(again, CAPTIONS, 40), tokens.encode(loaded, CAPTIONS, 40)
    )


def test_learning_from_nothing_is_an_error():
    with pytest.raises(InputError, match="no captions to learn a vocabulary from"):
        tokens.learn(["", " . "], 400)


def test_a_vocabulary_without_room_for_the_bytes_is_an_error():
    with pytest.raises(InputError, match="vocabulary of 299 tokens is too small.*at least 300"):
        tokens.learn(CAPTIONS, 299)


def test_missing_and_broken_files_are_told(tmp_path):
    with pytest.raises(InputError, match=r"nowhere.json does not exist"):
        tokens.load(tmp_path / "nowhere.json")
    with pytest.raises(InputError, match=r"vocab.json does not exist"):
        tokens.load(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(InputError, match=r"merges.txt does not exist"):
        tokens.load(tmp_path)
    (tmp_path / "merges.txt").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"merges.txt does not hold BPE merges"):
        tokens.load(tmp_path)
    (tmp_path / "merges.txt").write_text("a b\n")
    with pytest.raises(InputError, match="vocabulary files that do not match"):
        tokens.load(tmp_path)
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"tokenizer.json is not a tokenizer file"):
        tokens.load(tmp_path)


def test_a_tokenizer_without_a_last_end_token_is_an_error(tmp_path, learned):
    text = learned.to_str().replace(tokens.END, "[SEP]")
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=r"must have '<\|startoftext\|>', and '<\|endoftext\|>'"):
        tokens.load(tmp_path)
