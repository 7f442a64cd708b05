"""The table of all stages, in order, with the engines that come from other rooms."""

from ml_collections import ConfigDict

from jaxtbpr.captioning import stage as caption
from jaxtbpr.core import options
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.stage import Stage
from jaxtbpr.datasets import build, photos
from jaxtbpr.prompts import stage as prompts
from jaxtbpr.report import stage as report
from jaxtbpr.retrieval import clip_filter, denoise, evaluate, measure, train
from jaxtbpr.retrieval.judging import perception
from jaxtbpr.retrieval.training.options import DATA_OPTIONS, MODEL_OPTIONS
from jaxtbpr.synthesis import augment, filter, finetune, generate, quality
from jaxtbpr.synthesis.filter import FilterEngine
from jaxtbpr.workers import fid, pose_filter

FILTER_ENGINES = {
    "quality": FilterEngine(quality.OPTIONS, quality.reject),
    "clip": FilterEngine(
        clip_filter.OPTIONS, clip_filter.reject, fingerprint=clip_filter.fingerprint
    ),
    "pose": FilterEngine(
        pose_filter.OPTIONS, pose_filter.reject, pose_filter.boxes,
        pose_filter.fingerprint, pose_filter.check,
    ),
}  # fmt: skip

# Each reads the records of the one before it and writes new ones; photos replaces prompts and
# generate.
RECORD_STAGES: tuple[Stage, ...] = (
    photos.STAGE,
    prompts.STAGE,
    generate.STAGE,
    filter.stage(FILTER_ENGINES),
    augment.STAGE,
    caption.STAGE,
    denoise.STAGE,
)
ORDER = tuple(stage.name for stage in RECORD_STAGES)
_BEFORE_REPORT = (
    *RECORD_STAGES,
    measure.stage(fid, ORDER),
    build.STAGE,
    train.STAGE,
    evaluate.STAGE,
    finetune.stage(perception),
)
STAGES: dict[str, Stage] = {
    stage.name: stage for stage in (*_BEFORE_REPORT, report.stage(_BEFORE_REPORT))
}
USUAL_STAGES = tuple(name for name, stage in STAGES.items() if stage.is_usual)

OPTIONS: Options = {
    "seed": Option(0, "seed of all random numbers", low=0, high=2**32 - 1),
    "stages": Option(USUAL_STAGES, "the stages to run", choices=tuple(STAGES)),
    "data": DATA_OPTIONS,
    "model": MODEL_OPTIONS,
} | {name: stage.options for name, stage in STAGES.items()}


def default_config() -> ConfigDict:
    """Returns a config with every key at its default; a config file changes what it needs."""
    return options.default_config(OPTIONS)
