import json

import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import formats, published
from tests.datasets.folders import CORRUPT, FORMS, make_folder, write_image, write_json

NAME_OF = {
    "cuhk_caption_all": "cuhk_pedes",
    "icfg_pedes_underscore": "icfg_pedes",
    "ufine": "reid_json",
    "csv": "table",
    "jsonl": "table",
    "web_person": "table",
}


def read_all(folder, *arguments, **options):
    return list(formats.read(folder, *arguments, **options))


def told(entries):
    return {one.path: (one.captions, one.identity, one.split) for one in entries}


def expected(folder):
    return {
        str(folder.image(photo)): (photo.captions, photo.identity, photo.split)
        for photo in folder.photos
    }


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_is_recognised(tmp_path, form):
    folder = make_folder(tmp_path, form)
    assert formats.detect(folder.path).name == NAME_OF.get(form, form)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_is_read_whole(tmp_path, form):
    folder = make_folder(tmp_path, form, people=4, images=3)
    entries = read_all(folder.path)
    assert told(entries) == expected(folder)
    assert len(entries) == len(folder.photos)
    assert not any(one.problem for one in entries)
    assert all(one.extra["image_id"] in one.path or form.startswith("syntbpr") for one in entries)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_missing_and_broken_images_do_not_change_what_is_read(tmp_path, form):
    folder = make_folder(tmp_path, form, faults=True)
    assert told(read_all(folder.path)) == expected(folder)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_extra_facts_can_be_kept_as_json(tmp_path, form):
    for one in formats.read(make_folder(tmp_path, form).path):
        assert json.loads(json.dumps(one.extra)) == one.extra


@pytest.mark.parametrize("form", ["cuhk_pedes", "icfg_pedes", "rstpreid", "rasa"])
def test_images_are_searched_in_their_folder_even_when_none_is_there(tmp_path, form):
    folder = make_folder(tmp_path, form)
    for photo in folder.photos:
        folder.image(photo).unlink()
    assert told(read_all(folder.path)) == expected(folder)


def test_the_folders_in_the_names_of_a_shipped_set_are_never_dropped(tmp_path):
    # cam_a/1.png is missing; the file beside it is of somebody else.
    write_image(tmp_path / "imgs" / "1.png", 0)
    record = {"id": 1, "file_path": "cam_a/1.png", "captions": ["a man"], "split": "test"}
    write_json(tmp_path / "reid_raw.json", [record])
    assert next(formats.read(tmp_path)).path == str(tmp_path / "imgs" / "cam_a" / "1.png")


def test_a_format_can_be_named(tmp_path):
    folder = make_folder(tmp_path, "rasa", name="both")
    make_folder(tmp_path, "cuhk_pedes", name="both")
    assert formats.detect(folder.path).name == "cuhk_pedes"
    assert {one.path for one in read_all(folder.path, "rasa")} == set(expected(folder))


def test_an_unknown_format_name_is_an_error_that_lists_the_known_ones(tmp_path):
    with pytest.raises(InputError, match="format='cuhk' is not known.*cuhk_pedes"):
        formats.read(tmp_path, "cuhk")


def test_a_named_format_that_is_not_there_says_what_it_looks_for(tmp_path):
    folder = make_folder(tmp_path, "cuhk_pedes")
    with pytest.raises(InputError, match=r"is not RSTPReid.*data_captions\.json"):
        formats.read(folder.path, "rstpreid")


def test_images_may_lie_in_a_folder_of_their_own(tmp_path):
    folder = make_folder(tmp_path, "tbps_clip")
    elsewhere = tmp_path / "pixels"
    folder.images.rename(elsewhere)
    entries = read_all(folder.path, images=elsewhere)
    assert {one.path for one in entries} == {str(elsewhere / p.name) for p in folder.photos}


def test_a_folder_one_level_too_high_names_the_right_one(tmp_path):
    make_folder(tmp_path, "cuhk_pedes", name="CUHK-PEDES")
    with pytest.raises(InputError, match=r"one level too high.*/CUHK-PEDES \(CUHK-PEDES\)"):
        formats.detect(tmp_path)


@pytest.mark.parametrize("inner", ["imgs", "imgs/cam_a", "processed_data"])
def test_a_folder_too_deep_names_the_right_one(tmp_path, inner):
    folder = make_folder(tmp_path, "rasa", people=5)
    with pytest.raises(InputError, match=f"part of a data set; give {folder.path} "):
        formats.detect(folder.path / inner)


def test_an_annotation_file_in_place_of_its_folder_names_the_folder(tmp_path):
    folder = make_folder(tmp_path, "rstpreid")
    with pytest.raises(
        InputError, match=f"is a file; give the folder that holds it, {folder.path}"
    ):
        formats.detect(folder.path / "data_captions.json")


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        formats.detect(tmp_path / "nowhere")


def test_an_unknown_folder_tells_the_nearest_name(tmp_path):
    write_json(tmp_path / "reid_row.json", [{"who": 1}])
    with pytest.raises(InputError, match=r"reid_row\.json is similar to reid_raw\.json") as error:
        formats.detect(tmp_path)
    assert "name the column" not in str(error.value)
    assert all(form.looks_for in formats.list_known() for form in formats.FORMATS)


def test_images_without_annotation_ask_for_a_table(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"images but no annotation; add a captions\.csv"):
        formats.detect(tmp_path)


def test_a_table_without_the_right_columns_tells_its_columns(tmp_path):
    (tmp_path / "list.csv").write_text("photo,words\na.jpg,a man\n")
    with pytest.raises(InputError, match=r"list\.csv is no table.*its columns are photo, words"):
        formats.detect(tmp_path)


def test_a_broken_json_is_named_when_nothing_is_recognised(tmp_path):
    (tmp_path / "anno.json").write_text('[{"id": 1, "fi')
    with pytest.raises(
        InputError, match=r"anno\.json is not complete, valid JSON \(line 1: Unterm"
    ):
        formats.detect(tmp_path)


def test_a_truncated_annotation_is_an_error_with_its_line(tmp_path):
    folder = make_folder(tmp_path, "cuhk_pedes")
    text = (folder.path / "reid_raw.json").read_text().replace("}, {", "},\n{")
    (folder.path / "reid_raw.json").write_text(text[: len(text) // 2])
    with pytest.raises(
        InputError, match=r"reid_raw\.json is not complete, valid JSON \(line 10: Unterm"
    ):
        read_all(folder.path)


def test_an_annotation_that_is_not_utf8_is_an_error(tmp_path):
    (tmp_path / "data_captions.json").write_bytes('[{"id": "é"}]'.encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8"):
        read_all(tmp_path)


def test_annotations_of_several_sets_are_not_mixed(tmp_path):
    folder = make_folder(tmp_path, "aptm")
    (folder.path / "cuhk_val.json").rename(folder.path / "rstp_val.json")
    with pytest.raises(InputError, match=r"annotations of 2 sets.*rstp_val\.json"):
        formats.read(folder.path)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_byte_order_mark_is_no_hindrance(tmp_path, form):
    folder = make_folder(tmp_path, form)
    for file in [*folder.path.rglob("*.json"), *folder.path.rglob("*.jsonl")]:
        file.write_text(file.read_text(encoding="utf-8-sig"), encoding="utf-8-sig")
    assert formats.detect(folder.path).name == NAME_OF.get(form, form)
    assert told(read_all(folder.path)) == expected(folder)


BAD_RECORDS = {
    "names no image": {"id": 1, "captions": ["a man"], "split": "train"},
    "has no 'id'": {"file_path": "a.jpg", "captions": ["a man"], "split": "train"},
    "has the identity None": {"id": None, "file_path": "a.jpg", "captions": [], "split": "val"},
    "has neither 'captions' nor": {"id": 1, "file_path": "a.jpg", "split": "train"},
    "has a int where captions": {"id": 1, "file_path": "a.jpg", "captions": 3, "split": "test"},
    "has the split 'dusk'": {"id": 1, "file_path": "a.jpg", "captions": ["x"], "split": "dusk"},
    "is a list, not an object": ["a.jpg", "a man"],
    "has a NUL character": {"id": 1, "file_path": "a\0.jpg", "captions": ["x"], "split": "test"},
}


@pytest.mark.parametrize("reason", sorted(BAD_RECORDS))
def test_a_bad_record_is_yielded_with_its_reason_and_number(tmp_path, reason):
    folder = make_folder(tmp_path, "cuhk_pedes", people=1, images=1)
    records = json.loads((folder.path / "reid_raw.json").read_text())
    write_json(folder.path / "reid_raw.json", [*records, BAD_RECORDS[reason]])
    bad, *good = read_all(folder.path)
    assert [bool(one.problem) for one in good] == [False] * 3
    assert bad.problem.startswith(f"record 4 of reid_raw.json {reason}")


def test_ids_of_any_type_name_the_same_person(tmp_path):
    records = [
        {"id": one, "file_path": f"{k}.jpg", "captions": ["a man"], "split": "Train"}
        for k, one in enumerate((17, "17", 17.0, " 17 ", "a-17"))
    ]
    write_json(tmp_path / "reid_raw.json", records)
    assert [one.identity for one in read_all(tmp_path)] == ["17"] * 4 + ["a-17"]


def test_windows_paths_and_half_surrogates_are_fixed(tmp_path):
    record = {
        "id": 1,
        "split": "val",
        "file_path": "cam_a\\1.jpg",
        "captions": ["a \ud800man", None],
    }
    (tmp_path / "reid_raw.json").write_text(json.dumps([record]))
    (one,) = read_all(tmp_path)
    assert one.path == str(tmp_path / "imgs" / "cam_a" / "1.jpg")
    assert one.captions == ("a \ufffdman", "")


def test_caption_all_gets_its_split_from_the_id_and_says_so(tmp_path, caplog):
    ids = {1: "train", 11003: "train", 11004: "val", 12003: "val", 12004: "test", 13003: "test"}
    records = [{"id": k, "file_path": f"{k}.png", "captions": ["a man"]} for k in ids]
    write_json(tmp_path / "caption_all.json", [*records, {**records[0], "id": "p1"}])
    bad, *entries = read_all(tmp_path)
    assert {int(one.identity): one.split for one in entries} == ids
    assert all("rebuilt from id" in one.extra["split_rule"] for one in entries)
    assert "from which no split follows" in bad.problem
    assert "its counts are not the published ones" in caplog.text


def test_caption_all_with_the_published_counts_is_trusted(tmp_path, caplog, monkeypatch):
    folder = make_folder(tmp_path, "cuhk_caption_all", people=2, images=2, captions=2)
    counts = published.count(formats.read(make_folder(tmp_path, "cuhk_pedes", people=2).path))
    known = published.KnownSet("CUHK-PEDES", counts, frozenset(), "")
    monkeypatch.setitem(published.KNOWN_SETS, "CUHK-PEDES", known)
    with caplog.at_level("INFO"):
        read_all(folder.path)
    assert "its counts are the published ones" in caplog.text


def test_the_split_of_icfg_comes_from_the_json_and_not_from_the_folder(tmp_path):
    folder = make_folder(tmp_path, "icfg_pedes")
    test = [one for one in formats.read(folder.path) if one.split == "test"]
    assert len(test) == 6
    assert all("/imgs/train/" in one.path for one in test)


def test_back_translated_captions_are_optional(tmp_path):
    entries = read_all(make_folder(tmp_path, "tbps_clip").path)
    told = ["captions_bt" in one.extra for one in entries]
    assert any(told)
    assert not all(told)
    assert entries[0].extra["captions_bt"] == [f"Back: {text}" for text in entries[0].captions]


def test_corrupt_images_still_settle_where_images_lie(tmp_path):
    folder = make_folder(tmp_path, "tbps_clip")
    for photo in folder.photos:
        folder.image(photo).write_text(CORRUPT)
    assert told(read_all(folder.path)) == expected(folder)
