"""Stage generate: one image for each prompt (SynTBPR, inter-class generation).

Every image is a new identity, as in the paper. Engine `render` draws the attributes; engine
`diffusion` is text-to-image with a Stable Diffusion.
"""

from typing import Any

from ml_collections import ConfigDict

from jaxtbpr.core.manifest import Record
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.process_pool import process_map
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.diffusion.samplers import SAMPLERS
from jaxtbpr.synthesis.images import Job, RenderEngine

RENDERED = (128, 64)  # height and width of drawn images

OPTIONS: Options = {
    "engine": Option("render", "what makes the images", choices=("render", "diffusion")),
    "height": Option(0, "height of images in pixels; 0 = the engine's default", low=0, high=4096),
    "width": Option(0, "width of images in pixels; 0 = the engine's default", low=0, high=4096),
    "processes": Option(0, "worker processes; 0 = one per core", low=0, runtime=True),
    "model": Option("", "Stable Diffusion of engine diffusion: folder, file or hub id"),
    "prediction_type": Option("", "what the UNet of that model predicts; '' = as its files say",
                         choices=("", "epsilon", "v_prediction")),
    "sampler": Option("", "sampler of engine diffusion; '' = the model's default",
                      choices=("", *SAMPLERS)),
    "steps": Option(50, "sampling steps", low=1, high=1000),
    "guidance_scale": Option(8.5, "guidance scale; 1 or less = no guidance", low=0.0, high=100.0),
    "guidance_rescale": Option(0.0, "rescaling of guided noise, against overexposure; 0 = off",
                      low=0.0, high=1.0),
    "negative_prompt": Option("", "text that guidance moves away from"),
    "eta": Option(0.0, "noise that the ddim sampler adds; 0 = deterministic", low=0.0, high=1.0),
    "dtype": Option("float32", "dtype of the computation", choices=("float32", "bfloat16")),
    "batch_size": Option(8, "images at a time on each device, in units of 16 or, if large, 4",
                         low=1, high=4096, runtime=True),
    "jpeg_quality": Option(0, "quality of JPEG images; 0 = lossless PNG", low=0, high=100),
    "writer_threads": Option(4, "threads that write images", low=1, high=64, runtime=True),
}  # fmt: skip


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the digest of the model that the stage reads."""
    return model_fingerprint(config) if config.generate.engine == "diffusion" else {}


def check(config: ConfigDict) -> None:
    """Raises UserError for a model that is not one of text to image."""
    if config.generate.engine == "diffusion":
        from jaxtbpr.synthesis import diffusion

        diffusion.check(config.generate.model)


def run(config: ConfigDict, workdir: Workdir) -> dict:
    """Writes an image for each record of the manifest before it."""
    options = config.generate
    if options.engine == "diffusion":
        from jaxtbpr.synthesis import diffusion

        engine = diffusion.Engine(workdir.root, "generate", options, config.seed, _plan)
        return workdir.map_stage("generate", engine, whole=True, shared=True)
    size = (options.height or RENDERED[0], options.width or RENDERED[1])
    engine = RenderEngine(str(workdir.root), "generate", config.seed, *size)
    with process_map(options.processes) as mapped:
        return workdir.map_stage("generate", lambda records: ([r] for r in mapped(engine, records)))


def model_fingerprint(config: ConfigDict) -> dict[str, str]:
    """Returns {"model": SHA-256} of the model that config.generate names."""
    from jaxtbpr.synthesis import diffusion  # slow to import, and most runs draw

    return {"model": diffusion.fingerprint(config.generate.model)}


def _plan(record: Record) -> list[Job]:
    return [Job(record)]


STAGE = Stage(
    "generate", "generates their images", OPTIONS, run,
    fingerprint=fingerprint, check=check, need_attributes=("render",),
)  # fmt: skip
