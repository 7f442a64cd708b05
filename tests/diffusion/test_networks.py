"""The networks: what they promise beside PyTorch's numbers (tests/oracles/diffusion_models)."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtbpr.core import lora
from jaxtbpr.core.attention import attention, attention_map
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion import layers, weights
from jaxtbpr.diffusion.networks import Networks, Sizes, make_sizes
from jaxtbpr.diffusion.sizes import heads_of


@pytest.fixture(scope="module")
def tiny(reference):
    """(networks, parameters) of the smaller model."""
    sizes, params, _, _ = weights.load(reference / "diffusion" / "sd2_tiny")
    return Networks(sizes), params


def configs(folder):
    parts = ("unet", "vae", "text_encoder")
    return [json.loads((folder / part / "config.json").read_text()) for part in parts]


@functools.cache
def inputs(channels=4, width=24):
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(2, 8, 4, channels)).astype("f")
    return latents, np.float32([501, 20.5]), rng.normal(size=(2, 7, width)).astype("f")


# --- the networks ---------------------------------------------------------------------------------


def test_one_timestep_counts_for_all_rows_and_may_be_fractional(tiny):
    networks, params = tiny
    latents, _, text = inputs()
    predict = jax.jit(lambda steps: networks.predict(params, latents, steps, text))
    rows = [predict(np.float32([step, step])) for step in (20, 20.5, 21)]
    np.testing.assert_allclose(predict(np.float32(20.5)), rows[1], atol=1e-6)
    assert np.abs(rows[0] - rows[1]).max() > 1e-4
    between = (rows[0] + rows[2]) / 2
    np.testing.assert_allclose(rows[1], between, atol=np.abs(rows[0] - rows[2]).max())


def test_gradients_are_finite_and_reach_every_parameter(tiny):
    networks, params = tiny
    latents, steps, text = inputs()

    def loss(unet, latents):
        return jnp.square(networks.predict({"unet": unet}, latents, steps, text)).mean()

    by_params, by_latents = jax.jit(jax.grad(loss, argnums=(0, 1)))(params["unet"], latents)
    assert np.isfinite(by_latents).all()
    for path, leaf in jax.tree.leaves_with_path(by_params):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


def test_bfloat16_is_close_to_float32(tiny):
    networks, params = tiny
    half = dataclasses.replace(networks, dtype="bfloat16")
    latents, steps, text = inputs()
    ids, images = np.arange(14).reshape(2, 7), latents[..., :3]
    calls = {
        "predict": lambda networks: networks.predict(params, latents, steps, text),
        "encode_text": lambda networks: networks.encode_text(params, ids),
        "encode_image": lambda networks: networks.encode_image(params, images)[0],
        "decode": lambda networks: networks.decode(params, latents),
    }
    for name, call in calls.items():
        exact, rounded = (
            jax.jit(call, static_argnums=0)(networks),
            jax.jit(call, static_argnums=0)(half),
        )
        assert rounded.dtype == jnp.float32, name
        error = np.abs(exact - rounded).max() / np.std(exact)
        assert 0 < error < 0.15, (name, error)


def test_sizes_of_latents_and_images(tiny, reference):
    networks, params = tiny
    assert networks.scaling_factor == 0.18215
    assert networks.factor == 2 ** (len(networks.sizes.vae["block_out_channels"]) - 1)
    image = jax.ShapeDtypeStruct((1, 16, 8, 3), "float32")
    mean, logvar = jax.eval_shape(networks.encode_image, params, image)
    assert mean.shape == logvar.shape == (1, 16 // networks.factor, 8 // networks.factor, 4)
    assert jax.eval_shape(networks.decode, params, mean).shape == image.shape


def test_new_parameters_are_those_of_the_shapes(tiny):
    networks, params = tiny
    found = jax.jit(networks.init)(jax.random.key(0))
    shape_of = lambda leaf: (leaf.shape, leaf.dtype)  # noqa: E731
    assert jax.tree.map(shape_of, found) == jax.tree.map(shape_of, params)
    again = jax.eval_shape(networks.init, jax.random.key(0))
    assert jax.tree.map(shape_of, again) == jax.tree.map(shape_of, params)
    resnet = found["unet"]["mid_block"]["resnets_0"]
    assert (resnet["norm1"]["scale"] == 1).all()
    assert (resnet["conv1"]["bias"] == 0).all()
    fan_in = np.prod(resnet["conv1"]["kernel"].shape[:3])
    assert np.std(resnet["conv1"]["kernel"]) == pytest.approx(fan_in**-0.5, rel=0.1)
    words = found["text_encoder"]["text_model"]["embeddings"]["token_embedding"]["embedding"]
    assert np.std(words) == pytest.approx(0.02, rel=0.05)


def test_a_text_that_is_too_long_is_refused(tiny):
    networks, params = tiny
    with pytest.raises(ValueError, match="78 tokens is longer than the 77"):
        networks.encode_text(params, np.zeros((1, 78), np.int32))


def test_lora_changes_unet_and_text_encoder_alike(tiny):
    _, params = tiny
    chosen = r"unet/mid_block/.*(attn2/to_k|conv1)/kernel|text_encoder/.*/0/.*/v_proj/kernel"
    meant = lora.kernels(params, chosen)
    assert {path.split("/")[0] for path in meant} == {"unet", "text_encoder"}
    assert {len(shape) for shape in meant.values()} == {2, 4}  # dense layers and convolutions
    half = jax.tree.map(lambda x: np.asarray(x, np.float16), params)
    draw = jax.jit(lambda key: lora.init(half, chosen, 1, key))
    change = jax.tree.map(lambda x: np.asarray(x) + np.float32(0.1), draw(jax.random.key(0)))
    merged = jax.tree_util.tree_leaves_with_path(lora.merge(half, change))
    for (path, new), old in zip(merged, jax.tree.leaves(half), strict=True):
        is_meant = "/".join(entry.key for entry in path) in meant
        assert new.dtype == old.dtype
        assert np.any(np.asarray(new) != old) == is_meant


# --- sizes ----------------------------------------------------------------------------------------


def test_sizes_are_hashable_and_fill_what_old_configs_leave_out(reference):
    unet, vae, text = configs(reference / "diffusion" / "sd1_tiny")
    for key in ("mid_block_type", "use_linear_projection", "upcast_attention", "dropout"):
        del unet[key]
    del vae["scaling_factor"]
    sizes = make_sizes(unet, vae, text)
    assert isinstance(sizes, Sizes)
    full = make_sizes(*configs(reference / "diffusion" / "sd1_tiny"))
    assert sizes == full
    assert hash(sizes) == hash(full)
    assert heads_of(sizes.unet) == (4, 4, 4)


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        (0, "_class_name", "SD3Transformer2DModel", "unet: _class_name 'SD3Transformer2DModel'"),
        (0, "addition_embed_type", "text_time", "unet: addition_embed_type 'text_time'"),
        (0, "class_embed_type", "projection", "unet: class_embed_type"),
        (0, "dual_cross_attention", True, "unet: dual_cross_attention True is not False"),
        (0, "act_fn", "gelu", "unet: act_fn 'gelu' is not 'silu'"),
        (0, "resnet_time_scale_shift", "scale_shift", "unet: resnet_time_scale_shift"),
        (0, "num_attention_heads", 8, "unet: num_attention_heads 8"),
        (0, "only_cross_attention", [True, True, False], "unet: only_cross_attention"),
        (0, "mid_block_type", "UNetMidBlock2D", "unet: mid_block_type 'UNetMidBlock2D'"),
        (0, "down_block_types", ["AttnDownBlock2D"] * 3, "AttnDownBlock2D unknown"),
        (0, "up_block_types", ["UpBlock2D"], "up_block_types must have 3"),
        (0, "attention_head_dim", [4, 4], "not a number for each of 3 levels"),
        (0, "attention_head_dim", 3, "attention_head_dim 3 does not divide"),
        (0, "norm_num_groups", 3, "unet: norm_num_groups 3 does not divide"),
        (
            0,
            "layers_per_block",
            [1, 2, 2],
            "unet: layers_per_block (1, 2, 2) is not a single number",
        ),
        (0, "cross_attention_dim", 48, "text of 48 channels .* has 32"),
        (1, "_class_name", "AutoencoderTiny", "vae: _class_name 'AutoencoderTiny'"),
        (1, "use_quant_conv", False, "vae: use_quant_conv False"),
        (1, "shift_factor", 0.1, "vae: shift_factor 0.1"),
        (1, "down_block_types", ["AttnDownEncoderBlock2D"] * 2, "AttnDownEncoderBlock2D unknown"),
        (2, "model_type", "t5", "text_encoder: model_type 't5'"),
        (2, "hidden_act", "mish", "text_encoder: hidden_act 'mish'"),
        (2, "num_attention_heads", 5, "num_attention_heads 5 does not divide"),
    ],
)
def test_what_the_networks_do_not_do_is_refused(reference, part, key, value, said):
    parts = configs(reference / "diffusion" / "sd1_tiny")
    parts[part][key] = value
    with pytest.raises(InputError, match=said.replace("(", r"\(").replace(")", r"\)")):
        make_sizes(*parts)


def test_all_that_is_wrong_is_said_at_once(reference):
    unet, vae, text = configs(reference / "diffusion" / "sd1_tiny")
    unet |= {"addition_embed_type": "text_time", "class_embed_type": "timestep"}
    with pytest.raises(InputError, match="addition_embed_type.*class_embed_type.*shift_factor"):
        make_sizes(unet, vae | {"shift_factor": 1.0}, text)


# --- layers ---------------------------------------------------------------------------------------


_HASHED = """
import hashlib, jax, numpy as np
from jaxtbpr.diffusion.layers import group_norm
x = np.random.default_rng(0).standard_normal((8, 44, 24, 640), np.float32)
norm = jax.jit(lambda x: group_norm(x, np.ones(640), np.zeros(640), groups=16, eps=1e-6))
print(hashlib.sha256(np.asarray(norm(x))).hexdigest())
"""


def test_group_norm_of_large_images_does_not_depend_on_the_number_of_devices():
    def digest(devices):
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        run = [sys.executable, "-c", _HASHED]
        return subprocess.run(
            run, env=os.environ | flags, capture_output=True, text=True, check=True
        ).stdout

    assert digest(1) == digest(8) != ""


@pytest.mark.parametrize("groups", [1, 4, 12])
@pytest.mark.parametrize("mean", [0, 300])
def test_group_norm_matches_numpy(groups, mean):
    rng = np.random.default_rng(groups)
    x = (rng.normal(size=(3, 5, 2, 12)) + mean).astype("f")
    scale, bias = rng.normal(size=(2, 12)).astype("f")
    grouped = x.astype(np.float64).reshape(3, 10, groups, -1)
    moved = grouped - grouped.mean((1, 3), keepdims=True)
    expected = moved / np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-5)
    expected = expected.reshape(x.shape) * scale + bias
    found = jax.jit(functools.partial(layers.group_norm, groups=groups, eps=1e-5))(x, scale, bias)
    np.testing.assert_allclose(found, expected, atol=5e-4 if mean else 2e-6)
    half = layers.group_norm(jnp.asarray(x, jnp.bfloat16), scale, bias, groups=groups, eps=1e-5)
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 3])
def test_attention_matches_numpy(causal, heads):
    rng = np.random.default_rng(heads)
    q, k, v = rng.normal(size=(3, 2, 5, heads, 4))
    logits = np.einsum("btnd,bsnd->bnts", q, k) / 2
    if causal:
        logits[:, :, ~np.tri(5, dtype=bool)] = -np.inf
    weights_ = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.einsum("bnts,bsnd->btnd", weights_, v)
    q, k, v = (x.astype("f") for x in (q, k, v))
    np.testing.assert_allclose(attention_map(q, k, causal=causal), weights_, atol=1e-6)
    np.testing.assert_allclose(attention(q, k, v, causal=causal), expected, atol=1e-6)
    theirs = jax.nn.dot_product_attention(q, k, v, is_causal=causal)  # of accelerators
    np.testing.assert_allclose(theirs, expected, atol=1e-6)


def test_timestep_features_match_the_formula():
    steps = np.float32([0, 1, 480.5, 999])
    angles = steps[:, None] * 10000.0 ** (-np.arange(8) / 8)
    expected = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    np.testing.assert_allclose(layers.timestep_features(steps, 16), expected, atol=1e-4)
    swapped = layers.timestep_features(steps, 16, cosine_first=False)
    np.testing.assert_allclose(swapped, np.roll(expected, 8, axis=1), atol=1e-4)
