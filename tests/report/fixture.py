"""Writes a plausible finished run, for the tests of the report and for looking at it:

python -m tests.report.fixture FOLDER writes a run into FOLDER and makes its report.
"""

import io
import json
import math
import pathlib
import sys

import numpy as np
from etils import epath
from ml_collections import ConfigDict
from PIL import Image, ImageDraw

from jaxtbpr import stages
from jaxtbpr.core import files, manifest
from jaxtbpr.core.options import default_config
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets import build

SURVEY = {
    "duplicates": 0.0125,
    "evenness": {"hair_colour": {"values": 6, "entropy": 0.964, "min": 7, "max": 1234}},
}
# What is written here; a usual run has no more record stages.
WRITTEN = ("prompts", "generate", "filter", "augment", "caption")
STAGE = stages.STAGES["report"]
VERSIONS = {"jaxtbpr": "0.1.0", "jax": "0.10.2", "flax": "0.12.8"}
RAN = {
    "date": "2026-11-29 07:00:00+00:00",
    "command": "python -m jaxtbpr.main --config=configs/syn.py '--workdir=runs/<b>coat</b>'",
    "machine": "laptop: Linux x86_64, 8 cores",
    "source": "0123abc+",
}
TOWER = {"width": 128, "layers": 5, "heads": 4}
MODEL = {"image_size": [128, 64], "patch_size": 16, "vision": TOWER, "text": TOWER | {"layers": 3}}
COLOURS = ("red", "orange", "green", "blue", "purple", "pink", "brown", "beige", "white", "black")
GROUNDS = ("lightgrey", "darkseagreen", "wheat", "lightsteelblue")
PLACES = ("street", "park", "beach", "lake")
HOSTILE = "<script>alert('caption')</script> & a \"quoted\" <b>coat</b>"
METRICS = {"R1": 0.523, "R5": 0.781, "R10": 0.884, "mAP": 0.561, "mINP": 0.402}


def workdir(root, chosen=WRITTEN) -> Workdir:
    return Workdir(root, stages.ORDER, chosen)


def config(**options) -> ConfigDict:
    """The part of the config that stage report gets."""
    defaults = {key: option.default for key, option in STAGE.options.items()}
    return ConfigDict({"seed": 0, "report": defaults | options})


def write(root, *, people: int = 12, steps: int = 400, epochs: int = 5) -> Workdir:
    """Writes a run with all stages before the report. people: identities, a third of them test."""
    run = workdir(root)
    write_manifests(run, people)
    write_build(run)
    write_training(run, steps, epochs)
    write_evaluation(run, people)
    return run


def write_manifests(run: Workdir, people: int) -> None:
    """Writes prompts to caption; two records are rejected, one caption holds HTML."""
    base = [_base(n, people) for n in range(people)]
    _commit_manifest(run, "prompts", base, {"train": people}, seconds=0.21, more=SURVEY)
    drawn = [record | _image(run.root, record, 0) for record in base]
    _commit_manifest(run, "generate", drawn, {"engine": "render", "height": 128}, seconds=14.7)
    blank = "generate/images/{}.png is blank: contrast {:.1f}"
    filtered = [
        manifest.reject(record, "filter", blank.format(record["id"], n / 3)) if n < 2 else record
        for n, record in enumerate(drawn)
    ]
    _commit_manifest(run, "filter", filtered, {"quality.min_contrast": 8.0}, seconds=1.9)
    augmented = [edit for record in filtered[2:] for edit in _edits(run.root, record)]
    _commit_manifest(run, "augment", augmented, {"edits": 3}, seconds=41.0)
    captioned = [_captioned(record, k) for k, record in enumerate(augmented)]
    captioned[0]["captions"][0] = HOSTILE
    options = {"mention.hair": 0.7, "mention.upper_colour": 0.9, "mention.shoes": 0.35}
    _commit_manifest(run, "caption", captioned, options, seconds=3.1)


def write_build(run: Workdir) -> None:
    """Packs the last manifest, and a record with a missing image, with the real stage."""
    options = default_config(build.OPTIONS)
    options.processes = 1
    result = build.run(ConfigDict({"seed": 0, "build": options}), run)
    _commit(run, "build", {"val_fraction": 0.1}, result, seconds=6.4)


def write_training(run: Workdir, steps: int, epochs: int) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for step in range(1, steps + 1):
        done = step / steps
        rows.append(
            {
                "step": step,
                "loss": 0.9 + 3.6 * math.exp(-4 * done) + 0.12 * rng.normal(),
                "learning_rate": 1e-3 * min(10 * done, 0.5 + 0.5 * math.cos(math.pi * done)),
                "logit_scale": 14.3 + 12 * done,
                "gradient_norm": 1 + math.exp(-3 * done) + 0.2 * abs(rng.normal()),
                "images_per_second": 240 + 12 * rng.normal(),
                "host_wait": 0.02 + 0.01 * rng.random(),
            }
        )
    evals = [
        {"step": epoch * steps // epochs, "epoch": float(epoch), "set": f"synthetic/{split}"}
        | {key: value * (1 - math.exp(-k * epoch / epochs)) for key, value in METRICS.items()}
        for epoch in range(1, epochs + 1)
        for split, k in (("val", 2.9), ("test", 2.2))
    ]
    folder = run.dir("train")
    _write_lines(folder / "metrics.jsonl", rows)
    _write_lines(folder / "evals.jsonl", evals)
    sizes = {"text_length": 48, "vocab_size": 2048, "embed_dim": 256}
    files.write_json_atomic(folder / "model.json", {"model": MODEL | sizes})
    counts = {"records_in": 4000, "records_out": 4000, "rejected": 0}
    options = {"batch_size": 128, "epochs": epochs, "learning_rate": 1e-3}
    _commit(run, "train", options, {"outputs": {}, **counts}, seconds=312.4)


def write_evaluation(run: Workdir, people: int) -> None:
    test = [r for r in run.manifest("caption") if r["split"] == "test"]
    examples = [_example(n, test) for n in range(min(16, len(test)))]
    sizes = {"queries": len(test), "gallery": len(test), "identities": people // 3}
    sizes |= {"captions_cut": 3, "text_length": 48}
    metrics = METRICS | {"chance_R1": 4 / len(test)} | sizes
    detail = {
        "set": "synthetic/test",
        "selected": METRICS | {"epoch": 4.0},
        "last": {key: value - 0.013 for key, value in METRICS.items()} | {"epoch": 5.0},
        "best_on_test": {key: value + 0.011 for key, value in METRICS.items()} | {"epoch": 3.0},
        "cmc": [1 - 0.477 * math.exp(-0.17 * k) for k in range(50)],
        "examples": examples,
        "hardest": sorted(examples, key=lambda one: -one["first_match_rank"])[:3],
    }
    queries = [_query(one) for one in examples]
    folder = run.dir("evaluate")
    folder.mkdir(parents=True)
    files.write_json_atomic(folder / "synthetic__test.json", detail)
    _write_lines(folder / "synthetic__test.queries.jsonl", queries)
    counts = {"records_in": len(test), "records_out": len(test), "rejected": 0}
    result = {"outputs": {}, **counts, "metrics": {"synthetic/test": metrics}}
    _commit(run, "evaluate", {"examples": 24}, result, seconds=4.2)


def _base(n: int, people: int) -> dict:
    split = "test" if n % 3 == 2 else "val" if n % 6 == 0 else "train"
    upper, lower = COLOURS[n % 10], COLOURS[(3 * n + 1) % 10]
    prompt = f"a person in a {upper} coat and {lower} trousers"
    colours = {"upper_colour": upper, "lower_colour": lower}
    name = f"{n:08d}"
    return {"id": name, "identity": name, "split": split, "prompt": prompt, "attributes": colours}


def _edits(root: epath.Path, record: dict) -> list[dict]:
    edits = [["background"], ["background", "posture"], ["weather", "view"]]
    made = [
        record | {"id": f"{record['id']}-{k}", "edits": edit} for k, edit in enumerate(edits, 1)
    ]
    return [record] + [one | _image(root, one, k) for k, one in enumerate(made, 1)]


def _captioned(record: dict, k: int) -> dict:
    words = record["attributes"]
    texts = [
        f"A person on the {PLACES[k % 4]} wears a {words['upper_colour']} coat.",
        f"Someone with {words['lower_colour']} trousers, a {words['upper_colour']} coat and a look "
        "over the shoulder at whoever is taking this picture.",
    ]
    noise = [[["upper_colour", words["upper_colour"], "grey"]], []]
    return record | {
        "captions": texts,
        "caption_noise": noise if record["split"] == "train" else [],
    }


def _image(root: epath.Path, record: dict, k: int) -> dict:
    """Draws a stick of a person and returns the keys of its image."""
    words = record["attributes"]
    image = Image.new("RGB", (64, 128), GROUNDS[k % 4])
    draw = ImageDraw.Draw(image)
    draw.ellipse((25, 12 + k, 39, 28 + k), "peru")
    draw.rounded_rectangle((18, 28 + k, 46, 70), 7, words["upper_colour"])
    draw.rectangle((22, 70, 31, 116), words["lower_colour"])
    draw.rectangle((33, 70, 42, 116), words["lower_colour"])
    file = io.BytesIO()
    image.save(file, "PNG")
    path = f"generate/images/{record['id']}.png"
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(file.getvalue())
    digest = files.sha256(file.getvalue())
    image = {"path": path, "sha256": digest, "height": 128, "width": 64}
    return {"source": "render", "seed": 0, "edits": record.get("edits", []), "image": image}


def _example(n: int, test: list[dict]) -> dict:
    """A query whose right images stand at ranks that depend on n."""
    asked = test[n]
    right = [r for r in test if r["identity"] == asked["identity"]]
    wrong = [r for r in test if r["identity"] != asked["identity"]]
    first = (1, 1, 3, 1, 14, 2)[n % 6]
    ranked = wrong[: first - 1] + right + wrong[first - 1 :]
    hits = [
        {
            "image_id": record["id"],
            "identity": record["identity"],
            "score": 0.81 - 0.03 * rank,
            "right": record["identity"] == asked["identity"],
        }
        for rank, record in enumerate(ranked[:10])
    ]
    return {
        "caption": HOSTILE if n == 0 else asked["captions"][n % 2],
        "query_identity": asked["identity"],
        "query_identity_name": asked["identity"],
        "query_image_id": asked["id"],
        "ranked": hits,
        "first_match_rank": first,
        "first_match": hits[0] | {"image_id": right[0]["id"], "right": True},
    }


def _query(example: dict) -> dict:
    """What evaluate keeps of every query."""
    kept = {"image_id": "query_image_id", "identity": "query_identity_name"}
    rank = example["first_match_rank"]
    words = {key: example[own] for key, own in kept.items()}
    return words | {"caption": example["caption"], "first_match_rank": rank, "ap": 1 / rank}


def _commit_manifest(
    run: Workdir, name: str, records: list[dict], options: dict, seconds, more: dict | None = None
) -> None:
    folder = run.dir(name)
    _write_lines(folder / "records-00000-of-00001.jsonl", records)
    kept = sum(map(manifest.is_kept, records))
    counts = {"records_in": kept, "records_out": kept, "rejected": len(records) - kept}
    outputs = {"outputs": manifest.shard_digests(folder)}
    _commit(run, name, options, outputs | counts | (more or {}), seconds)


def _commit(run: Workdir, name: str, options: dict, result: dict, seconds: float) -> None:
    recipe = {"config": {"seed": 0} | {f"{name}.{k}": v for k, v in options.items()}, "inputs": {}}
    changed = [f"{name}.{key}" for key in options if key == "learning_rate"]
    told = {"recipe": recipe, "seconds": seconds, "versions": VERSIONS, "changed": changed}
    whole = told | {"ran": RAN} | result
    files.write_json_atomic(run.dir(name) / "commit.json", whole)


def _write_lines(path: epath.Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    run = write(folder, people=60, steps=2000, epochs=12)
    run.dir("report").mkdir()
    print(STAGE.run(config(), run))
