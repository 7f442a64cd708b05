import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import formats
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import write_image, write_json


def coco(names, people=()):
    images = [{"id": 7 + k, "file_name": name} for k, name in enumerate(names)]
    for image, person in zip(images, people, strict=False):
        image["person_id"] = person
    said = [(7 + k, f"{text} of {name}") for text in "ab" for k, name in enumerate(names)]
    annotations = [
        {"id": k, "image_id": image, "caption": text} for k, (image, text) in enumerate(said)
    ]
    return {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": annotations}


def told(folder):
    return [(one.captions, one.identity, one.split) for one in formats.read(folder)]


@pytest.mark.parametrize("place", ["annotations", ""])
def test_coco_captions_are_read_with_the_split_of_their_file(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    for split in ("train", "val"):
        write_json(tmp_path / place / f"captions_{split}2017.json", coco([f"{split}.jpg"]))
        (tmp_path / f"{split}2017").mkdir()
        write_image(tmp_path / f"{split}2017" / f"{split}.jpg", 0)
    assert told(tmp_path) == [
        (("a of train.jpg", "b of train.jpg"), "image:train.jpg", "train"),
        (("a of val.jpg", "b of val.jpg"), "image:val.jpg", "val"),
    ]
    assert survey(tmp_path).problems() == []


def test_identities_of_images_are_read_where_coco_has_them(tmp_path):
    write_json(tmp_path / "captions.json", coco(["0.jpg", "1.jpg"], people=[3, 3]))
    assert [identity for _, identity, _ in told(tmp_path)] == ["3", "3"]


def test_a_missing_identity_and_split_is_told_in_the_words_of_a_table(tmp_path):
    def remarks(people):
        write_json(tmp_path / "captions.json", coco(["0.jpg", "1.jpg"], people))
        return formats.remarks(tmp_path, formats.detect(tmp_path))

    no_split = "captions.json: no column holds the split: all are train."
    alone = "captions.json: no column holds the identity: each image is a separate person."
    assert remarks([]) == [alone, no_split]
    assert remarks([0, 0]) == [
        "captions.json: the identity is read from column 'person_id'.",
        no_split,
    ]


def test_captions_of_no_image_are_set_aside(tmp_path):
    held = coco(["0.jpg"])
    held["annotations"].append({"image_id": 99, "caption": "nobody"})
    write_json(tmp_path / "captions.json", held)
    assert [one.problem for one in formats.read(tmp_path) if one.problem] == [
        "image_id 99 of captions.json has captions but no image"
    ]


def test_karpathys_split_is_read(tmp_path):
    images = [
        {"filepath": "val2014", "filename": f"{split}.jpg", "split": split, "cocoid": k,
         "sentences": [{"raw": f"in {split}", "tokens": ["in", split]}]}
        for k, split in enumerate(("train", "restval", "val", "test"))
    ]  # fmt: skip
    write_json(tmp_path / "dataset_coco.json", {"images": images, "dataset": "coco"})
    assert [(captions, split) for captions, _, split in told(tmp_path)] == [
        (("in train",), "train"),
        (("in restval",), "train"),
        (("in val",), "val"),
        (("in test",), "test"),
    ]


def test_fiftyone_is_refused_with_the_way_to_convert_it(tmp_path):
    write_json(tmp_path / "samples.json", {"samples": [{"filepath": "0.jpg", "caption": "x"}]})
    with pytest.raises(InputError, match=r"is a FiftyOne file.*CSVDataset"):
        formats.detect(tmp_path)


def test_an_object_that_is_no_annotation_gets_no_well_known_name(tmp_path):
    write_json(tmp_path / "captions.json", {"images": [{"id": 1}], "annotations": [{"bbox": []}]})
    with pytest.raises(InputError) as caught:
        formats.detect(tmp_path)
    assert "similar to" not in str(caught.value)
