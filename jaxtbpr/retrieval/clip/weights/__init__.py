"""Weights in and out: Hugging Face, OpenAI / open_clip, EVA02-CLIP and timm names, no torch."""

from jaxtbpr.retrieval.clip.weights.load import Checkpoint, load, open_checkpoint, read_params
from jaxtbpr.retrieval.clip.weights.save import (
    choose_format,
    refuse_another_model,
    save_folder,
    save_tensors,
)

__all__ = [
    "Checkpoint",
    "choose_format",
    "load",
    "open_checkpoint",
    "read_params",
    "refuse_another_model",
    "save_folder",
    "save_tensors",
]
