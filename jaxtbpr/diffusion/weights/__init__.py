"""Weights in and out: Diffusers folders and single files of Stable Diffusion 1.x, 2.x, no torch."""

from jaxtbpr.diffusion.weights.load import load, read_sizes
from jaxtbpr.diffusion.weights.save import save

__all__ = ["load", "read_sizes", "save"]
