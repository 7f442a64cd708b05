"""Devices of PyTorch."""

import torch


def device_name(given: str) -> str:
    """Returns PyTorch's name of a device; "": the first GPU or the CPU, "gpu:3": modulo GPUs."""
    if given and not given.startswith("gpu:"):
        return given
    count = torch.cuda.device_count()
    return f"cuda:{int(given[4:] or 0) % count}" if count else "cpu"
