"""Which parameters decay, from their original names and shapes: param_groups_*.json."""

import json
import math
import pathlib

from jaxtbpr.retrieval.training import optimizer


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, number of wrong answers, 0)."""
    groups = json.loads(pathlib.Path(path).read_text())
    decayed, kept = groups["weight_decay"], groups["no_weight_decay"]
    shapes = decayed | kept
    ours = {name for name, shape in shapes.items() if optimizer.decays(name, len(shape))}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    return [
        ("parameters in the wrong group", float(len(ours ^ set(decayed))), 0.0),
        ("parameters in all", float(abs(sum(sizes.values()) - groups["n_parameters"])), 0.0),
        (
            "parameters that decay",
            float(abs(sum(sizes[name] for name in ours) - groups["n_decayed"])),
            0.0,
        ),
    ]
