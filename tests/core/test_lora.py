"""LoRA: nothing changes at first, then only what was chosen, by low rank, whatever the network."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtbpr.core import lora
from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval.clip.model import Clip, init_params
from jaxtbpr.retrieval.clip.transformer import TowerConfig
from tests.retrieval.test_model import CONFIG

PATTERN = ".*/attn_[qv]/kernel"


def params_of(scan):
    tower = TowerConfig(width=16, layers=3, heads=2)
    config = dataclasses.replace(CONFIG, vision=tower, text=tower, scan=scan)
    return jax.jit(functools.partial(init_params, Clip(config)))(jax.random.key(0))


@pytest.mark.parametrize("scan", [False, True])
def test_the_change_is_of_low_rank_where_it_was_asked_for(scan):
    params = params_of(scan)
    change = lora.init(params, PATTERN, 2, jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, lora.merge(params, change), params)
    change = jax.tree.map(lambda x: x + 0.1, change)
    merged = lora.merge(params, change)
    moved = jax.tree_util.tree_map_with_path(
        lambda path, new, old: (jax.tree_util.keystr(path), new - old), merged, params
    )
    for name, delta in jax.tree.leaves(moved, is_leaf=lambda x: isinstance(x, tuple)):
        if "attn_q" in name and "kernel" in name:
            assert (np.linalg.matrix_rank(delta, tol=1e-4) <= 2).all()
            assert jnp.abs(delta).max() > 1e-3
        elif "attn_v" not in name or "bias" in name:
            assert (delta == 0).all()


def test_an_expression_that_matches_no_kernel_is_refused():
    such = "matches no kernel; .* such as 'image/projection/kernel'"
    with pytest.raises(InputError, match=such):
        lora.init(params_of(False), "image/.*/bias", 2, jax.random.key(1))
    with pytest.raises(InputError, match=r"^'\(' is not a valid regular expression"):
        lora.init({}, "(", 2, jax.random.key(1))
    with pytest.raises(InputError, match="but there is none"):
        lora.init({"bias": jnp.zeros(2)}, ".*", 2, jax.random.key(1))
    with pytest.raises(InputError, match="rank=0"):
        lora.init({"kernel": jnp.zeros((2, 2))}, ".*", 0, jax.random.key(1))


def test_the_change_of_a_convolution_is_a_narrow_one_and_a_1x1_after_it():
    def convolve(x, kernel):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=dimensions, precision="highest"
        )

    rng = np.random.default_rng(0)
    params = {"conv": {"kernel": rng.normal(size=(3, 3, 8, 5)).astype("f")}}
    change = lora.init(params, "conv/kernel", 2, jax.random.key(0))["conv"]["kernel"]
    assert (change["a"].shape, change["b"].shape) == ((3, 3, 8, 2), (2, 5))
    assert np.std(change["a"]) == pytest.approx((3 * 3 * 8) ** -0.5, rel=0.2)
    change["b"] = rng.normal(size=(2, 5)).astype("f")
    x = rng.normal(size=(1, 6, 4, 8)).astype("f")
    narrow = convolve(convolve(x, change["a"]), change["b"][None, None])
    merged = lora.merge(params, {"conv": {"kernel": change}}, 0.5)
    expected = convolve(x, params["conv"]["kernel"]) + 0.5 * narrow
    np.testing.assert_allclose(convolve(x, merged["conv"]["kernel"]), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conv2": {"kernel": (2, 2)}}, "has 'conv2', which the parameters do not have"),
        ({"conv": {"bias": (2, 2)}}, "has 'conv/bias', which the parameters do not have"),
        ({"conv": {"kernel": (3, 2)}}, r"'conv/kernel' is for a kernel of \(3, 2\), .* \(2, 2\)"),
    ],
)
def test_the_change_of_another_model_is_refused(change, said):
    params = {"conv": {"kernel": jnp.ones((2, 2))}}
    change = jax.tree.map(
        lambda shape: {"a": jnp.ones((shape[0], 1)), "b": jnp.ones((1, shape[1]))},
        change,
        is_leaf=lambda x: isinstance(x, tuple),
    )
    with pytest.raises(InputError, match=said):
        lora.merge(params, change)
