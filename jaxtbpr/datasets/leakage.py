"""Whether the people of a test set are new to the model that was trained beside it."""

from collections.abc import Iterable, Mapping
from typing import Any


def seen_people(people: Mapping[str, Iterable[str]]) -> int:
    """Returns how many identities of test are in train or val too. people: {split: identities}."""
    learned = {*people.get("train", ()), *people.get("val", ())}
    return len(learned & set(people.get("test", ())))


def doubt(test_set: str, build: Mapping[str, Any], train: Mapping[str, Any] | None) -> str:
    """Returns why the model may have seen people of a test set in training, or "".

    test_set: "NAME/SPLIT". build, train: what these stages committed.
    """
    name, _, split = test_set.partition("/")
    config = train["recipe"]["config"] if train else {}
    trained_on = config.get("data.train_sets", [name])
    seen = build.get("seen", {}).get(name, 0)
    if seen and split == "test" and name in trained_on:
        all_people = build["sets"][name]["test"]["identities"]
        return f"{seen:,} of the {all_people:,} people of {test_set} are in its train or val, too"
    if split in ("train", "val") and name in trained_on:
        return f"{test_set} is part of what the model was trained or selected on"
    both = [pair for pair in build.get("overlaps", {}).items() if name in pair[0].split(" ")]
    others = [text for pair, text in both if set(pair.split(" ")) & set(trained_on) - {name}]
    return others[0].rstrip(".") if others else ""
