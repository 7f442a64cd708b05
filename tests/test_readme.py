"""The README says what is so."""

import pathlib

from jaxtbpr.core.options import markdown_table
from jaxtbpr.stages import OPTIONS, USUAL_STAGES

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_config_table_is_current():
    table = markdown_table(OPTIONS)
    assert table in README, "run: python -m tests.test_readme"


def test_the_two_commands_stand_on_the_first_screen():
    first_screen = "\n".join(README.splitlines()[:40])
    assert "./launch/local.sh" in first_screen
    assert "./tests/run.sh" in first_screen


def test_every_file_and_stage_that_it_names_exists():
    words = {word.strip("`.,;:()|") for word in README.split()}
    named = {w for w in words if w.startswith(("jaxtbpr/", "configs/", "launch/", "tests/"))}
    missing = [name for name in named if not (ROOT / name.split(":")[0]).exists()]
    assert missing == []
    assert " -> ".join(USUAL_STAGES) in README


def write_config_table() -> None:
    """Puts the current table into README.md: python -m tests.test_readme."""
    head, rest = README.split("<summary>Every key</summary>\n\n")
    tail = rest[rest.index("\n\n</details>") :]
    text = f"{head}<summary>Every key</summary>\n\n{markdown_table(OPTIONS)}{tail}"
    (ROOT / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_config_table()
