"""Market-1501 and MSMT17: people, images and splits, and no captions."""

import pytest

from jaxtbpr.core.errors import InputError, UserError
from jaxtbpr.datasets import build, formats, validate
from jaxtbpr.datasets.survey import survey
from tests.datasets.folders import write_image
from tests.datasets.sets import make_config

MARKET = (
    "bounding_box_train/0002_c1s1_000451_03.jpg",
    "bounding_box_train/0002_c2s1_000301_01.jpg",
    "bounding_box_train/0007_c3s3_077419_03.jpg",
    "query/0003_c1s6_015971_00.jpg",
    "bounding_box_test/0003_c4s6_015641_01.jpg",
)
NOBODY = (
    "bounding_box_test/-1_c1s1_000401_03.jpg",
    "bounding_box_test/-1_c2s1_000401_04.jpg",
    "bounding_box_test/0000_c1s1_000151_01.jpg",
)
LISTS = {
    "list_train.txt": ("train", ["0000/0000_000_01_0303morning_0015_0.jpg 0", "0001/b.jpg 1"]),
    "list_val.txt": ("train", ["0000/c.jpg 0"]),
    "list_query.txt": ("test", ["0000/d.jpg 0"]),
    "list_gallery.txt": ("test", ["0000/e.jpg 0", "0001/f.jpg 1"]),
}


def write_market(folder):
    for seed, name in enumerate(MARKET + NOBODY):
        write_image(folder / name, seed)
    (folder / "query" / "Thumbs.db").write_bytes(b"")
    return folder


def write_msmt(folder, place="{}", lists=LISTS):
    for file, (half, lines) in lists.items():
        (folder / file).write_text("\n".join(lines) + "\n")
        for seed, line in enumerate(lines):
            write_image(folder / place.format(half) / line.rsplit(" ", 1)[0], seed)
    return folder


def people(folder):
    found = {}
    for one in formats.read(folder):
        assert (one.captions, one.problem) == ((), "")
        found.setdefault((one.split, one.identity), []).append(one.extra["image_id"])
    return found


def test_people_of_market_are_read_from_the_names_of_files(tmp_path):
    assert people(write_market(tmp_path)) == {
        ("train", "0002"): list(MARKET[:2]),
        ("train", "0007"): list(MARKET[2:3]),
        ("test", "0003"): list(MARKET[3:]),
    }
    assert survey(tmp_path).warnings() == [
        "images of junk (-1), which show no known person, are left out: 2.",
        "images of background (0000 in bounding_box_test), which show no known person, are left "
        "out: 1.",
    ]


def test_broken_images_of_people_without_captions_are_told(tmp_path):
    (write_market(tmp_path) / MARKET[0]).write_bytes(b"no image")
    problems = survey(tmp_path).problems()
    assert any(
        one.startswith(f"images corrupt or truncated: 1 of 5 ({MARKET[0]}") for one in problems
    )
    assert not any("without a caption, which" in one for one in problems)


def test_a_person_whose_number_is_0_is_one_where_a_query_asks_for_them(tmp_path):
    write_image(write_market(tmp_path) / "query/0000_c1_f0046182.jpg", 0)
    assert len(people(tmp_path)["test", "0000"]) == 2


@pytest.mark.parametrize("place", ["{}", "mask_{}_v2", ""])
def test_people_of_msmt17_are_read_from_its_lists(tmp_path, place):
    found = people(write_msmt(tmp_path, place))
    # Each half counts from 0, and people of val are people of train.
    counts = {person: len(names) for person, names in found.items()}
    train = {("train", "train-0"): 2, ("train", "train-1"): 1}
    assert counts == train | {("test", "test-0"): 2, ("test", "test-1"): 1}
    result = survey(tmp_path)
    assert result.images.missing == result.images.broken == 0
    (told,) = result.warnings()
    assert told == (
        "list_val.txt: its images (1) are train, since people of it (1) are in list_train.txt, too."
    )


def test_val_people_of_their_own_stay_val(tmp_path):
    write_msmt(tmp_path, lists=LISTS | {"list_val.txt": ("train", ["0009/c.jpg 9"])})
    assert ("val", "train-9") in people(tmp_path)


def test_what_is_not_of_the_form_is_set_aside(tmp_path):
    write_market(tmp_path / "a")
    write_image(tmp_path / "a" / "query" / "holiday.jpg", 0)
    write_msmt(tmp_path, lists=LISTS | {"list_query.txt": ("test", ["0000/d.jpg 0"])})
    with (tmp_path / "list_query.txt").open("a") as file:
        file.write("0000/e.jpg\n")
    said = [one.problem for at in (tmp_path / "a", tmp_path) for one in formats.read(at)]
    assert list(filter(None, said)) == [
        "query/holiday.jpg has a name that does not begin as 0002_c1 does",
        "line 2 of list_query.txt is not a path and a number",
    ]


def test_a_list_that_is_damaged_is_told(tmp_path):
    (write_msmt(tmp_path) / "list_query.txt").write_bytes(b"\xff\xfe0\x00\n")
    problems = survey(tmp_path).problems()
    assert any("line 1 of list_query.txt is not a path and a number" in text for text in problems)


def test_a_text_file_of_another_kind_is_no_list(tmp_path):
    (tmp_path / "list_train.txt").write_text("see the paper\n")
    with pytest.raises(InputError, match="not recognised"):
        formats.detect(tmp_path)


@pytest.mark.parametrize("write", [write_market, write_msmt])
def test_validate_counts_the_people_and_says_how_captions_are_made(tmp_path, capsys, write):
    write(tmp_path)
    assert validate.main([str(tmp_path)]) == validate.PROBLEMS
    out = capsys.readouterr().out
    command = "python -m jaxtbpr.main --config=configs/photos.py --config.photos.folder="
    assert f"{command}{tmp_path}\n" in out  # on a line of its own, to be copied
    assert "PROBLEM  no image has a caption" in out
    cells = [line.split() for line in out.splitlines() if line.startswith(("  train", "  test"))]
    assert all(captions == "0" for *_, captions in cells)
    assert len(cells) == 2


def test_build_refuses_such_a_set_with_the_same_words(tmp_path):
    config = make_config(folders={"people": str(write_market(tmp_path))})
    with pytest.raises(UserError, match=r"config\.build\.folders\.people: .* no image has a capt"):
        build.fingerprint(config)


def test_a_table_of_captions_that_the_user_adds_goes_first(tmp_path):
    write_market(tmp_path)
    table = f"file_path,caption,identity,split\n{MARKET[0]},someone,2,train\n"
    (tmp_path / "captions.csv").write_text(table)
    assert formats.detect(tmp_path).name == "table"
