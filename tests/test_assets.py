"""The models that the package brings along: small, whole, and as good as the README says."""

import pathlib

import numpy as np
import pytest
from etils import epath

from jaxtbpr.core import attributes, seeds
from jaxtbpr.retrieval import zero_shot
from jaxtbpr.retrieval.saved import open_saved
from jaxtbpr.retrieval.scoring import Scorer
from jaxtbpr.synthesis.render import render_png

ROOT = pathlib.Path(__file__).parents[1]
TINY_CLIP = ROOT / "jaxtbpr" / "assets" / "tiny-clip"
SEED = 2026  # not that of configs/tiny_clip.py: nobody drawn here was trained on


@pytest.fixture(scope="module")
def judge():
    return zero_shot.Judge(Scorer(open_saved("tiny-clip"), batch_size=64))


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
    found = zero_shot.accuracy(judge, records, root)
    stated = stated_accuracies()
    for slot, row in found.items():
        # 3 standard deviations of a share of so many images below what the README says.
        share = stated[slot]
        slack = 3 * np.sqrt(share * (1 - share) / row["images"])
        assert row["accuracy"] >= share - slack, (slot, row, share)


def stated_accuracies() -> dict[str, float]:
    """{slot: accuracy} of tiny-clip as the README states it."""
    lines = (ROOT / "README.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    slots = {slot.replace("_", " "): slot for slot in zero_shot.PROMPTS}
    found = {slots[row[0]]: float(row[1]) / 100 for row in cells if row[0] in slots}
    assert found.keys() == zero_shot.PROMPTS.keys()
    return found
