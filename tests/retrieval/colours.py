"""A judge that sees one colour and reads one word, and a run of images of one colour each."""

import io

import numpy as np
from PIL import Image

from jaxtbpr.core import files, manifest
from jaxtbpr.core.tokenizer import Cut
from jaxtbpr.core.workdir import COMMIT, Workdir
from jaxtbpr.datasets import transforms
from jaxtbpr.retrieval.judging.scoring import Scorer

LENGTH = 8
COLOURS = {"red": (250, 0, 0), "green": (0, 250, 0), "blue": (0, 0, 250)}


class Colours(Scorer):
    """Images and texts of a colour have the feature of that colour; no two colours are alike."""

    width, logit_scale = 3, 1.0

    def __init__(self):
        pass

    def images(self, images):
        means = [transforms.decode_image(data, (2, 2)).mean(axis=(0, 1)) for data in images]
        return _unit(np.array(means, np.float32).reshape(-1, 3))

    def texts(self, texts):
        said = [[float(colour in text) for colour in COLOURS] for text in texts]
        rows = np.array(said, np.float32).reshape(-1, 3)
        rows[~rows.any(axis=1)] = 1.0  # no colour is any colour
        return _unit(rows)

    def cut(self, texts, what="captions"):
        return Cut(sum(len(text.split()) > LENGTH for text in texts), len(texts), LENGTH, what)


def record(name, shown, said=(), *, split="train", wrong=()):
    """A record whose image shows one colour; said: the colours of its captions."""
    return {
        "id": name,
        "identity": name,
        "split": split,
        "prompt": f"a person in {shown}",
        "attributes": {"upper_colour": shown},
        "shown": shown,
        "captions": [f"a person in a {colour} coat" for colour in said],
        "caption_noise": [
            [["upper_colour", shown, colour]] if k in wrong else [] for k, colour in enumerate(said)
        ],
        "facts": {"shown": {}, "mentioned": [{"upper_colour": colour} for colour in said]},
    }


def make_run(root, records, stage="caption", after="denoise", size=3):
    """A workdir in which `stage` is finished and `after` comes next; writes the images."""
    for one in records:
        data = io.BytesIO()
        Image.new("RGB", (4, 8), COLOURS[one["shown"]]).save(data, "PNG")
        path = f"generate/images/{one['id']}.png"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data.getvalue())
        one["image"] = {"path": path, "sha256": files.sha256(data.getvalue())}
    shards, folder = manifest.split_shards(records, size), root / stage
    manifest.map_records(
        shards, folder, lambda rs: ([r] for r in rs), label="", shard_count=len(shards)
    )
    files.write_json_atomic(folder / COMMIT, {"outputs": manifest.shard_digests(folder)})
    return Workdir(root, order=(stage, after), chosen=(after,))


def _unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
