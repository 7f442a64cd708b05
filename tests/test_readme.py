"""The README says what is so."""

import pathlib

from jaxtbpr.core.options import markdown_table
from jaxtbpr.pipeline import OPTIONS, STAGES

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_config_table_is_current():
    table = markdown_table(OPTIONS)
    assert table in README, f"put this between the table's marks in README.md:\n{table}"


def test_the_two_commands_stand_on_the_first_screen():
    first_screen = "\n".join(README.splitlines()[:40])
    assert "./launch/local.sh" in first_screen
    assert "./tests/run.sh" in first_screen


def test_every_file_and_stage_that_it_names_exists():
    words = {word.strip("`.,;:()|") for word in README.split()}
    named = {w for w in words if w.startswith(("jaxtbpr/", "configs/", "launch/", "tests/"))}
    missing = [name for name in named if not (ROOT / name.split(":")[0]).exists()]
    assert missing == []
    assert " -> ".join(STAGES) in README
