"""Prompts out of captions: every form of file, style tokens before, clear words when wrong."""

import json

import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.prompts import captions
from jaxtbpr.prompts.clauses import Ruler

RULER = Ruler("", 77)


def wrapped(path, count, split="train", prefix="in the style of <s0><s1>"):
    given = captions.read(str(path))
    return list(captions.wrap(given, RULER, prefix, str(path), split, count))


def test_the_first_caption_of_a_list_in_text_counts(tmp_path):
    (tmp_path / "c.jsonl").write_text(json.dumps({"caption": "['a man', 'a woman']"}) + "\n")
    assert captions.read(str(tmp_path / "c.jsonl")) == {"train": [{"caption": "a man"}]}


def test_a_text_file_has_a_caption_a_line(tmp_path):
    path = tmp_path / "captions.txt"
    path.write_text("A man  in red.\n\na woman in blue\nA MAN in red.\nécru coat\n")
    prompts = wrapped(path, 3)
    assert [p.text.text for p in prompts] == [
        "In the style of <s0><s1>, A man in red.",
        "In the style of <s0><s1>, a woman in blue",
        "In the style of <s0><s1>, écru coat",
    ]
    assert prompts[0].fields == {"prompt_kind": "caption", "source_caption": "A man in red."}


def test_only_a_line_feed_ends_a_caption_and_a_byte_order_mark_is_none(tmp_path):
    (tmp_path / "c.txt").write_bytes("\ufeffA man\fin red.\r\na woman\n".encode())
    assert [p.text.text for p in wrapped(tmp_path / "c.txt", 2, prefix="")] == [
        "A man in red.",
        "A woman",
    ]
    (tmp_path / "c.jsonl").write_text('{"caption": "a man\u2028in red"}\n')
    assert wrapped(tmp_path / "c.jsonl", 1, prefix="")[0].text.text == "A man in red"


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_annotation_files_give_the_first_caption_of_an_image_by_split(tmp_path, suffix):
    rows = [
        {"split": "train", "captions": ["one", "two"], "file_path": "a.png", "id": 1},
        {"split": "test", "captions": ["three"], "file_path": "b.png"},
        {"caption": "four"},
        {"split": "test", "captions": ["one"]},
        {"split": "val", "captions": []},
    ]
    path = tmp_path / f"reid_raw{suffix}"
    lines = "\n".join(map(json.dumps, rows))
    path.write_text(json.dumps(rows) if suffix == ".json" else lines)
    assert captions.read(str(path)) == {
        "train": [{"caption": "one", "image": "a.png"}, {"caption": "four"}],
        "test": [{"caption": "three", "image": "b.png"}],
    }
    (one,) = wrapped(path, 1, "test", prefix="")
    assert one.text.text == "Three"
    assert one.fields["source_image"] == "b.png"


def test_a_caption_that_is_too_long_is_told_not_cut(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("coat " * 90)
    (one,) = wrapped(path, 1)
    assert one.text.text.count("coat") == 90
    assert "the text encoder takes 77" in one.text.problem


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"\xff\xfe", "a.txt is not UTF-8 text"),
        ("a.jsonl", b'{"caption": "x"}\n{', "a.jsonl line 2 is not valid JSON"),
        ("a.jsonl", b"3", "a.jsonl line 1 is 3; it must be an object"),
        ("a.json", b"{}", "a.json must hold a JSON list"),
        ("a.json", b"[3]", "a.json entry 1 is 3; it must be an object"),
        ("a.json", b'[{"text": "x"}]', "a.json entry 1 has no 'captions' or 'caption' that is"),
    ],
)
def test_a_wrong_file_is_one_clear_sentence(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        captions.read(str(tmp_path / name))


def test_a_missing_file_and_too_few_captions_are_told(tmp_path):
    with pytest.raises(InputError, match=r"^captions='' is not a file; engine"):
        captions.read("")
    (tmp_path / "c.txt").write_text("one\ntwo\n")
    with pytest.raises(InputError, match=r"^train=3 asks .* 2 different .* to 2 or l"):
        wrapped(tmp_path / "c.txt", 3)
    with pytest.raises(InputError, match=r"set val to 0\."):
        wrapped(tmp_path / "c.txt", 1, "val")
