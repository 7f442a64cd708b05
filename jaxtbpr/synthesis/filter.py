"""Stage filter: rejects images that cannot serve as training data (SynTBPR, filtering).

Its engines run one after the other, each on what the earlier ones have kept. Engine `quality` is in
this room; `jaxtbpr/stages.py` adds those that need a model, which this room may not import.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.images import ImageError
from jaxtbpr.core.manifest import Record, Shard, reject
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.record import require
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.synthesis.images import read_image, unreadable, write_image

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels, the last two outside

_QUALITY = 95  # of the crops of JPEG images


@dataclasses.dataclass(frozen=True)
class FilterEngine:
    """An engine of stage filter.

    options: its section of the config. reject(shards, config, root, directory): returns {id: why
    the image of this record is rejected}. boxes: is called after `reject` with the records that it
    has kept and the same arguments; returns {id: crop box of the image}. fingerprint and check: as
    those of a stage.
    """

    options: Options
    reject: Callable[[Sequence[Shard], ConfigDict, epath.Path, epath.Path], dict[str, str]]
    boxes: Callable[[Sequence[Shard], ConfigDict, epath.Path, epath.Path], dict[str, Box]] = (
        lambda *_: {}
    )
    fingerprint: Callable[[ConfigDict], dict[str, Any]] = lambda config: {}
    check: Callable[[ConfigDict], None] = lambda config: None


def stage(engines: Mapping[str, FilterEngine]) -> Stage:
    """Returns the stage with these engines; the first one is the default."""
    names = tuple(engines)
    chosen = Option(
        names[:1], "engines that reject images, in this order; () = keep all", choices=names
    )

    def fingerprint(config: ConfigDict) -> dict[str, Any]:
        prints = [engines[name].fingerprint(config) for name in config.filter.engines]
        return {key: value for one in prints for key, value in one.items()}

    def check(config: ConfigDict) -> None:
        names = list(config.filter.engines)
        if len(set(names)) < len(names):
            raise UserError(f"config.filter.engines={tuple(names)} names an engine twice.")
        for name in names:
            engines[name].check(config)

    return Stage(
        "filter",
        "rejects poor images",
        {"engines": chosen} | {name: engine.options for name, engine in engines.items()},
        lambda config, workdir: run(config, workdir, engines),
        fingerprint=fingerprint,
        check=check,
    )


def run(
    config: ConfigDict, workdir: Workdir, engines: Mapping[str, FilterEngine]
) -> dict[str, Any]:
    """Keeps each record that no engine rejects, and rejects the others with the reason.

    A crop is an image of this stage, and becomes the record's; the uncropped file stays. Returns
    the counts of every stage, "rejected_by": {engine: how many} and "cropped": how many.
    """
    names = list(config.filter.engines)
    shards = list(workdir.before("filter").shards())
    measured = workdir.dir("filter") / "measured"
    reasons: dict[str, str] = {}
    boxes: dict[str, Box] = {}
    counts: Counter[str] = Counter({name: 0 for name in names})
    for name in names:
        engine, arguments = engines[name], (config, workdir.root, measured / name)
        reasons_of = engine.reject([_checked(shard, reasons) for shard in shards], *arguments)
        counts[name] = len(reasons_of)
        reasons |= reasons_of
        boxes |= engine.boxes([_checked(shard, reasons) for shard in shards], *arguments)
    mark = functools.partial(_mark, root=workdir.root, reasons=reasons, boxes=boxes)
    result = workdir.map_stage("filter", lambda records: ([mark(r)] for r in records))
    measured.rmtree(missing_ok=True)
    cropped = len(boxes.keys() - reasons.keys())
    return result | {"rejected_by": dict(counts), "cropped": cropped}


def _checked(shard: Shard, rejected: Mapping[str, str]) -> Shard:
    """The records that are not rejected. Raises UserError where one has no image."""
    for record in shard:
        require(record, "image", "stage 'filter'")
    return [record for record in shard if record["id"] not in rejected]


def _mark(
    record: Record, *, root: epath.Path, reasons: Mapping[str, str], boxes: Mapping[str, Box]
) -> Record:
    """The record rejected, with its image cropped, or as it is."""
    name, path = record["id"], record["image"]["path"]
    if name in reasons:
        return reject(record, "filter", reasons[name])
    if name not in boxes:
        return record
    try:
        pixels = read_image(root, record)
    except ImageError as error:
        return reject(record, "filter", f"{path} {unreadable(error)}")
    left, top, right, bottom = boxes[name]
    quality = 0 if path.endswith(".png") else _QUALITY
    crop = write_image(root, "filter", record, pixels[top:bottom, left:right], quality)
    return record | {"image": crop}
