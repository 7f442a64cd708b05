"""Learning rates and soft-label ratios against lr_schedule*.npz with its .json."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxtbpr.retrieval.training import optimizer


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance), in double on the host and in float32 jitted."""
    path = pathlib.Path(path)
    arrays = np.load(path)
    rows = []
    for case in json.loads(path.with_suffix(".json").read_text()):
        for name, schedule in schedules(case).items():
            expected = arrays[f"case{case['case']}_{name}"]
            rows += _compare(f"case {case['case']}: {name}", schedule, expected)
    return rows


def schedules(case):
    """The schedules of one case, by the name of their arrays."""
    per_epoch = case["niter_per_ep"]
    ratio = optimizer.soft_label_ratio(case["softlabel_ratio"], per_epoch)
    return {"lr": learning_rate(case, per_epoch), "alpha": ratio}


def learning_rate(settings, per_epoch):
    """The rate of each step; settings: as the published code names them."""
    return optimizer.warmup_cosine(
        learning_rate=settings["lr"],
        start=settings["lr_start"],
        end=settings["lr_end"],
        warmup_steps=settings["epoch_warmup"] * per_epoch,
        steps=settings["epoch"] * per_epoch,
    )


def _compare(name, schedule, expected):
    host = np.array([schedule(step) for step in range(len(expected))])
    traced = np.asarray(jax.jit(schedule)(jnp.arange(len(expected))), np.float64)
    # The tolerance in float32 is relative; what is 0 in truth is told against the largest, and
    # where all are 0 the error is taken as it is.
    size = np.maximum(np.abs(expected), 1e-3 * np.abs(expected).max())
    relative = np.abs(traced - expected) / np.where(size, size, 1)
    return [
        (f"{name}, float64", float(np.abs(host - expected).max()), 1e-12),
        (f"{name}, float32, relative", float(relative.max()), 1e-6),
    ]
