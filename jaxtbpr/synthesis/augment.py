"""Stage augment: more images of each identity (SynTBPR, intra-class augmentation).

Each edit shows the same person in another scene. With engine `render` an edit is the person
drawn again with other scene attributes: background, weather, style and posture as in the paper,
and the view and height of the camera, which real galleries vary as well.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from jaxtbpr.core import attributes, seeds
from jaxtbpr.core.manifest import Record
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.core.workers import process_map
from jaxtbpr.synthesis.images import RenderEngine, require_image

OPTIONS: Options = {
    "engine": Option("render", "what edits the images", choices=("render",)),
    "edits": Option(3, "edited images of each identity, beside the base image", low=0, high=19),
    # The probability that an edit changes this part of the scene.
    "change": {
        "background": Option(1.0, "an edit shows another place", low=0.0, high=1.0),
        "weather": Option(0.5, "an edit draws the weather anew", low=0.0, high=1.0),
        "style": Option(0.5, "an edit draws the style anew", low=0.0, high=1.0),
        "posture": Option(0.9, "an edit shows another posture", low=0.0, high=1.0),
        "view": Option(0.9, "an edit draws the side seen anew", low=0.0, high=1.0),
        "camera": Option(0.9, "an edit draws the camera's height anew", low=0.0, high=1.0),
    },
    "processes": Option(0, "worker processes; 0: one per core", low=0, runtime=True),
}

# Two images of an identity never share these while there are values left.
_OTHER = ("background", "posture")


def run(config: ConfigDict, workdir: Workdir) -> dict:
    """Adds `edits` records to each record of the manifest before it, after the record itself."""
    options = config.augment
    augment = RenderEdits(str(workdir.root), config.seed, options.edits, options.change.to_dict())
    with process_map(options.processes) as mapped:
        return workdir.map_stage("augment", lambda records: mapped(augment, records))


@dataclasses.dataclass(frozen=True)
class RenderEdits:
    """Draws the person of a record again in other scenes.

    root: the workdir; edits: images to add; change: {scene slot: probability of changing it}.
    """

    root: str
    seed: int
    edits: int
    change: dict[str, float]

    def __call__(self, record: Record) -> list[Record]:
        """Returns the record and its edits, whose images are then written."""
        require_image(record, "augment")
        rng = seeds.rng(self.seed, "augment", record["id"])
        size = {key: record["image"][key] for key in ("height", "width")}
        draw = RenderEngine(self.root, "augment", self.seed, **size)
        records = [record]
        for k in range(1, self.edits + 1):
            looks = edit_scene(rng, [r["attributes"] for r in records], self.change)
            edited = [slot for slot in self.change if looks[slot] != record["attributes"][slot]]
            identity = {"id": f"{record['id']}-{k}", "attributes": looks, "edits": edited}
            records.append(draw(record | identity))
        return records


def edit_scene(
    rng: np.random.Generator, seen: Sequence[dict[str, str]], change: Mapping[str, float]
) -> dict[str, str]:
    """Returns the attributes of one more image of the person in `seen`.

    seen: the attributes of the images that there are, the base first. A slot of `change` is
    drawn anew with its probability; background and posture then differ from all those seen, as
    long as they have values left.
    """
    drawn = attributes.sample_scene(rng)
    looks = dict(seen[0])
    for slot, probability in change.items():
        if rng.random() >= probability:
            continue
        looks[slot] = drawn[slot]
        left = [v for v in attributes.SCENE[slot] if all(v != other[slot] for other in seen)]
        if slot in _OTHER and left and drawn[slot] not in left:
            looks[slot] = left[rng.integers(len(left))]
    return attributes.normalise(looks)
