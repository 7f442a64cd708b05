"""Devices of PyTorch."""

import torch


def device_name(name: str) -> str:
    """Returns PyTorch's name of a device; "": the first GPU or the CPU, "gpu:3": modulo GPUs."""
    if name and not name.startswith("gpu:"):
        return name
    count = torch.cuda.device_count()
    return f"cuda:{int(name[4:] or 0) % count}" if count else "cpu"
