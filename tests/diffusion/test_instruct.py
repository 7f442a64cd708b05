"""InstructPix2Pix: guidance by a text and an image, and edits of a tiny random model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion import weights
from jaxtbpr.diffusion.checkpoint import Checkpoint, open_checkpoint
from jaxtbpr.diffusion.editing.instruct import InstructGenerator, guide_by_image, is_guided
from jaxtbpr.diffusion.generator import Generator, Sampling, unit_of
from jaxtbpr.diffusion.prompt_tokenizer import open_prompt_tokenizer
from tests.conftest import DATA
from tests.diffusion import single_file
from tests.diffusion.test_generator import digests

REFERENCE = DATA / "reference" / "diffusion"
SAMPLING = {"sampler": "euler_a", "steps": 2, "guidance_scale": 7.5, "height": 32, "width": 16}
UNIT = unit_of((32, 16), factor=2)
WORDS = ["put the person in a forest", "make it snowy", "make the person sit"]
RECORDS = ["00000000-01", "00000001-01", "00000002-01"]


@functools.cache
def checkpoint() -> Checkpoint:
    folders = REFERENCE / "ip2p_tiny", REFERENCE / "sd1_tiny"
    sizes, params, scheduler, words = weights.load(folders[0], "float32", base=folders[1])
    return Checkpoint(sizes, params, scheduler, open_prompt_tokenizer(words, 77), words)


@pytest.fixture(scope="module")
def generator():
    return InstructGenerator(checkpoint(), Sampling(**SAMPLING), seed=0, batch_size=UNIT)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def whole(generator, images):
    pixels, finite = generator.edit(WORDS, RECORDS, images).wait()
    assert finite.all()
    assert pixels.shape == images.shape
    return digests(pixels)


# --- guidance -------------------------------------------------------------------------------------


def seen(image_scale, negative=0.0):
    """What a network of one channel is called with: (rows of its input, of its text)."""
    calls = []

    def network(x, t, states):
        calls.append((np.asarray(x).tolist(), np.asarray(states)[:, 0].tolist()))
        return x[:, :1] + 10 * x[:, 1:] + 100 * states

    row = jnp.ones((1, 1))
    less = None if negative is None else negative * row
    answer = guide_by_image(network, 5 * row, less, 3 * row, 7.5, image_scale)(2 * row, 0)
    return calls[0], float(answer[0, 0])


def test_three_branches_are_one_call_and_the_last_has_neither_text_nor_image():
    assert seen(1.5) == (
        ([[2, 3], [2, 3], [2, 0]], [5, 0, 0]),
        2 + 7.5 * 500 + 1.5 * 30,
    )


def test_an_image_scale_of_one_needs_two_branches_and_gives_the_same():
    assert seen(1.0) == (([[2, 3], [2, 3]], [0, 5]), seen(jnp.float32(1))[1])


def test_without_guidance_there_is_one_branch_with_text_and_image():
    assert seen(1.5, negative=None) == (([[2, 3]], [5]), 2 + 30 + 500)


def test_it_guides_where_diffusers_does():
    scales = [(7.5, 1.5), (7.5, 1.0), (1.1, 1.0), (1.0, 1.5), (7.5, 0.9), (0.0, 0.0)]
    assert [is_guided(*pair) for pair in scales] == [True, True, True, False, False, False]


def test_what_a_network_carries_goes_through():
    def network(x, t, states, step, carry):
        return x[:, :1] + states, carry + 10 * step

    row = jnp.ones((1, 1))
    for scale, negative in ((1.5, row), (1.0, row), (1.5, None)):
        guided = guide_by_image(network, row, negative, row, 7.5, scale)
        assert guided(row, 0, 2, 5)[1] == 25


# --- edits ----------------------------------------------------------------------------------------


def test_an_edit_at_its_place_does_not_depend_on_device_unit_or_neighbours(
    generator, whole, images
):
    before = [f"x{k}" for k in range(UNIT)]
    others = np.full((UNIT, *images.shape[1:]), 7, np.uint8)
    given = ["another one"] * UNIT + WORDS, before + RECORDS, np.concatenate([others, images])
    assert digests(generator.edit(*given).wait()[0][UNIT:]) == whole


def test_nothing_is_compiled_again_for_another_instruction(generator, whole, images):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: (
            compiled.append(event) if event.endswith("backend_compile_duration") else None
        )
    )
    jax.jit(lambda x: x + 3.25)(1.5)
    assert len(compiled) == 1  # so that it would be seen
    generator.edit(["turn it into an oil painting"], ["9"], images[1:2]).wait()
    assert len(compiled) == 1


def test_instruction_image_and_record_each_make_another_edit(generator, whole, images):
    def first(words=WORDS[0], record=RECORDS[0], image=images[:1]):
        return digests(generator.edit([words], [record], image).wait()[0])[0]

    changed = [
        first(words="make it snowy"),
        first(record="00000009-01"),
        first(image=255 - images[:1]),
    ]
    assert first() == whole[0]
    assert len({whole[0], *changed}) == 4


def test_an_image_is_needed(generator):
    with pytest.raises(TypeError, match="an InstructPix2Pix makes images of images only"):
        generator(WORDS, RECORDS)


# --- checkpoints ----------------------------------------------------------------------------------


def with_channels(taken):
    unet = checkpoint().sizes.unet.copy({"in_channels": taken})
    return dataclasses.replace(
        checkpoint(), sizes=dataclasses.replace(checkpoint().sizes, unet=unet)
    )


@pytest.mark.parametrize(("taken", "purpose"), [(4, "text to image"), (9, "inpainting")])
def test_another_unet_is_refused(taken, purpose):
    said = f"model for {purpose}; use an InstructPix2Pix, whose UNet takes 8"
    with pytest.raises(InputError, match=said):
        InstructGenerator(with_channels(taken), Sampling(**SAMPLING), seed=0, batch_size=UNIT)


def test_text_to_image_names_the_engine_that_takes_it():
    said = "editing by instructions, which engine 'instruct' of stage augment takes; use a text-to"
    with pytest.raises(InputError, match=said):
        Generator(checkpoint(), Sampling(**SAMPLING), seed=0, batch_size=UNIT)


def test_a_single_file_opens_with_the_sampler_of_the_published_one(tmp_path):
    arrays = single_file.make(REFERENCE / "sd1_tiny")
    name = "model.diffusion_model.input_blocks.0.0.weight"
    arrays[name] = np.concatenate([arrays[name]] * 2, axis=1)
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "tokenizer").symlink_to(REFERENCE / "sd1_tiny" / "tokenizer")
    opened = open_checkpoint(tmp_path / "model.safetensors", "float32")
    assert weights.read_sizes(tmp_path / "model.safetensors") == opened.sizes
    settings = Sampling(**SAMPLING | {"sampler": ""})
    edits = InstructGenerator(opened, settings, seed=0, batch_size=1)
    assert (edits.schedule.sampler, edits.schedule.spacing) == ("euler_a", "linspace")
