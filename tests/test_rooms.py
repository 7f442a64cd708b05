"""The rooms (folders of the package) import what the table in jaxtbpr/README.md allows."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "jaxtbpr"
ROOMS = {path.name for path in PACKAGE.iterdir() if any(path.glob("*.py"))}


def table() -> dict[str, set[str]]:
    """{room: rooms that it may import}, of the page."""
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|.*\| ([^|]*) \|$", text, re.MULTILINE)
    return {room: ROOMS & set(re.findall(r"\w+", allowed)) for room, allowed in rows}


def imported(room: str) -> set[str]:
    """The other rooms that the modules of a room import, wherever in a module."""
    found = set()
    for path in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {f"{node.module}.{name.name}" for name in node.names}
    parts = (name.split(".") for name in found if name.startswith("jaxtbpr."))
    return {part[1] for part in parts} - {room}


def test_every_room_is_in_the_table():
    assert table().keys() >= ROOMS


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_it_may(room):
    assert imported(room) <= table()[room]


def test_the_model_knows_nothing_of_its_training():
    modules = (PACKAGE / "retrieval" / "clip").rglob("*.py")
    text = "".join(path.read_text(encoding="utf-8") for path in modules)
    assert set(re.findall(r"jaxtbpr\.retrieval\.(\w+)", text)) == {"clip"}
