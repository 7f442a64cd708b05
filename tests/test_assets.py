"""The models that the package brings along: small, whole, and as good as their cards say."""

import pathlib

import numpy as np
import pytest
from etils import epath
from PIL import Image

from jaxtbpr.core import attributes, seeds
from jaxtbpr.diffusion.checkpoint import open_checkpoint
from jaxtbpr.diffusion.generator import Generator, Sampling
from jaxtbpr.prompts import template
from jaxtbpr.render import render_png
from jaxtbpr.retrieval import zero_shot
from jaxtbpr.retrieval.judging.scoring import Scorer
from jaxtbpr.retrieval.saved import open_saved

ROOT = pathlib.Path(__file__).parents[1]
TINY_CLIP = ROOT / "jaxtbpr" / "assets" / "tiny-clip"
TINY_SD = ROOT / "jaxtbpr" / "assets" / "tiny-sd"
SEED = 2026  # not that of configs/tiny_clip.py: nobody drawn here was trained on


@pytest.fixture(scope="module")
def judge():
    return zero_shot.ZeroShot(Scorer(open_saved("tiny-clip"), batch_size=64))


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> tuple[epath.Path, list[dict]]:
    """The folder of the images of 320 newly drawn people, and their records."""
    root = epath.Path(tmp_path_factory.mktemp("people"))
    records = []
    for n in range(320):
        rng = seeds.rng(SEED, "assets", n)
        looks = attributes.sample_person(rng) | attributes.sample_scene(rng)
        (root / f"{n}.png").write_bytes(render_png(looks, seed=SEED, record_id=str(n)))
        records.append({"attributes": looks, "image": {"path": f"{n}.png"}})
    return root, records


def test_tiny_clip_is_a_small_hugging_face_folder():
    files = {path.name: path.stat().st_size for path in TINY_CLIP.iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json"} <= (
        files.keys()
    )
    assert sum(files.values()) <= 6_000_000


def test_tiny_clip_names_what_people_wear_and_where_they_are(judge, people):
    root, records = people
    hold(zero_shot.accuracy(judge, records, root), stated(column=1))


def test_tiny_sd_is_a_small_diffusers_folder():
    files = [path for path in TINY_SD.rglob("*") if path.is_file()]
    names = {str(path.relative_to(TINY_SD)) for path in files}
    assert {
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/model.safetensors",
        "tokenizer/merges.txt",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    } <= names
    assert sum(path.stat().st_size for path in files) <= 12_000_000


def test_tiny_sd_draws_what_it_is_asked_for(judge, tmp_path):
    sampling = Sampling(sampler="ddim", steps=25, guidance_scale=5.0)
    generator = Generator(open_checkpoint("tiny-sd"), sampling, seed=SEED, batch_size=16)
    looks = [
        person | attributes.sample_scene(seeds.rng(SEED, "scene", name))
        for name, person, _ in template.draw_people(SEED, "test", 288)
    ]
    prompts = [template.prompt(look) for look in looks]
    parts = []
    for first in range(0, len(prompts), generator.batch):
        some = prompts[first : first + generator.batch]
        pixels, finite = generator(some, [str(first + n) for n in range(len(some))]).wait()
        assert finite.all()
        assert pixels.shape[1:] == (128, 64, 3)
        parts.append(pixels)
    pixels = np.concatenate(parts)
    records = []
    for n, (look, one) in enumerate(zip(looks, pixels, strict=True)):
        Image.fromarray(one).save(tmp_path / f"{n}.png")
        records.append({"attributes": look, "image": {"path": f"{n}.png"}})
    hold(zero_shot.accuracy(judge, records, epath.Path(tmp_path)), stated(column=4))


def hold(found: dict[str, dict], shares: dict[str, float]) -> None:
    """Asserts that no accuracy is 3 standard deviations below what the card states."""
    for slot, row in found.items():
        share = shares[slot]
        slack = 3 * np.sqrt(share * (1 - share) / row["images"])
        assert row["accuracy"] >= share - slack, (slot, row, share)


def stated(column: int) -> dict[str, float]:
    """{slot: share} of a column of the table of tiny-clip in jaxtbpr/assets/README.md."""
    lines = (ROOT / "jaxtbpr/assets/README.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    slots = {slot.replace("_", " "): slot for slot in zero_shot.PROMPTS}
    found = {slots[row[0]]: float(row[column]) / 100 for row in cells if row[0] in slots}
    assert found.keys() == zero_shot.PROMPTS.keys()
    return found
