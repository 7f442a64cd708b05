"""Images of a tiny random Stable Diffusion: each is its record's, whatever is made beside it."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxtbpr.core import tokenizer
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion.checkpoint import fingerprint, open_checkpoint
from jaxtbpr.diffusion.generator import Generator, Sampling, image_size, unit_of
from jaxtbpr.diffusion.networks import Networks
from tests.conftest import DATA

MODEL = DATA / "reference" / "diffusion" / "sd1_tiny"
SAMPLING = {"sampler": "euler_a", "steps": 2, "guidance_scale": 3.0, "height": 32, "width": 16}
PROMPTS = ["a man in a black jacket", "a woman", "a person in the forest", "a red coat", "a man"]
_COMPILED = "backend_compile_duration"
RECORDS = [f"{k:08d}" for k in range(len(PROMPTS))]
UNIT = unit_of((32, 16), factor=2)


def digests(pixels):
    return [hashlib.sha256(x.tobytes()).hexdigest() for x in pixels]


def make(batch_size=UNIT, seed=0, **changes):
    checkpoint = open_checkpoint(MODEL, "float32")
    return Generator(checkpoint, Sampling(**SAMPLING | changes), seed=seed, batch_size=batch_size)


@pytest.fixture(scope="module")
def generator():
    return make()


@pytest.fixture(scope="module")
def whole(generator):
    pixels, finite = generator(PROMPTS, RECORDS).wait()
    assert finite.all()
    return digests(pixels)


def test_images_are_as_large_as_asked_and_differ(generator, whole):
    pixels, _ = generator(PROMPTS, RECORDS).wait()
    assert pixels.shape == (5, 32, 16, 3)
    assert pixels.dtype == np.uint8
    assert len(set(whole)) == 5
    assert pixels.std() > 5


def test_an_image_at_its_place_does_not_depend_on_its_unit_or_its_neighbours(generator, whole):
    before = [f"x{k}" for k in range(UNIT)]
    pixels, _ = generator(["another one"] * UNIT + PROMPTS, before + RECORDS).wait()
    assert digests(pixels[UNIT:]) == whole
    beside, _ = generator(["a hat", "x", PROMPTS[2]], ["y", "z", RECORDS[2]]).wait()
    assert digests(beside[2:]) == whole[2:3]


def test_an_image_does_not_depend_on_the_batch_size(whole):
    pixels, _ = make(batch_size=3 * UNIT)(PROMPTS, RECORDS).wait()
    assert digests(pixels) == whole


def test_one_device_makes_the_same_bytes_as_eight(whole):
    program = (
        "import json, jax; from tests.diffusion import test_generator as t;"
        "assert jax.local_device_count() == 1;"
        "pixels, _ = t.make()(t.PROMPTS[:4], t.RECORDS[:4]).wait();"
        "print(json.dumps(t.digests(pixels)))"
    )
    flags = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=flags, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == whole[:4]


def test_nothing_is_compiled_again_for_another_batch(generator, whole):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if event.endswith(_COMPILED) else None
    )
    jax.jit(lambda x: x + 3)(1.5)
    assert len(compiled) == 1  # so that it would be seen
    generator(["something else"], ["9"]).wait()
    assert len(compiled) == 1


def test_more_prompts_than_a_batch_are_refused(generator):
    many = generator.batch + 1
    with pytest.raises(ValueError, match=f"{many} images are more than the {many - 1} of a batch"):
        generator(["a woman"] * many, ["0"] * many)


def test_seed_prompt_record_and_negative_prompt_each_make_another_image(generator, whole):
    def first(generator, prompt=PROMPTS[0], record=RECORDS[0]):
        return digests(generator([prompt], [record]).wait()[0])[0]

    assert first(generator) == whole[0]
    changed = [
        first(generator, prompt="a woman"),
        first(generator, record="00000009"),
        first(make(seed=1)),
        first(make(negative_prompt="a black jacket")),
    ]
    assert whole[0] not in changed
    assert len(set(changed)) == 4


def test_an_edit_keeps_of_the_image_what_strength_leaves(generator):
    images, _ = generator(PROMPTS[:2], RECORDS[:2]).wait()
    weak = make(sampler="dpmpp_2m", steps=10, strength=0.1, guidance_scale=1.0)
    strong = make(sampler="dpmpp_2m", steps=1, strength=1.0, guidance_scale=1.0)  # one step as well
    kept, _ = weak.edit(PROMPTS[1::-1], ["a", "b"], images).wait()
    remade, _ = strong.edit(PROMPTS[1::-1], ["a", "b"], images).wait()
    assert kept.shape == remade.shape == images.shape
    assert (kept != remade).any()


def test_what_is_not_finite_is_told_of_that_image():
    checkpoint = open_checkpoint(MODEL, "float32")
    bias = checkpoint.params["vae"]["decoder"]["conv_out"]["bias"]
    bias[:] = np.nan
    broken = Generator(checkpoint, Sampling(**SAMPLING), seed=0, batch_size=UNIT)
    _, finite = broken(PROMPTS[:2], RECORDS[:2]).wait()
    assert not finite.any()


def test_a_negative_prompt_must_be_read_whole():
    with pytest.raises(
        InputError, match="the negative prompt has .* but the text encoder takes 77: shorten it"
    ):
        make(negative_prompt="sunglasses and photography " * 20)


@pytest.mark.parametrize(
    ("channels", "said"),
    [
        (
            {"in_channels": 9},
            "has 9 input and 4 output channels, the VAE's latents 4: .*inpainting",
        ),
        ({"in_channels": 8}, "has 8 input .*editing by instructions"),
        ({"in_channels": 5}, "has 5 input .*depth to image"),
        ({"out_channels": 8}, "and 8 output .*another purpose"),
    ],
)
def test_a_unet_that_needs_more_than_noise_and_a_text_is_refused(channels, said):
    checkpoint = open_checkpoint(MODEL)
    sizes = checkpoint.sizes.replaced("unet", **channels)
    other = dataclasses.replace(checkpoint, sizes=sizes)
    with pytest.raises(InputError, match=said):
        Generator(other, Sampling(**SAMPLING), seed=0, batch_size=UNIT)


def test_the_default_size_is_a_tall_image_of_the_model_s_pixels():
    networks = Networks(open_checkpoint(MODEL).sizes)

    class Like:
        factor = 8
        sizes = type("Sizes", (), {"unet": {"sample_size": 64}})

    assert image_size(Like, 0, 0) == (704, 384)  # of 512 x 512
    Like.sizes.unet = {"sample_size": 96}
    assert image_size(Like, 0, 0) == (1088, 512)  # of 768 x 768
    Like.sizes.unet = {"sample_size": (16, 8)}
    assert image_size(Like, 0, 0) == (128, 64)
    assert image_size(networks, 30, 18) == (30, 18)
    with pytest.raises(
        InputError, match="31 x 16 pixels are not supported: both must be multiples"
    ):
        image_size(networks, 31, 16)


def test_a_fingerprint_is_of_all_that_makes_images(tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(MODEL, copy, copy_function=shutil.copyfile)
    assert fingerprint(copy) == fingerprint(MODEL)
    (copy / "notes.txt").write_text("not read")
    (copy / "tokenizer" / "old").mkdir()
    assert fingerprint(copy) == fingerprint(MODEL)
    (copy / "scheduler" / "scheduler_config.json").write_text("{}")
    assert fingerprint(copy) != fingerprint(MODEL)


def test_the_fingerprint_of_a_single_file_is_also_of_what_is_beside_it(tmp_path):
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    (tmp_path / "another.safetensors").write_bytes(b"not read")
    found = [fingerprint(model)]
    (tmp_path / "scheduler_config.json").write_text("{}")
    found.append(fingerprint(model))
    (tmp_path / "vocab.json").write_text("{}")
    found.append(fingerprint(model))
    shutil.copytree(MODEL / "tokenizer", tmp_path / "tokenizer")
    found.append(fingerprint(model))
    assert len(set(found)) == 4
    (tmp_path / "vocab.json").write_text("not read any more")
    assert fingerprint(model) == found[-1]


def test_a_folder_without_a_model_has_no_fingerprint(tmp_path):
    with pytest.raises(InputError, match="has no files of a Stable Diffusion"):
        fingerprint(tmp_path)


@pytest.mark.parametrize("change", [-1, 1])
def test_the_tokenizer_must_have_the_words_of_the_text_encoder(tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(MODEL, copy, copy_function=shutil.copyfile)
    assert open_checkpoint(copy).tokenizer == copy / "tokenizer"
    lines = (MODEL / "tokenizer" / "merges.txt").read_text().splitlines()[1:]
    merges = [tuple(line.split()) for line in lines]
    merges = merges[:change] if change < 0 else [*merges, ("q", "q")]
    tokenizer.save_clip(merges, copy / "tokenizer", 77)
    said = f"tokenizer has {1000 + change} tokens, but the text encoder has 1000"
    with pytest.raises(InputError, match=said):
        open_checkpoint(copy)


def test_eight_devices_are_used(generator):
    assert generator.batch == UNIT * jax.local_device_count() == 128


def test_one_device_of_a_cpu_makes_large_images():
    assert make(batch_size=1, height=512, width=512).batch == 4


def test_small_images_are_made_more_together_than_large_ones():
    assert unit_of((128, 64), factor=8) == 16
    assert unit_of((512, 512), factor=8) == unit_of((704, 384), factor=8) == 4
