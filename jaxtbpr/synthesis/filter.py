"""Stage filter: sets aside images that cannot serve as training data (SynTBPR, filtering).

Its engines are tried one after the other, each on what those before it have kept. An engine is a
module with `OPTIONS` and `refuse(shards, config, root, directory) -> {id: reason}`, and perhaps
`outside(config)`. Engine `quality` is in this room; the pipeline puts it together with those that
need a retrieval model, which this room does not know.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.manifest import Record, Shard, set_aside
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.synthesis.images import require_image


@dataclasses.dataclass(frozen=True)
class Filter:
    """The stage with these engines, {name: module}; the first one is the default."""

    engines: Mapping[str, ModuleType]

    @property
    def OPTIONS(self) -> Options:
        names = tuple(self.engines)
        chosen = Option(names[:1], "what judges the images, in this order", choices=names)
        return {"engines": chosen} | {name: one.OPTIONS for name, one in self.engines.items()}

    def outside(self, config: ConfigDict) -> dict[str, Any]:
        """Returns what tells one state of the models that the engines read from another."""
        chosen = [self.engines[name] for name in config.filter.engines]
        readers = [engine for engine in chosen if hasattr(engine, "outside")]
        return {key: value for one in readers for key, value in one.outside(config).items()}

    def run(self, config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
        """Keeps each record that no engine refuses, and sets the others aside with the reason.

        Returns the counts of every stage, and "refused": {engine: how many}. Raises UserError for
        an engine that is named twice.
        """
        names = list(config.filter.engines)
        if len(set(names)) < len(names):
            raise UserError(f"config.filter.engines={tuple(names)} names an engine twice.")
        shards = list(workdir.before("filter").shards())
        measured = workdir.dir("filter") / "measured"
        reasons: dict[str, str] = {}
        counts: Counter[str] = Counter({name: 0 for name in names})
        for name in names:
            left = [_checked(shard, reasons) for shard in shards]
            found = self.engines[name].refuse(left, config, workdir.root, measured / name)
            counts[name] = len(found)
            reasons |= found
        result = workdir.map_stage("filter", lambda rs: ([_mark(r, reasons)] for r in rs))
        measured.rmtree(missing_ok=True)
        return result | {"refused": dict(counts)}


def _checked(shard: Shard, refused: Mapping[str, str]) -> Shard:
    """The records that are not refused. Raises UserError where one has no image."""
    for record in shard:
        require_image(record, "filter")
    return [record for record in shard if record["id"] not in refused]


def _mark(record: Record, reasons: Mapping[str, str]) -> Record:
    reason = reasons.get(record["id"])
    return set_aside(record, "filter", reason) if reason else record
