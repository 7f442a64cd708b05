"""Stage augment: more images of each identity (SynTBPR, intra-class augmentation).

Each edit shows the same person in another scene: background, weather, style and posture as in the
paper, and the view and height of the camera, which vary in real galleries as well. Engine `render`
draws the person again; engine `diffusion` is image-to-image: it noises the image partly and
denoises it with the edited prompt, with the model and the settings of stage generate; engine
`instruct` tells an InstructPix2Pix what to change; engine `edit` inverts the image and edits it by
control of attention (`editing`). A further method of editing is a row of EDIT_ENGINES.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core import attributes, seeds
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.images import ImageError
from jaxtbpr.core.manifest import Record, reject
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.process_pool import process_map
from jaxtbpr.core.record import edit_of, require
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.diffusion.samplers import SAMPLERS
from jaxtbpr.prompts import template
from jaxtbpr.synthesis.edit_plans import SOURCES, kind_options
from jaxtbpr.synthesis.generate import model_fingerprint
from jaxtbpr.synthesis.images import (
    Job,
    RenderEngine,
    Scenes,
    read_image,
    unreadable,
)

# No two images of an identity have the same of these while there are values left.
_OTHER = ("background", "posture")


@dataclasses.dataclass(frozen=True)
class EditEngine:
    """A method of editing images.

    run(config, workdir, scenes): as a stage's; adds to each record those of its edits, of which
    `scenes` tells what they are to show. options: its section of the config (`augment.NAME`), {}
    for none. fingerprint and check: as those of a stage. needs_attributes: of the records.
    """

    run: Callable[[ConfigDict, Workdir, Scenes], dict[str, Any]]
    options: Options = dataclasses.field(default_factory=dict)
    fingerprint: Callable[[ConfigDict], dict[str, Any]] = lambda config: {}
    check: Callable[[ConfigDict], None] = lambda config: None
    needs_attributes: bool = False


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the digest of the model that the stage reads."""
    return EDIT_ENGINES[config.augment.engine].fingerprint(config)


def check(config: ConfigDict) -> None:
    """Raises UserError where the engine cannot do what the config asks of it."""
    EDIT_ENGINES[config.augment.engine].check(config)


def run(config: ConfigDict, workdir: Workdir) -> dict:
    """Adds `edits` records to each record of the manifest before it, after the record itself."""
    options = config.augment
    edits = Edits(config.seed, options.edits, options.change.to_dict())
    return EDIT_ENGINES[options.engine].run(config, workdir, edits.scenes)


# --- what an edit shows --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Edits:
    """Other scenes of a record. edits: images to add; change: {scene slot: probability of changing
    it}.
    """

    seed: int
    edits: int
    change: dict[str, float]

    def scenes(self, record: Record) -> list[Record]:
        """Returns the records of the edits, without their images.

        An edit has the changed attributes and their prompt. Where the record has no attributes
        (engines of prompts other than `template`), the change is in `scene`, and at the end of the
        prompt.
        """
        rng = seeds.rng(self.seed, "augment", record["id"])
        seen = [record.get("attributes", {})]
        for _ in range(self.edits):
            seen.append(edit_scene(rng, seen, self.change))
        return [self._edit(record, k, seen) for k in range(1, len(seen))]

    def _edit(self, record: Record, k: int, seen: Sequence[dict[str, str]]) -> Record:
        looks, base = seen[k], seen[0]
        changed = [slot for slot in self.change if looks.get(slot) != base.get(slot)]
        edit = edit_of(record, k) | {"edits": changed}
        if base:
            prompt = template.prompt(looks, record.get("subject", ""))
            return edit | {"attributes": looks, "prompt": prompt}
        return edit | {"scene": looks, "prompt": template.add_scene(record["prompt"], looks)}


def edit_scene(
    rng: np.random.Generator, seen: Sequence[dict[str, str]], change: Mapping[str, float]
) -> dict[str, str]:
    """Returns the attributes of one more image of the person in `seen`.

    seen: the attributes of the existing images, the base first, which may have none. A slot
    of `change` is drawn again with its probability; background and posture then differ from all
    those seen, as long as they have values left.
    """
    drawn = attributes.sample_scene(rng)
    looks = dict(seen[0])
    for slot, probability in change.items():
        if rng.random() >= probability:
            continue
        looks[slot] = drawn[slot]
        left = [v for v in attributes.SCENE[slot] if all(v != other.get(slot) for other in seen)]
        if slot in _OTHER and left and drawn[slot] not in left:
            looks[slot] = left[rng.integers(len(left))]
    return attributes.normalise(looks) if seen[0] else looks


# --- engine `render` -----------------------------------------------------------------------------


def _render(config: ConfigDict, workdir: Workdir, scenes: Scenes) -> dict[str, Any]:
    draw = functools.partial(_draw_again, str(workdir.root), config.seed, scenes)
    with process_map(config.augment.processes) as mapped:
        return workdir.map_stage("augment", lambda records: mapped(draw, records))


def _draw_again(root: str, seed: int, scenes: Scenes, record: Record) -> list[Record]:
    """The record and its edits, which are the person drawn again, their images written."""
    require(record, "image", "stage 'augment'")
    require(record, "attributes", "stage 'augment' with engine 'render'")
    size = {key: record["image"][key] for key in ("height", "width")}
    draw = RenderEngine(root, "augment", seed, **size)
    return [record, *map(draw, scenes(record))]


# --- engine `diffusion` --------------------------------------------------------------------------


def _diffuse(config: ConfigDict, workdir: Workdir, scenes: Scenes) -> dict[str, Any]:
    from jaxtbpr.synthesis import diffusion  # slow to import, and most runs draw

    plan = functools.partial(_plan, workdir.root, scenes, _image_to_image)
    settings = (workdir.root, "augment", config.generate, config.seed, plan)
    told = {"method": "image-to-image"}
    engine = diffusion.Engine(*settings, told=told, strength=config.augment.strength)
    return workdir.map_stage("augment", engine, whole=True, shared=True)


def _image_to_image(edit: Record, source: np.ndarray) -> Job:
    return Job(edit, source=source)


def _plan(
    root: epath.PathLike,
    scenes: Scenes,
    job: Callable[[Record, np.ndarray], Job],
    record: Record,
) -> list[Job]:
    """The record as it is, and what `job` makes of each edit in another scene and the image."""
    require(record, "image", "stage 'augment'")
    try:
        source = read_image(root, record)
    except ImageError as error:
        reason = f"{record['image']['path']} {unreadable(error)}"
        return [Job(reject(record, "augment", reason), is_made=False)]
    return [Job(record, is_made=False), *(job(edit, source) for edit in scenes(record))]


def _check_diffuse(config: ConfigDict) -> None:
    from jaxtbpr.synthesis import diffusion

    options, steps = config.augment, config.generate.steps
    if options.edits and int(steps * options.strength) < 1:
        raise UserError(
            f"config.augment.strength={options.strength} of config.generate.steps={steps} leaves "
            "no step; raise either."
        )
    diffusion.check(config.generate.model)


# --- engine `instruct` ---------------------------------------------------------------------------

_INSTRUCT: Options = {
    "model": Option("", "InstructPix2Pix of engine instruct: folder, file or hub id"),
    "prediction_type": Option("", "what the UNet of that model predicts; '' = as its files say",
                         choices=("", "epsilon", "v_prediction")),
    "sampler": Option("", "sampler of engine instruct; '' = the model's default",
                      choices=("", *SAMPLERS)),
    "steps": Option(50, "sampling steps of an edit", low=1, high=1000),
    "guidance_scale": Option(7.5, "how closely an edit follows the instruction; 1 or less = no "
                             "guidance, also by the image", low=0.0, high=100.0),
    "image_guidance_scale": Option(1.5, "how much of the image an edit keeps", low=1.0, high=100.0),
    "negative_prompt": Option("", "text that guidance of an edit moves away from"),
}  # fmt: skip


def _instruct(config: ConfigDict, workdir: Workdir, scenes: Scenes) -> dict[str, Any]:
    from jaxtbpr.diffusion.editing.instruct import InstructGenerator
    from jaxtbpr.synthesis import diffusion

    own = config.augment.instruct.to_dict()
    # What a text-to-image model alone has; size, dtype and files are as in stage generate.
    shared = config.generate.to_dict() | {"guidance_rescale": 0.0, "eta": 0.0}
    engine = diffusion.Engine(
        workdir.root,
        "augment",
        ConfigDict(shared | own),
        config.seed,
        functools.partial(_plan, workdir.root, scenes, _instructed),
        generator=InstructGenerator,
        section="augment.instruct",
        told={"method": "instruct", "image_guidance_scale": own["image_guidance_scale"]},
    )
    return workdir.map_stage("augment", engine, whole=True, shared=True)


def _instructed(edit: Record, source: np.ndarray) -> Job:
    looks = edit.get("attributes") or edit["scene"]
    text = template.instruction({slot: looks[slot] for slot in edit["edits"]})
    if not text:
        reason = "nothing of the scene changes, so there is no instruction (augment.change)"
        return Job(reject(edit, "augment", reason), is_made=False)
    return Job(edit, source=source, prompt=text, told={"instruction": text})


def _instruct_fingerprint(config: ConfigDict) -> dict[str, str]:
    from jaxtbpr.synthesis import diffusion

    model = config.augment.instruct.model
    return {"model": diffusion.fingerprint(model, "augment.instruct", "an InstructPix2Pix")}


def _check_instruct(config: ConfigDict) -> None:
    from jaxtbpr.diffusion.editing.instruct import InstructGenerator
    from jaxtbpr.synthesis import diffusion

    diffusion.check(config.augment.instruct.model, "augment.instruct", InstructGenerator)


# --- engine `edit` -------------------------------------------------------------------------------

_EDIT: Options = {
    "steps": Option(50, "steps of the inversion, and of the edit", low=1, high=1000),
    "distance": Option("l1", "to the inversion, of noise map guidance",
                       choices=("l1", "l2", "smooth_l1")),
    "inversion_rule": Option("0.18", "of DDIM inversion: that of diffusers 0.18, which the paper "
                             "used, or the current one", choices=("0.18", "current")),
    "match": Option("tokens", "which tokens words have: those that spell them, or by the paper's "
                    "rule, which finds no phrases", choices=("tokens", "words")),
    "tail": Option("aligned", "how prompts are paired after their last difference",
                   choices=("aligned", "published")),
    "blend_from": Option(0.2, "part of the steps before a blend begins", low=0.0, high=1.0),
    "blend_threshold": Option(0.3, "of the largest value of the words' map", low=0.0, high=1.0),
    "sample_latents": Option(False, "whether the latents of an image are drawn, not their mean"),
}  # fmt: skip
_KINDS: Options = {
    "background": kind_options(
        ("forest", "desert", "beach", "airport", "farm", "lake"),
        self_replace=0.5, weight=2.0, blend=True,
    ),
    "weather": kind_options(("snow", "rain", "fog")),
    "style": kind_options(
        ("oil painting", "anime", "street photography", "van gogh", "pointillism")
    ),
    "posture": kind_options(
        ("sitting", "raising hands", "thumb up", "running", "walking"), method="masactrl"
    ),
}  # fmt: skip


def _edit(config: ConfigDict, workdir: Workdir, scenes: Scenes) -> dict[str, Any]:
    from jaxtbpr.synthesis import editing

    del scenes  # each kind has its own
    engine = editing.Engine(workdir.root, config)
    return workdir.map_stage("augment", engine, whole=True, shared=True)


def _check_edit(config: ConfigDict) -> None:
    from jaxtbpr.synthesis import diffusion

    for slot, options in config.augment.kinds.items():
        key = f"config.augment.kinds.{slot}"
        unknown = [value for value in options.targets if value not in attributes.SCENE[slot]]
        if unknown:
            raise UserError(
                f"{key}.targets has {', '.join(map(repr, unknown))}; use some of "
                f"{', '.join(attributes.SCENE[slot])}."
            )
        if options.count > len(options.targets):
            raise UserError(
                f"{key}.count={options.count} is more than its {len(options.targets)} targets; "
                "lower it, or add targets."
            )
    diffusion.check(config.generate.model)


# --- the table of engines ------------------------------------------------------------------------

EDIT_ENGINES = {
    "render": EditEngine(_render, needs_attributes=True),
    "diffusion": EditEngine(_diffuse, fingerprint=model_fingerprint, check=_check_diffuse),
    "instruct": EditEngine(
        _instruct, _INSTRUCT, fingerprint=_instruct_fingerprint, check=_check_instruct
    ),
    "edit": EditEngine(_edit, _EDIT, fingerprint=model_fingerprint, check=_check_edit),
}

OPTIONS: Options = {
    "engine": Option("render", "what edits the images", choices=tuple(EDIT_ENGINES)),
    "strength": Option(
        0.6, "how far engine diffusion noises the image; 1 = completely", low=0.0, high=1.0
    ),
    "edits": Option(3, "edited images of each identity, besides the base image", low=0, high=19),
    # The probability that an edit changes this part of the scene.
    "change": {
        "background": Option(1.0, "probability of another place", low=0.0, high=1.0),
        "weather": Option(0.5, "probability of drawing the weather again", low=0.0, high=1.0),
        "style": Option(0.5, "probability of drawing the style again", low=0.0, high=1.0),
        "posture": Option(0.9, "probability of another posture", low=0.0, high=1.0),
        "view": Option(0.9, "probability of drawing the side seen again", low=0.0, high=1.0),
        "camera": Option(
            0.9, "probability of drawing the camera's height again", low=0.0, high=1.0
        ),
    },
    # Of engine edit alone, in place of `edits` and `change`.
    "source": Option(
        "record",
        "prompts of engine edit: the paper's sentences, the record's prompt "
        "or caption, with the scene exchanged",
        choices=SOURCES,
    ),
    "kinds": _KINDS,
    "processes": Option(0, "worker processes; 0 = one per core", low=0, runtime=True),
    **{name: engine.options for name, engine in EDIT_ENGINES.items() if engine.options},
}

STAGE = Stage(
    "augment", "edits the images", OPTIONS, run,
    sections=("generate",), fingerprint=fingerprint, check=check,
    need_attributes=tuple(n for n, engine in EDIT_ENGINES.items() if engine.needs_attributes),
)  # fmt: skip
