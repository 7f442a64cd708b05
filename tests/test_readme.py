"""The pages say what is so: README.md and those that it leads to."""

import pathlib
import re
import shlex

import numpy as np
import pytest

from jaxtbpr import cli
from jaxtbpr.command_line import prepare_arguments
from jaxtbpr.core.options import markdown_table
from jaxtbpr.core.record import FIELDS
from jaxtbpr.stages import OPTIONS, USUAL_STAGES

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / ".github" / "CONTRIBUTING.md",
    *sorted(
        path for top in ("configs", "jaxtbpr", "tests") for path in ROOT.glob(f"{top}/**/README.md")
    ),
]

CODE = [
    str(path) for top in ("configs", "jaxtbpr", "tests") for path in ROOT.glob(f"{top}/**/*.py")
]


def record_table() -> str:
    """The table of the record's fields in jaxtbpr/README.md."""
    rows = ["| field | type | first written by | what it is |", "|---|---|---|---|"]
    rows += [f"| `{one.name}` | {one.type} | {one.stage} | {one.what} |" for one in FIELDS]
    return "\n".join(rows)


TABLES = {
    ROOT / "configs" / "README.md": lambda: markdown_table(OPTIONS),
    ROOT / "jaxtbpr" / "README.md": record_table,
}


@pytest.mark.parametrize("page", TABLES, ids=lambda page: page.parent.name)
def test_the_tables_are_current(page):
    assert TABLES[page]() in page.read_text(encoding="utf-8"), "run: python -m tests.test_readme"


def test_the_two_commands_stand_on_the_first_screen():
    first_screen = "\n".join(README.splitlines()[:40])
    assert "./launch/local.sh" in first_screen
    assert "./tests/run.sh" in first_screen


def test_the_readme_is_one_page():
    assert len(README.splitlines()) <= 250
    assert " -> ".join(USUAL_STAGES) in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_and_heading_that_a_page_names_exists(page):
    text = page.read_text(encoding="utf-8")
    words = {word.strip("`.,;:()|") for word in text.split()}
    named = {w for w in words if w.startswith(("jaxtbpr/", "configs/", "launch/", "tests/"))}
    assert [name for name in named if not (ROOT / name.split(":")[0]).exists()] == []
    modules = set(re.findall(r"`(?:\.\./)*([\w/]+\.py)`", text))
    assert [name for name in modules if not any(path.endswith(f"/{name}") for path in CODE)] == []
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, heading = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if heading:
            assert heading in headings(target.read_text(encoding="utf-8")), link


def headings(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in found}


def test_every_command_is_listed():
    listed = dict(re.findall(r"^\| `([\w-]+)` \| `(jaxtbpr[\w.]+)` \|", README, re.MULTILINE))
    known = {name: module for name, (module, _) in cli.find_commands().items()}
    assert list(listed.items()) == list(known.items())  # in the order of --help


def test_every_key_of_a_shown_command_exists():
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    known = markdown_table(OPTIONS)
    tables = ("build.folders.", "build.images.", "build.formats.", "data.set_weights.")
    for key in set(re.findall(r"--config\.([\w.]+)=", shown)):
        assert f"| `{key}` |" in known or key.startswith(tables), key


def test_every_shown_command_is_understood():
    shown = "\n".join(page.read_text(encoding="utf-8") for page in PAGES).replace("\\\n", " ")
    commands = re.findall(r"^(?:\S+ && )?jaxtbpr ([\w-]+)(.*)$", shown, re.MULTILINE)
    assert len(commands) > 15
    assert {name for name, _ in commands} <= cli.find_commands().keys()
    for _, words in filter(lambda command: command[0] == "run", commands):
        prepare_arguments(["jaxtbpr", *shlex.split(words, comments=True)])


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    from PIL import Image

    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "photos").mkdir()
    for name, colour in {"a.png": (200, 0, 0), "b.png": (0, 0, 200)}.items():
        Image.new("RGB", (64, 128), colour).save(tmp_path / "photos" / name)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(snippet, scope)
    assert sorted(scope["best"]) == [0, 1]
    np.testing.assert_allclose(np.linalg.norm(scope["images"], axis=1), 1, rtol=1e-4)


def write_tables() -> None:
    """Puts the current tables into their pages: python -m tests.test_readme."""
    for page, table in TABLES.items():
        text, current = page.read_text(encoding="utf-8"), table()
        head = current.split("\n", 1)[0]
        start = text.index(head)
        end = re.search(r"\n(?!\|)|\Z", text[start:]).start()
        page.write_text(text[:start] + current + text[start + end :], encoding="utf-8")


if __name__ == "__main__":
    write_tables()
