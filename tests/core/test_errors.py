"""Errors with config keys and without: who knows keys, and how a key comes to a message."""

import ast
import pathlib
import re

import pytest

from jaxtbpr import stages
from jaxtbpr.core import options
from jaxtbpr.core.errors import InputError, UserError, of_key

PACKAGE = pathlib.Path(__file__).parents[2] / "jaxtbpr"
ROOMS = ("core", "datasets", "diffusion", "prompts", "render", "retrieval")
# The stages, commands and runs of these rooms, which know keys. All others a program may call.
KNOW_KEYS = {
    "core": "command compilation errors manifest options record renamed stage workdir",
    "datasets": "build export fingerprint image_check photos reid_sets leakage validate",
    "diffusion": "fit",
    "prompts": "llm stage",
    "render": "__main__",
    "retrieval": "clip_filter denoise evaluate export judging/perception measure train "
    "training/log training/loop training/setup zero_shot",
}
KNOWN = {
    PACKAGE / room / f"{name}.py" for room, names in KNOW_KEYS.items() for name in names.split()
}
MODULES = sorted(path for room in ROOMS for path in (PACKAGE / room).rglob("*.py"))


def sentences(tree: ast.AST) -> list[str]:
    """The strings of a module but for docstrings and the help of options."""
    if isinstance(tree, ast.Call) and getattr(tree.func, "id", "") == "Option":
        return []
    if isinstance(tree, ast.Constant):
        return [tree.value] if isinstance(tree.value, str) else []
    body = [node for node in ast.iter_child_nodes(tree) if not is_docstring(node)]
    return [text for node in body for text in sentences(node)]


def is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_what_knows_keys_is_there():
    assert set(MODULES) >= KNOWN


def test_what_a_program_may_call_knows_no_config_key():
    keys = "|".join(re.escape(key) for key in options.flatten(stages.OPTIONS) if "." in key)
    key = re.compile(rf"(?<![\w.])(config\.(?!json\b)|({keys})(?!\w))|\bUserError\b")
    found = []
    for path in set(MODULES) - KNOWN:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        texts = [text for text in sentences(tree) + imports if key.search(text)]
        found += [(str(path.relative_to(PACKAGE)), text) for text in texts]
    assert not found


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("a.json is empty.", "config.train.fsdp: a.json is empty."),
        ("fsdp=3 is not even.", "config.train.fsdp=3 is not even."),
    ],
)
def test_a_key_comes_before_what_a_library_function_says(said, told):
    with pytest.raises(UserError) as caught, of_key("train.fsdp"):
        raise InputError(said)
    assert str(caught.value) == told
    assert str(caught.value.__cause__) == said


@pytest.mark.parametrize("kind", [ValueError, UserError])
def test_faults_of_the_program_and_errors_that_have_a_key_stay_as_they_are(kind):
    with pytest.raises(ValueError, match="^shapes differ$") as caught, of_key("train.fsdp"):
        raise kind("shapes differ")
    assert type(caught.value) is kind
