"""Stage filter: sets aside images that cannot serve as training data (SynTBPR, filtering).

Its engines are tried one after the other, each on what those before it have kept. An engine is a
module with `OPTIONS` and `refuse(shards, config, root, directory) -> {id: reason}`, and perhaps
`outside(config)`, `check(config)` and `boxes`, which is called after `refuse` on what that has
kept, with the same arguments, and returns {id: (left, top, right, bottom)} of images that are to be
cropped. Engine `quality` is in this room; the pipeline puts it together with those that need a
model, of which this room does not know.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.manifest import Record, Shard, set_aside
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.synthesis.images import read_image, require_image, write_image

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two outside

_QUALITY = 95  # of the crops of JPEG images


@dataclasses.dataclass(frozen=True)
class Filter:
    """The stage with these engines, {name: module}; the first one is the default."""

    engines: Mapping[str, ModuleType]

    @property
    def OPTIONS(self) -> Options:
        names = tuple(self.engines)
        chosen = Option(
            names[:1], "what judges the images, in this order; (): nothing", choices=names
        )
        return {"engines": chosen} | {name: one.OPTIONS for name, one in self.engines.items()}

    def outside(self, config: ConfigDict) -> dict[str, Any]:
        """Returns what tells one state of the models that the engines read from another."""
        chosen = [self.engines[name] for name in config.filter.engines]
        readers = [engine for engine in chosen if hasattr(engine, "outside")]
        return {key: value for one in readers for key, value in one.outside(config).items()}

    def check(self, config: ConfigDict) -> None:
        """Raises UserError for an engine that is named twice or cannot run."""
        names = list(config.filter.engines)
        if len(set(names)) < len(names):
            raise UserError(f"config.filter.engines={tuple(names)} names an engine twice.")
        for name in names:
            if hasattr(self.engines[name], "check"):
                self.engines[name].check(config)

    def run(self, config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
        """Keeps each record that no engine refuses, and sets the others aside with the reason.

        A crop is an image of this stage, which then is the record's; the whole image stays where
        it is. Returns the counts of every stage, "refused": {engine: how many} and "cropped": how
        many.
        """
        names = list(config.filter.engines)
        shards = list(workdir.before("filter").shards())
        measured = workdir.dir("filter") / "measured"
        reasons: dict[str, str] = {}
        boxes: dict[str, Box] = {}
        counts: Counter[str] = Counter({name: 0 for name in names})
        for name in names:
            engine, given = self.engines[name], (config, workdir.root, measured / name)
            found = engine.refuse([_checked(shard, reasons) for shard in shards], *given)
            counts[name] = len(found)
            reasons |= found
            if hasattr(engine, "boxes"):
                boxes |= engine.boxes([_checked(shard, reasons) for shard in shards], *given)
        mark = functools.partial(_mark, root=workdir.root, reasons=reasons, boxes=boxes)
        result = workdir.map_stage("filter", lambda records: ([mark(r)] for r in records))
        measured.rmtree(missing_ok=True)
        cropped = len(boxes.keys() - reasons.keys())
        return result | {"refused": dict(counts), "cropped": cropped}


def _checked(shard: Shard, refused: Mapping[str, str]) -> Shard:
    """The records that are not refused. Raises UserError where one has no image."""
    for record in shard:
        require_image(record, "filter")
    return [record for record in shard if record["id"] not in refused]


def _mark(
    record: Record, *, root: epath.Path, reasons: Mapping[str, str], boxes: Mapping[str, Box]
) -> Record:
    """The record set aside, with its image cropped, or as it is."""
    name, path = record["id"], record["image"]["path"]
    if name in reasons:
        return set_aside(record, "filter", reasons[name])
    if name not in boxes:
        return record
    try:
        pixels = read_image(root, record)
    except OSError as error:
        return set_aside(record, "filter", f"{path} cannot be read: {error}")
    left, top, right, bottom = boxes[name]
    quality = 0 if path.endswith(".png") else _QUALITY
    crop = write_image(root, "filter", record, pixels[top:bottom, left:right], quality)
    return record | {"image": crop}
