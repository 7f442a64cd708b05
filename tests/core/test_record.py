"""The table of a record's fields, and what follows from it."""

import json

import pytest

from jaxtbpr.core import record
from jaxtbpr.core.errors import UserError

FULL = {
    "id": "00000007", "identity": "00000007", "split": "train", "prompt": "a man", "seed": 3,
    "tokens": 5, "generation": {"steps": 12}, "edits": [], "captions": ["one", "two", "three"],
    "caption_noise": [[], [["hat", "cap", None]], []], "caption_weights": [1.0, 0.1, 0.9],
    "facts": {"shown": {"hat": "cap"}, "mentioned": [{}, {"hat": "cap"}, {}]},
}  # fmt: skip


def test_each_field_is_declared_once():
    names = [field.name for field in record.FIELDS]
    assert len(set(names)) == len(names)
    assert FULL.keys() <= set(names)


def test_what_goes_with_a_caption_goes_with_it():
    kept = record.keep_captions(FULL, [True, False, True])
    assert kept["captions"] == ["one", "three"]
    assert kept["caption_noise"] == [[], []]
    assert kept["caption_weights"] == [1.0, 0.9]
    assert kept["facts"] == {"shown": {"hat": "cap"}, "mentioned": [{}, {}]}
    assert FULL["captions"] == ["one", "two", "three"]  # the record itself is left alone
    with pytest.raises(ValueError, match="argument"):
        record.keep_captions(FULL, [True])


def test_an_edit_takes_over_the_person_and_not_how_the_base_was_made():
    edit = record.edit_of(FULL, 2)
    assert edit["id"] == "00000007-2"
    assert edit["identity"] == FULL["identity"]
    assert {"tokens", "generation"}.isdisjoint(edit)


def test_the_built_set_keeps_how_an_image_was_made():
    kept = json.loads(record.provenance(FULL))
    assert kept["generation"] == {"steps": 12}
    assert list(kept) == ["prompt", "seed", "edits", "generation", "facts"]
    assert record.set_fields(FULL).keys() == {"facts", "caption_weights"}


def test_a_missing_field_is_one_sentence():
    record.require(FULL, "prompt", "stage 'generate'")
    said = r"^stage 'filter' needs images, but record 00000007 has none; add stage 'generate' to "
    with pytest.raises(UserError, match=said):
        record.require(FULL, "image", "stage 'filter'")
