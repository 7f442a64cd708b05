"""Stage filter: sets aside images that cannot serve as training data (SynTBPR, filtering).

Engine `quality` needs no model: an image must decode and must show something.
"""

import functools

import numpy as np
from ml_collections import ConfigDict

from jaxtbpr.core.manifest import Record, set_aside
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.synthesis.images import read_image, require_image

OPTIONS: Options = {
    "engine": Option("quality", "what judges the images", choices=("quality",)),
    "least_contrast": Option(
        8.0, "standard deviation of the grey values (0 to 255) below which an image is blank",
        low=0.0, high=128.0,
    ),
}  # fmt: skip


def run(config: ConfigDict, workdir: Workdir) -> dict:
    """Keeps each record whose image passes, and sets the others aside with the reason."""
    judge = functools.partial(
        _judge, root=str(workdir.root), least_contrast=config.filter.least_contrast
    )
    return workdir.map_stage("filter", lambda records: ([judge(r)] for r in records))


def _judge(record: Record, *, root: str, least_contrast: float) -> Record:
    require_image(record, "filter")
    path = record["image"]["path"]
    try:
        pixels = read_image(root, record)
    except OSError as error:
        return set_aside(record, "filter", f"{path} cannot be read: {error}")
    contrast = float(np.std(pixels.mean(axis=-1)))
    if contrast < least_contrast:
        return set_aside(record, "filter", f"{path} is blank: contrast {contrast:.1f}")
    return record
