"""Measuring a manifest: each shard once, whole, and never again."""

import numpy as np
import pytest

from jaxtbpr.core.measured import measure_shards

SHARDS = [[{"id": "0"}, {"id": "1"}], [], [{"id": "2"}]]


class Ruler:
    """Measures ids; dies at shard `dies`."""

    def __init__(self, dies=None):
        self.seen, self._dies = [], dies

    def __call__(self, shard):
        if len(self.seen) == self._dies:
            raise KeyboardInterrupt
        self.seen.append([record["id"] for record in shard])
        numbers = np.array([float(record["id"]) for record in shard])
        return {"number": numbers, "name": np.array([f"<{r['id']}>" for r in shard], str)}


def as_lists(found):
    return [{name: array.tolist() for name, array in one.items()} for one in found]


WHOLE = [
    {"number": [0.0, 1.0], "name": ["<0>", "<1>"]},
    {"number": [], "name": []},
    {"number": [2.0], "name": ["<2>"]},
]


def test_every_shard_is_measured_once(tmp_path):
    ruler = Ruler()
    assert as_lists(measure_shards(SHARDS, tmp_path, ruler, label="x")) == WHOLE
    assert as_lists(measure_shards(SHARDS, tmp_path, ruler, label="x")) == WHOLE
    assert ruler.seen == [["0", "1"], [], ["2"]]


def test_it_goes_on_at_the_shard_where_it_was_killed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        measure_shards(SHARDS, tmp_path, Ruler(dies=2), label="x")
    ruler = Ruler()
    assert as_lists(measure_shards(SHARDS, tmp_path, ruler, label="x")) == WHOLE
    assert ruler.seen == [["2"]]
