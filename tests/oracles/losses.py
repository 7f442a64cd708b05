"""Losses against losses_syntbpr*.npz and losses_tbps*.npz: values and gradients."""

import functools
import pathlib

import jax
import numpy as np

from jaxtbpr.retrieval import losses

PAIRED = ("image", "text", "logit_scale")


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance); what we cannot compute yet fails."""
    published = np.load(path)
    syntbpr = pathlib.Path(path).name.startswith("losses_syntbpr")
    rows = []
    for case in sorted({key.split("/")[0] for key in published.files if "/" in key}):
        settings = _syntbpr(published) if syntbpr else _tbps(published)
        for name, at, loss in settings:
            keys = ("image_features", "text_features", "person_ids", "logit_scale")
            arrays = [published[f"{case}/{key}"] for key in keys]
            found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 3)))(*arrays)
            rows += _compare(published, f"{case}/{name}", at, found, PAIRED)
        if not syntbpr:
            rows += _simclr(published, case)
            rows += [
                (f"{case}/{name}: not compared yet", float("nan"), 0.0)
                for name in ("nitc_mvs", "ss_mlp", "id", "mlm")
            ]
    return rows


def _syntbpr(published):
    """(name, axes of the published result, loss) of every setting."""
    for i, kind in enumerate(published["softlabel_types"]):
        for j, alpha in enumerate(published["alphas"]):
            options = {"soft_labels": str(kind), "alpha": alpha}
            yield "nitc", (i, j), functools.partial(losses.nitc_loss, **options)
            for k, eps in enumerate(published["ritc_eps"]):
                yield "ritc", (i, j, k), functools.partial(losses.ritc_loss, eps=eps, **options)


def _tbps(published):
    for i, alpha in enumerate(published["alphas"]):
        options = {"alpha": alpha, "soft_labels": "softmax"}
        yield "nitc", (i,), functools.partial(losses.nitc_loss, **options)
    for i, eps in enumerate(published["ritc_eps"]):
        yield "ritc", (i,), functools.partial(losses.ritc_loss, eps=eps)
    yield "citc", (), losses.citc_loss


def _simclr(published, case):
    views = [published[f"{case}/{view}_features"] for view in ("aug1", "aug2")]
    for i, temperature in enumerate(published[f"{case}/simclr_temperatures"]):
        loss = functools.partial(losses.simclr_loss, temperature=float(temperature))
        found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*views)
        yield from _compare(published, f"{case}/simclr", (i,), found, ("aug1", "aug2"))


def _compare(published, name, at, found, inputs):
    """The value relative to max(1, value), each gradient relative to its largest entry (or 1)."""
    value, gradients = found
    expected = published[f"{name}_loss"][at]
    label = f"{name}{list(at)}"
    yield label, abs(float(value - expected)) / max(1, abs(float(expected))), 1e-5
    for key, gradient in zip(inputs, gradients, strict=True):
        wanted = published[f"{name}_grad_{key}"][at]
        error = np.max(np.abs(np.asarray(gradient) - wanted)) / max(1, np.max(np.abs(wanted)))
        yield f"{label}, gradient to {key}", float(error), 5e-5
