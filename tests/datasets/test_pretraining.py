import json

import pytest

from jaxtbpr.datasets import formats, pretraining
from jaxtbpr.datasets.pretraining import holds_slot
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import make_folder, write_image, write_json


def luperson(tmp_path, **captions):
    for file, text in captions.items():
        if text is not None:
            write_json(
                tmp_path / "caption" / f"{file.replace('_', '-')}.json", {"part1/7.jpg": text}
            )
    (one,) = formats.read(tmp_path)
    return one


def test_a_caption_with_a_slot_becomes_a_clean_static_caption(tmp_path):
    one = luperson(
        tmp_path,
        Td_qwen="With [hair description], the man walks.",
        Td_shikra="A <colour> coat.",
        Ts_qwen="A slot [bag description] here too.",
        Ts_shikra="A man in a navy tracksuit.",
    )
    assert one.captions == ("A man in a navy tracksuit.",) * 4
    assert one.extra["captions_repaired"] == 3


def test_a_slot_stays_where_no_clean_static_caption_is(tmp_path):
    one = luperson(tmp_path, Td_qwen="A <colour> coat.", Ts_qwen="In [shoe description].")
    assert one.captions == ("A <colour> coat.", "In [shoe description].")
    assert "captions_repaired" not in one.extra


def test_a_caption_of_a_dynamic_prompt_replaces_none(tmp_path):
    one = luperson(tmp_path, Td_qwen="A <colour> coat.", Td_shikra="A red coat.", Ts_qwen="A <x>.")
    assert one.captions == ("A <colour> coat.", "A red coat.", "A <x>.")


def test_clean_captions_are_not_touched(tmp_path):
    one = luperson(tmp_path, Td_qwen="A red coat.", Ts_qwen="A blue coat.")
    assert one.captions == ("A red coat.", "A blue coat.")


@pytest.mark.parametrize(
    ("caption", "slot"),
    [("with [hair description]", True), ("a <red> hat", True), ("a [red] hat", False)],
)
def test_slots_are_told_by_the_loaders_rule(caption, slot):
    assert holds_slot(caption) == slot


def test_a_value_that_is_no_caption_is_set_aside(tmp_path):
    write_json(tmp_path / "Ts-qwen.json", {"1.jpg": "a man", "2.jpg": ["x"], " ": "y"})
    entries = list(formats.read(tmp_path))
    assert [one.problem for one in entries] == [
        "record 2 of Ts-qwen.json is no image name with one caption",
        "record 3 of Ts-qwen.json is no image name with one caption",
        "",
    ]


def test_mals_keeps_its_attribute_labels(tmp_path):
    for one in formats.read(make_folder(tmp_path, "mals").path):
        assert len(one.extra["label"]) == 27
        assert one.split == "train"


def test_mals_is_told_by_its_keys_where_its_files_are_renamed(tmp_path):
    record = {"image": "c/7.jpg", "caption": "a man", "image_id": "c_7", "label": [0] * 27}
    write_json(tmp_path / "subset.json", [record])
    assert formats.detect(tmp_path).name == "mals"


def test_synth_pedes_keeps_attributes_and_prompt_caption_apart(tmp_path):
    for one in formats.read(make_folder(tmp_path, "synth_pedes").path):
        assert one.extra["prompt_caption"] == ["A woman with brown hair."]
        assert "A woman with brown hair." not in one.captions


def test_aptm_joins_the_train_records_of_an_image(tmp_path):
    folder = make_folder(tmp_path, "aptm", captions=3)
    records = json.loads((folder.path / "cuhk_train.json").read_text())
    train = [one for one in formats.read(folder.path) if one.split == "train"]
    assert len(records) == 3 * len(train)
    assert all(len(one.captions) == 3 for one in train)


@pytest.mark.parametrize("name", ["captions.json", "Ts-qwen.json"])
def test_images_of_one_base_name_in_two_folders_are_two_images(tmp_path, name):
    names = {f"cam{k}/0001.jpg": f"a man no. {k}" for k in range(2)}
    write_json(tmp_path / name, names)
    for image in names:
        write_image(tmp_path / image, 0)
    told = {one.path: one.captions for one in formats.read(tmp_path)}
    assert told == {str(tmp_path / image): (text,) for image, text in names.items()}


def test_images_of_several_files_are_joined_by_base_name_where_those_are_unique(tmp_path):
    write_json(tmp_path / "Td-qwen.json", {"a/1.jpg": "x"})
    write_json(tmp_path / "Ts-qwen.json", {"b/1.jpg": "y"})
    (one,) = formats.read(tmp_path)
    assert (one.captions, one.notes) == (("x", "y"), (pretraining.SAME_BASE,))


def test_a_dictionary_of_captions_is_a_form_of_its_own_with_the_split_of_its_name(tmp_path):
    write_json(tmp_path / "train.json", {"c/1.jpg": "x", "c/2.jpg": ["y", "z"]})
    write_json(tmp_path / "test.json", {"c/3.jpg": "w"})
    told = {one.identity: (one.captions, one.split) for one in formats.read(tmp_path)}
    assert formats.detect(tmp_path).known is None
    assert told == {
        "image:c/1.jpg": (("x",), "train"),
        "image:c/2.jpg": (("y", "z"), "train"),
        "image:c/3.jpg": (("w",), "test"),
    }


def test_validate_tells_that_a_dictionary_knows_no_people_and_no_split(tmp_path):
    write_json(tmp_path / "captions.json", {"1.jpg": "x"})
    assert survey(tmp_path, decode=False).warnings()[:2] == [
        "captions.json: no column holds the identity: each image is a separate person.",
        "captions.json: no column holds the split: all are train.",
    ]


def test_two_names_that_lead_to_one_file_are_not_joined_in_silence(tmp_path):
    write_json(tmp_path / "captions.json", {"cam0/1.jpg": "x", "cam1/1.jpg": "y"})
    write_image(tmp_path / "1.jpg", 0)
    bad, good = formats.read(tmp_path)
    assert "cam1/1.jpg names the same file as cam0/1.jpg and has the identity" in bad.problem
    assert good.captions == ("x",)


@pytest.mark.parametrize("value", [7, None, {"a": 1}])
def test_a_value_of_a_dictionary_that_is_no_caption_is_set_aside(tmp_path, value):
    write_json(tmp_path / "captions.json", {"1.jpg": "x", "2.jpg": value})
    assert ["record 2" in one.problem for one in formats.read(tmp_path)] == [True, False]
