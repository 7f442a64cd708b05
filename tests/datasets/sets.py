"""Built sets for tests: from a folder of the field's formats, or from a manifest."""

import contextlib
import io
import json
import pathlib
from collections.abc import Iterator

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from jaxtbpr.core import files, options
from jaxtbpr.core.manifest import shard_digests
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets import build
from tests.datasets.folders import Folder, make_folder


def make_config(seed: int = 0, **values) -> ConfigDict:
    """Returns what the pipeline hands to stage build; it works in this process."""
    config = ConfigDict({"seed": seed, "build": options.default_config(build.OPTIONS)})
    config.build.processes = 1
    config.build.update(values)
    return config


def make_workdir(root: pathlib.Path) -> Workdir:
    return Workdir(root, order=("caption",), chosen=("build",))


def build_folder(root: pathlib.Path, form: str = "cuhk_pedes", **options) -> tuple[Folder, dict]:
    """Writes a folder of a format and builds it as set "real" in `root`/run."""
    folder = make_folder(root, form, **options)
    config = make_config(folders={"real": str(folder.path)})
    return folder, build.run(config, make_workdir(root / "run"))


def photo_bytes(seed: int, size: tuple[int, int] = (32, 16)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def write_manifest(root: pathlib.Path, people: int = 6, images: int = 2) -> list[dict]:
    """Commits a stage "caption" with images; returns its records."""
    records = []
    for person in range(people):
        for k in range(images):
            path = f"generate/images/{person:04d}-{k}.png"
            data = photo_bytes(100 * person + k)
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
            image = {"path": path, "sha256": files.sha256(data), "height": 32, "width": 16}
            records.append(
                {
                    "id": f"{person:08d}" + (f"-{k}" if k else ""),
                    "identity": f"{person:08d}",
                    "split": ("train", "train", "val", "test")[person % 4],
                    "prompt": f"person {person}, café 人",
                    "attributes": {"hair": "long"},
                    "seed": 0,
                    "source": "render",
                    "edits": ["background"] if k else [],
                    "image": image,
                    "captions": [f"a person no. {person} in a naïve coat", "someone 人 walks"],
                }
            )
    commit_manifest(root, records)
    return records


def commit_manifest(root: pathlib.Path, records: list[dict]) -> None:
    """Writes `records` as the finished stage "caption"."""
    directory = root / "caption"
    directory.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (directory / "records-00000-of-00001.jsonl").write_text(lines)
    files.write_json_atomic(directory / "commit.json", {"outputs": shard_digests(directory)})


def all_files(directory: pathlib.Path) -> dict[str, bytes]:
    """Returns {path below `directory`: bytes}."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def closing_all(*loaders) -> Iterator[None]:
    """Ends the worker processes of `loaders` whatever happens."""
    try:
        yield
    finally:
        for one in loaders:
            one.close()
