"""Control of the UNet's attention: what it is told, what it carries, that it is never in vain."""

import functools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtbpr.core.attention import apply_map, attention, attention_map
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion import samplers, scheduler_config, weights
from jaxtbpr.diffusion.control import Control
from jaxtbpr.diffusion.networks import Networks
from jaxtbpr.diffusion.sampling import guide, sample

STEPS = 3


@pytest.fixture(scope="module")
def tiny(reference):
    """(networks, parameters, table of steps) of a UNet of two levels with attention at both."""
    sizes, params, scheduler, _ = weights.load(reference / "diffusion" / "sd2_tiny")
    schedule = scheduler_config.from_config(scheduler, "ddim")
    return Networks(sizes), params, samplers.make_table(schedule, STEPS)


@functools.cache
def inputs():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 8, 4, 4)).astype("f"), rng.normal(size=(2, 7, 24)).astype("f")


class Keep(Control):
    """Sums the maps to the text at one size over all steps, each step's times its weight."""

    weights: jax.Array  # [steps]
    size: tuple[int, int] = flax.struct.field(pytree_node=False, default=(4, 2))

    def meets(self, layer):
        return layer.is_cross and layer.size == self.size

    def __call__(self, step, layer, q, k, v, carry):
        name, maps = "/".join(layer.path), attention_map(q, k)
        kept = carry[name]
        kept = {
            "sum": kept["sum"] + self.weights[step] * maps,
            "q": kept["q"].at[step].set(q),
            "k": k,
        }
        return apply_map(maps, v), carry | {name: kept}

    def begin(self, networks, size, rows, tokens):
        """The carry of the first step."""

        def zeros(layer):
            places, heads = layer.size[0] * layer.size[1], layer.heads
            channels = networks.sizes.unet["block_out_channels"][-1] // heads
            return {
                "sum": jnp.zeros((rows, heads, places, tokens)),
                "q": jnp.zeros((STEPS, rows, places, heads, channels)),
                "k": jnp.zeros((rows, tokens, heads, channels)),
            }

        layers = filter(self.meets, networks.attention_layers(size))
        return {"/".join(layer.path): zeros(layer) for layer in layers}


@pytest.fixture(scope="module")
def walked(tiny):
    """(samples without control; samples and carry of two controls; how often it was traced)."""
    networks, params, table = tiny
    start, text = inputs()
    negative, traced = np.zeros_like(text), []

    @jax.jit
    def plain(params):
        predict = functools.partial(networks.predict, params)
        return sample(guide(predict, text, negative, 4.0), table, start)

    @jax.jit
    def controlled(params, control, carry):
        traced.append(1)
        predict = functools.partial(networks.predict_controlled, params, control)
        return sample(guide(predict, text, negative, 4.0), table, start, carry=carry)

    controls = [Keep(jnp.ones(STEPS)), Keep(jnp.arange(3.0))]
    found = [
        controlled(params, control, control.begin(networks, (8, 4), 4, 7)) for control in controls
    ]
    return plain(params), found, traced


def test_a_control_that_only_looks_changes_nothing(walked):
    expected, found, _ = walked
    for samples, _ in found:
        np.testing.assert_allclose(samples, expected, rtol=1e-6, atol=1e-6)


def test_maps_are_carried_through_layers_and_steps(walked, tiny):
    _, params, _ = tiny
    states = np.concatenate([0 * inputs()[1], inputs()[1]])  # without text, then with
    for (_, carry), weight in zip(walked[1], (np.ones(3), np.arange(3)), strict=True):
        assert [name.split("/")[0] for name in carry] == ["mid_block"]
        for name, kept in carry.items():
            module = params["unet"]
            for part in name.split("/"):
                module = module[part]
            k = (states @ module["to_k"]["kernel"]).reshape(kept["k"].shape)
            np.testing.assert_allclose(kept["k"], k, atol=1e-5)
            logits = np.einsum("ibtnd,bsnd->ibnts", kept["q"], k) / np.sqrt(k.shape[-1])
            maps = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
            assert np.abs(maps[0] - maps[2]).max() > 1e-6  # each step has its own
            expected = np.einsum("i,ibnts->bnts", weight, maps)
            np.testing.assert_allclose(kept["sum"], expected, atol=1e-5)


def test_another_control_of_the_same_shapes_does_not_compile_anew(walked):
    _, _, traced = walked
    assert len(traced) == 1


def test_a_control_that_meets_no_layer_is_an_error(tiny):
    networks, params, _ = tiny
    latents, text = inputs()
    control = Keep(jnp.ones(STEPS), size=(16, 16))
    said = (
        "control Keep applies to none of the UNet's 8 attention layers "
        r"\(self 8x4, cross 8x4, self 4x2, cross 4x2\), so it would change nothing"
    )
    with pytest.raises(InputError, match=said):
        jax.eval_shape(
            networks.predict_controlled, params, control, latents, np.float32(1), text, 0, {}
        )


class Listen(Control):
    """Attention as it is; what it is told is noted beside."""

    def __call__(self, step, layer, q, k, v, carry):
        HEARD.append((layer, q.shape, k.shape, step))
        return attention(q, k, v), carry + 1


HEARD = []


def test_control_is_asked_by_every_attention_of_the_unet(tiny):
    networks, params, _ = tiny
    size, half = (5, 3), (3, 2)  # odd sides are halved upwards
    HEARD.clear()
    shape = jax.ShapeDtypeStruct((2, *size, 4), "float32")
    text, times = inputs()[1], np.float32([501, 20.5])
    _, carry = jax.eval_shape(
        networks.predict_controlled, params, Listen(), shape, times, text, 0, jnp.int32(0)
    )
    assert carry.shape == ()
    block = ("transformer_blocks_0",)
    places = [("down_blocks_0", "attentions_0"), ("mid_block", "attentions_0")]
    places += [("up_blocks_1", "attentions_0"), ("up_blocks_1", "attentions_1")]
    expected = [(*place, *block, layer) for place in places for layer in ("attn1", "attn2")]
    assert [layer.path for layer, *_ in HEARD] == expected
    assert [layer.block for layer, *_ in HEARD] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert tuple(layer for layer, *_ in HEARD) == networks.attention_layers(size)
    for layer, q, k, step in HEARD:
        assert (step.shape, step.dtype) == ((), np.int32)
        inside = layer.path[0] == "mid_block"
        # Two heads outside and four inside, as the config's "attention_head_dim" says.
        assert layer.heads == q[2] == (4 if inside else 2)
        assert layer.size == (half if inside else size)
        assert q == (2, layer.size[0] * layer.size[1], layer.heads, 4)
        assert layer.is_cross == (layer.path[-1] == "attn2")
        assert k[:2] == ((2, 7) if layer.is_cross else q[:2])
    HEARD.clear()
    networks.encode_text(params, np.zeros((1, 3), np.int32))
    assert HEARD == []


class Silence(Control):
    """No text is attended to, as far as `loudness` says."""

    loudness: jax.Array

    def meets(self, layer):
        return layer.is_cross

    def __call__(self, step, layer, q, k, v, carry):
        return self.loudness * attention(q, k, v), carry


def test_control_replaces_attention(tiny):
    networks, params, _ = tiny
    latents, text = inputs()

    @jax.jit
    def predict(text, loudness):
        arguments = Silence(loudness), latents, np.float32(501), text, 0, ()
        return networks.predict_controlled(params, *arguments)[0]

    np.testing.assert_array_equal(predict(text, 0.0), predict(0 * text, 0.0))
    assert np.abs(predict(text, 1.0) - predict(text, 0.0)).max() > 1e-4
