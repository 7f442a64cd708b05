"""TBPS-CLIP's losses against the published code's numbers, on one device and on a mesh."""

import functools

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxtbpr.retrieval.training import losses
from tests.oracles.losses import tbps_settings

each_case = pytest.mark.parametrize("case", ["B6", "B16"])


@pytest.fixture(scope="module")
def published(reference):
    return np.load(reference / "losses_tbps.npz")


def check(published, name, at, found, gradients):
    """gradients: {input: its gradient}; values and gradients within the stated tolerances."""
    expected = published[f"{name}_loss"][at]
    assert abs(found - expected) < 1e-5 * max(1, abs(expected))
    for key, gradient in gradients.items():
        wanted = published[f"{name}_grad_{key}"][at]
        assert np.max(np.abs(gradient - wanted)) < 5e-5 * max(1, np.max(np.abs(wanted)))


def inputs(published, case):
    keys = ("image_features", "text_features", "person_ids", "logit_scale")
    return [published[f"{case}/{key}"] for key in keys]


@each_case
def test_contrastive_losses_equal_the_published_code(published, case):
    for name, at, loss in tbps_settings(published):
        differentiate = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 3)))
        found, gradients = differentiate(*inputs(published, case))
        named = dict(zip(("image", "text", "logit_scale"), gradients, strict=True))
        check(published, f"{case}/{name}", tuple(i for i, _ in at), found, named)


@each_case
def test_simclr_equals_the_published_code(published, case):
    for i, temperature in enumerate(published[f"{case}/simclr_temperatures"]):
        loss = functools.partial(losses.simclr_loss, temperature=float(temperature))
        views = [published[f"{case}/{key}_features"] for key in ("aug1", "aug2")]
        found, gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*views)
        named = dict(zip(("aug1", "aug2"), gradients, strict=True))
        check(published, f"{case}/simclr", (i,), found, named)


@pytest.mark.parametrize(("data", "fsdp"), [(8, 1), (4, 2)])
def test_losses_of_a_sharded_batch_are_those_of_the_whole(published, devices, data, fsdp):
    mesh = Mesh(np.array(devices).reshape(data, fsdp), ("data", "fsdp"))
    citc = losses.global_loss(mesh, losses.citc_loss)
    found, gradients = jax.jit(jax.value_and_grad(citc, argnums=(0, 1)))(*inputs(published, "B16"))
    check(published, "B16/citc", (), found, dict(zip(("image", "text"), gradients, strict=True)))

    axes = mesh.axis_names
    one = functools.partial(losses.simclr_loss, temperature=0.1, axis_name=axes)
    sharded = jax.shard_map(one, mesh=mesh, in_specs=(P(axes), P(axes)), out_specs=P())
    views = [published[f"B16/{key}_features"] for key in ("aug1", "aug2")]
    found, gradients = jax.jit(jax.value_and_grad(sharded, argnums=(0, 1)))(*views)
    check(published, "B16/simclr", (0,), found, dict(zip(("aug1", "aug2"), gradients, strict=True)))
