import json
import subprocess
import sys

import pytest

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import formats, published, roles, validate
from jaxtbpr.datasets.entry import Entry
from jaxtbpr.datasets.survey import survey
from tests.datasets import sets
from tests.datasets.folders import FORMS, make_folder, write_json


def run(capsys, *arguments):
    status = validate.main([str(argument) for argument in arguments])
    return status, capsys.readouterr().out


def flat(text):
    """Returns `text` without its line breaks: where they fall depends on the length of paths."""
    return " ".join(text.split())


@pytest.mark.parametrize("form", sorted(FORMS))
def test_a_sound_folder_of_any_form_has_no_problems(tmp_path, capsys, form):
    folder = make_folder(tmp_path, form)
    status, out = run(capsys, folder.path)
    assert status == 0
    assert "no problems" in out
    assert "captions that look wrong: none" in out
    assert f"  images  {folder.images}\n" in out


def test_the_form_and_its_files_are_told(tmp_path, capsys):
    _, out = run(capsys, make_folder(tmp_path, "rasa").path)
    assert "form    RaSa / MARS: processed_data/train.json, processed_data/val.json" in out


def test_counts_stand_beside_the_published_ones(tmp_path, capsys):
    _, out = run(capsys, make_folder(tmp_path, "rstpreid", people=3, images=2).path)
    rows = [line.split() for line in out.splitlines()]
    assert ["train", "3", "3,701", "*", "6", "18,505", "*", "12", "37,010", "*"] in rows
    assert ["val", "3", "200", "*", "6", "1,000", "*", "12", "2,000", "*"] in rows
    assert "WARNING counts differ from the published ones of RSTPReid" in flat(out)


def test_counts_that_are_the_published_ones_are_not_marked(tmp_path, capsys, monkeypatch):
    counts = {split: published.Counts(3, 6, 12) for split in ("train", "val", "test")}
    known = published.KnownSet("RSTPReid", counts, frozenset(), "ask.")
    monkeypatch.setitem(published.KNOWN_SETS, "RSTPReid", known)
    status, out = run(capsys, make_folder(tmp_path, "rstpreid", people=3, images=2).path)
    assert "*" not in out
    assert "no problems, no warnings" in out
    assert status == 0


def test_a_set_behind_a_shared_form_is_told_by_its_images(tmp_path, capsys):
    _, out = run(capsys, make_folder(tmp_path, "aptm").path)
    assert "counts differ from the published ones of CUHK-PEDES" in out


def test_own_data_is_not_compared_with_anything(tmp_path, capsys):
    _, out = run(capsys, make_folder(tmp_path, "csv", name="my-cuhk-pedes").path)
    assert "published" not in out


def test_missing_corrupt_and_truncated_images_are_problems(tmp_path, capsys):
    folder = make_folder(tmp_path, "icfg_pedes", faults=True)
    status, out = run(capsys, folder.path)
    missing, corrupt, truncated = (photo.name for photo in folder.photos[:3])
    assert status == 1
    assert f"images missing: 1 of 12 ({missing})." in flat(out)
    taken = "images that a run uses (with a caption, not damaged): train 3 of 6, test 6 of 6."
    assert taken in out
    assert f"images corrupt or truncated: 2 of 12 ({corrupt} is not in a known" in flat(out)
    assert f"{truncated} cannot be decoded" in flat(out)
    assert "2 problems" in out


def test_images_are_not_decoded_when_that_is_not_wanted(tmp_path, capsys):
    folder = make_folder(tmp_path, "icfg_pedes", faults=True)
    status, out = run(capsys, folder.path, "--no-images")
    assert status == 1
    assert "images missing: 1 of 12" in out
    assert "corrupt" not in out


def test_a_misnamed_image_folder_comes_with_the_way_to_mend_it(tmp_path, capsys):
    folder = make_folder(tmp_path, "cuhk_pedes")
    folder.images.rename(folder.path / "img")
    status, out = run(capsys, folder.path)
    assert status == 1
    assert f"imgs/ does not exist, but images are in {folder.path / 'img'}: rename it" in flat(out)
    status, out = run(capsys, folder.path, "--images", folder.path / "img")
    assert status == 0


def test_a_misnamed_annotation_comes_with_its_right_name(tmp_path, capsys):
    folder = make_folder(tmp_path, "icfg_pedes")
    (folder.path / "ICFG-PEDES.json").rename(folder.path / "ICFG.json")
    status, out = run(capsys, folder.path)
    assert status == 0
    assert "ICFG.json is similar to ICFG-PEDES.json: rename it if it is that file." in flat(out)
    assert "published ones of ICFG-PEDES" in out


def test_a_misnamed_caption_all_is_noticed(tmp_path, capsys):
    folder = make_folder(tmp_path, "cuhk_caption_all")
    (folder.path / "caption_all.json").rename(folder.path / "captions_all.json")
    _, out = run(capsys, folder.path)
    assert "captions_all.json is similar to caption_all.json" in flat(out)


def test_a_rebuilt_split_is_told(tmp_path, capsys):
    _, out = run(capsys, make_folder(tmp_path, "cuhk_caption_all").path)
    assert "records have no split; split rebuilt from id: 1..11003 train" in flat(out)
    assert "its counts are not the published ones, so check it" in flat(out)


def edit(folder, change):
    file = folder.path / "reid_raw.json"
    records = json.loads(file.read_text())
    change(records)
    write_json(file, records)


def test_a_record_that_is_repeated_word_for_word_counts_once_and_is_told(tmp_path, capsys):
    folder = make_folder(tmp_path, "cuhk_pedes")
    edit(folder, lambda records: records.append(records[0]))
    status, out = run(capsys, folder.path)
    assert status == 0
    told = "images with a record that is repeated word for word, counted once: 1"
    assert f"WARNING {told} ({folder.photos[0].name})." in flat(out)


def test_identities_in_several_splits_are_a_problem(tmp_path, capsys):
    folder = make_folder(tmp_path, "cuhk_pedes")
    edit(folder, lambda records: records[0].update(split="test"))
    status, out = run(capsys, folder.path)
    assert status == 1
    assert "identities in several splits: 1 (1); the test would not be" in flat(out)


def test_unusable_records_are_a_problem(tmp_path, capsys):
    folder = make_folder(tmp_path, "cuhk_pedes")
    edit(folder, lambda records: records[2].pop("id"))
    status, out = run(capsys, folder.path)
    assert status == 1
    assert "will be rejected: 1 (record 3 of reid_raw.json has no 'id')." in flat(out)


def test_an_annotation_that_breaks_off_is_a_problem(tmp_path, capsys):
    folder = make_folder(tmp_path, "mals")
    file = folder.path / "gene_attrs" / "g_i_g_a_12_attrs.json"
    file.write_text(file.read_text()[:-20])
    status, out = run(capsys, folder.path)
    assert status == 1
    assert "g_i_g_a_12_attrs.json is not complete, valid JSON" in flat(out)
    assert "train" in out  # what was read is still counted


def test_an_empty_annotation_is_a_problem(tmp_path, capsys):
    write_json(tmp_path / "reid_raw.json", [])
    status, out = run(capsys, tmp_path)
    assert status == 1
    assert "no usable record" in out


def test_doubtful_captions_are_listed_and_written_but_no_problem(tmp_path, capsys):
    folder = make_folder(tmp_path, "cuhk_pedes")

    def spoil(records):
        records[0]["captions"] = ["一 man", "man", "", "A <br> man", "With [hair description]"]
        records[8]["captions"] = list(records[4]["captions"])

    edit(folder, spoil)
    status, out = run(capsys, folder.path, "--flags", tmp_path / "flags.jsonl")
    flags = [json.loads(line) for line in (tmp_path / "flags.jsonl").read_text().splitlines()]
    assert status == 0
    for rule, number in {
        "foreign characters": 1,
        "piece of code": 1,
        "template slot": 1,
        "empty": 1,
        "one word": 1,
        "same on other identities": 4,
    }.items():
        assert f"{number}  {rule}" in out
        assert sum(flag["rule"] == rule for flag in flags) == number
    assert "CJK UNIFIED IDEOGRAPH-4E00" in out
    assert flags[0] == {
        "folder": str(folder.path),
        "rule": "foreign characters",
        "detail": "U+4E00 CJK UNIFIED IDEOGRAPH-4E00",
        "text": "一 man",
        "identity": "1",
        "file": folder.photos[0].name,
    }
    assert "captions flagged: 9" in out


def test_control_characters_do_not_reach_the_terminal(tmp_path, capsys):
    folder = make_folder(tmp_path, "cuhk_pedes")
    edit(folder, lambda records: records[0].update(captions=["a man \x1b[31m in red \r"]))
    _, out = run(capsys, folder.path)
    assert "\x1b" not in out
    assert "\r" not in out


def test_a_folder_that_is_not_recognised_exits_with_two_and_tells_how_to_ask(tmp_path, capsys):
    (tmp_path / "RSTPReid").mkdir()
    status, out = run(capsys, tmp_path / "RSTPReid")
    assert status == 2
    assert "is not recognised as a data set" in out
    assert "How to get RSTPReid:" in out


def test_the_worst_folder_gives_the_exit_status(tmp_path, capsys):
    good = make_folder(tmp_path, "csv").path
    bad = make_folder(tmp_path, "rstpreid", faults=True).path
    nothing = tmp_path / "nothing"
    nothing.mkdir()
    assert run(capsys, good, bad)[0] == 1
    assert run(capsys, nothing, bad, good)[0] == 2


def test_sets_with_a_common_origin_give_a_warning(tmp_path, capsys):
    folders = [make_folder(tmp_path, form).path for form in ("icfg_pedes", "rstpreid")]
    status, out = run(capsys, *folders)
    assert "WARNING ICFG-PEDES and RSTPReid both come from MSMT17" in flat(out)
    assert status == 0
    _, out = run(capsys, folders[0], make_folder(tmp_path, "cuhk_pedes").path)
    assert "both come from" not in out


def test_nothing_points_at_copies_of_a_set():
    for known in published.KNOWN_SETS.values():
        assert "http" not in known.ask
        assert "drive" not in known.ask


@pytest.mark.parametrize(
    ("names", "title"),
    [
        (["cam_a/1.png", "Market/2.jpg", "x.jpg"], "CUHK-PEDES"),
        (["imgs/CUHK03/1.png"], "CUHK-PEDES"),
        (["test/0048/0048_003_05_0303morning_0012_1.jpg"], "ICFG-PEDES"),
        (["3902_c7_0003.jpg"], "RSTPReid"),
        (["a.jpg", "cam_a/1.png"], None),
        ([], None),
    ],
)
def test_a_set_is_told_by_the_names_of_its_images(names, title):
    assert published.set_of_names(names) == title


def test_published_counts_are_compared_split_by_split():
    entries = [Entry("a", ("x", "y"), str(k), "train") for k in range(3)]
    found = published.differences("ICFG-PEDES", published.count(entries))
    assert found[:3] == [
        "train identities 3, published 3,102",
        "train images 3, published 34,674",
        "train captions 6, published 34,674",
    ]
    assert len(found) == 6


def test_the_command_runs_without_jax_and_tensorflow(tmp_path):
    folder = make_folder(tmp_path, "cuhk_pedes").path
    code = (
        "import sys; from jaxtbpr.datasets import validate; "
        f"status = validate.main([{str(folder)!r}]); "
        "heavy = {'jax', 'tensorflow', 'torch'} & set(sys.modules); "
        "sys.exit(f'{heavy} imported' if heavy else status)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "jaxtbpr.datasets.validate", str(folder), "--no-images"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "CUHK-PEDES: reid_raw.json" in done.stdout


def test_its_help_needs_no_docstrings_which_python_oo_leaves_out(capsys, monkeypatch):
    monkeypatch.setattr(validate, "__doc__", None)
    with pytest.raises(SystemExit, match="0"):
        validate.main(["--help"])
    assert "--no-images" in capsys.readouterr().out


def test_a_file_for_the_flags_that_cannot_be_written_is_told_before_the_survey(tmp_path, capsys):
    folder = make_folder(tmp_path, "cuhk_pedes")
    with pytest.raises(SystemExit):
        validate.main([str(folder.path), "--flags", str(tmp_path / "nowhere" / "flags.jsonl")])
    said = capsys.readouterr()
    assert "flags.jsonl cannot be written" in said.err
    assert "does not exist" in said.err
    assert said.out == ""


def test_a_folder_of_images_that_is_not_there_is_refused(tmp_path, capsys):
    folder = make_folder(tmp_path, "csv")
    with pytest.raises(SystemExit):
        validate.main([str(folder.path), f"--images={tmp_path / 'nowhere'}"])
    assert "nowhere is not a folder; check the path" in capsys.readouterr().err


def test_tables_of_one_name_are_told_by_their_folders(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "metadata.csv").write_text("image,caption,pid\na.jpg,x,1\n")
    told = "test/metadata.csv, train/metadata.csv: the identity is read from column 'pid'."
    assert told in survey(tmp_path, decode=False).warnings()


def test_tables_of_one_name_are_told_by_the_folders_that_differ(tmp_path):
    files = [tmp_path / one / "images/metadata.csv" for one in ("a", "b")]
    same = [text.partition(" are read")[0] for text in roles.same_split(files, lambda file: None)]
    assert same == ["a/images/metadata.csv and b/images/metadata.csv"]
    columns = dict.fromkeys(files, roles.Roles(None, "split", ()))
    (alone,) = roles.remarks(files, columns, lambda file: None)
    assert alone.startswith("a/images/metadata.csv, b/images/metadata.csv: no column holds")


def test_a_run_and_its_parts_are_called_so_with_the_commands_that_take_them(tmp_path, capsys):
    sets.build_folder(tmp_path)
    run_folder = tmp_path / "run"
    sets.write_manifest(run_folder)
    counts = "train 3 identities, 6 images, 12 captions; val "
    told = {
        run_folder: "run is a run of this program, not a data set; its built sets are: "
        f"{run_folder}",
        run_folder / "caption": f"is stage 'caption' of a run of this program, not a data set; "
        f"its built sets are: {run_folder}/build/real ({counts}",
        run_folder / "build/real": f"is a data set that this program built and checked: {counts}",
    }
    for folder, words in told.items():
        status, out = run(capsys, folder)
        assert status == 2
        assert words in flat(out)
        data = folder if folder.name == "real" else run_folder
        assert f"evaluate --checkpoint={run_folder}/train --data={data}\n" in out
        assert "These are read" not in out


def test_a_table_of_other_columns_is_told_its_names_first_and_all_forms_by_validate_alone(
    tmp_path, capsys
):
    (tmp_path / "mine.csv").write_text("jpg,description_en,who\n0.jpg,a man,3\n")
    with pytest.raises(InputError) as fault:
        formats.detect(tmp_path)
    first, _, rest = str(fault.value).partition("\n")
    assert not rest
    assert first.endswith(
        "its columns are jpg, description_en, who. In mine.csv name the column with the image files"
        " 'file_path' and the one with the captions 'caption'; 'identity' and 'split' are "
        "read, too."
    )
    status, out = run(capsys, tmp_path)
    assert status == 2
    assert out.startswith(first)
    assert "CUHK-PEDES: reid_raw.json" in out.partition("Forms that are read:")[2]
