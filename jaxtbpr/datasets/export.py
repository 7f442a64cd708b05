"""Command: writes a built set in formats that other tools read.

  jaxtbpr export-data --data=WORKDIR/build/NAME --format=reid_json --out=FOLDER

reid_json: reid_raw.json beside imgs/, as CUHK-PEDES, which IRRA, RDE and TBPS-CLIP read.
imagefolder: a folder per split with metadata.jsonl, as Hugging Face's `datasets` reads it.
webdataset: SPLIT-NNNNNN.tar of KEY.jpg, KEY.txt (the first caption) and KEY.json, as `webdataset`,
open_clip and `datasets` read it.

Images keep their bytes, but for those that other tools show differently (turned by EXIF, more than
8 bits) or do not read (AVIF, JPEG 2000, ...): these become PNG. FOLDER appears when it is
complete; a killed export starts over.
"""

import io
import itertools
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags
from etils import epath

from jaxtbpr.core import command, files, images
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.progress import progress, say
from jaxtbpr.datasets import own_outputs
from jaxtbpr.datasets.source import SPLITS, RetrievalSet, find_built, list_splits

# Formats that every tool reads; a phone's MPO begins with the JPEG that it shows.
_ENDINGS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}
_ENDINGS |= {"BMP": "bmp", "GIF": "gif", "TIFF": "tiff"}
_TAR_IMAGES = 1000  # images of a .tar
_WORDS = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")

Item = tuple[str, bytes, dict[str, Any]]  # name of the image's file, its bytes, what is known of it


def export(data: epath.PathLike, out: epath.PathLike, kind: str) -> dict[str, int]:
    """Writes the built set in `data` (see `find_built`) to the new folder `out`.

    kind: of `WRITERS`. Returns {split: number of images}. Raises UserError where `data` is not a
    built set, or where `out` exists.
    """
    data, out = epath.Path(data).expanduser(), epath.Path(out).expanduser()
    built = find_built(data)
    if built is None:
        raise UserError(
            f"--data={data} is not a built set; give WORKDIR/build/NAME of a run whose stage "
            "'build' is done."
        )
    if out.exists():
        raise UserError(f"--out={out} already exists; choose another folder, or delete it.")
    splits = {split: RetrievalSet(built, split) for split in list_splits(built)}
    part = out.parent / f".{out.name}.part"
    part.rmtree(missing_ok=True)
    part.mkdir(parents=True)
    changed: list[str] = []
    WRITERS[kind](splits, part, changed)
    files.write_json_atomic(part / own_outputs.EXPORT, {"format": kind})
    part.rename(out)
    if changed:
        such = f"{len(changed):,} ({', '.join(changed[:3])}{', ...' if len(changed) > 3 else ''})"
        say(f"export: images that other tools would show differently are written as PNG: {such}")
    return {split: len(one) for split, one in splits.items()}


def _items(split: str, one: RetrievalSet, changed: list[str]) -> Iterator[Item]:
    """Yields the images of a split, named by their number, so that no two have one name.

    Adds to `changed` the images whose bytes are not the original ones.
    """
    for i in progress(range(len(one)), total=len(one), label=f"export {split}"):
        record = one.record(i)
        ending, data = _portable(record["image"])
        if data != record["image"]:
            changed.append(record["image_id"])
        facts = {
            "captions": record["captions"],
            "identity": int(record["identity"]),
            "identity_name": record["identity_name"],
            "image_id": record["image_id"],
            "source": record["source"],
        }
        if "caption_weights" in record:
            facts["caption_weights"] = [float(weight) for weight in record["caption_weights"]]
        yield f"{i:08d}.{ending}", data, facts


def _portable(data: bytes) -> tuple[str, bytes]:
    """Returns an image as any tool reads it, and how such a file's name ends."""
    data = images.plain(data)
    form = images.format_of(data)
    if form in _ENDINGS:
        return _ENDINGS[form], data
    out = io.BytesIO()
    images.open_image(data).save(out, "PNG")
    return "png", out.getvalue()


def _write_reid_json(splits: dict[str, RetrievalSet], out: epath.Path, changed: list[str]) -> None:
    """Identities count from 1, those of train first and without a gap, as in CUHK-PEDES."""
    records = []
    for split, one in splits.items():
        (out / "imgs" / split).mkdir(parents=True)
        for name, data, facts in _items(split, one, changed):
            path = f"{split}/{name}"
            (out / "imgs" / path).write_bytes(data)
            words = [_WORDS.findall(caption.lower()) for caption in facts["captions"]]
            record = {"split": split, "captions": facts["captions"], "file_path": path}
            records.append(record | {"processed_tokens": words, "id": facts["identity"] + 1})
    files.write_text_atomic(out / "reid_raw.json", json.dumps(records, ensure_ascii=False))


def _write_imagefolder(
    splits: dict[str, RetrievalSet], out: epath.Path, changed: list[str]
) -> None:
    for split, one in splits.items():
        (out / split).mkdir()
        with (out / split / "metadata.jsonl").open("w") as table:
            for name, data, facts in _items(split, one, changed):
                (out / split / name).write_bytes(data)
                table.write(json.dumps({"file_name": name} | facts, ensure_ascii=False) + "\n")


def _write_webdataset(splits: dict[str, RetrievalSet], out: epath.Path, changed: list[str]) -> None:
    for split, one in splits.items():
        items = _items(split, one, changed)
        for number in range(-(-len(one) // _TAR_IMAGES)):
            with (
                (out / f"{split}-{number:06d}.tar").open("wb") as file,
                tarfile.open(fileobj=file, mode="w") as tar,
            ):
                for name, data, facts in itertools.islice(items, _TAR_IMAGES):
                    key = name.partition(".")[0]
                    _add(tar, name, data)
                    _add(tar, f"{key}.json", json.dumps(facts, ensure_ascii=False).encode())
                    _add(tar, f"{key}.txt", facts["captions"][0].encode())


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # no owner, time 0: the same bytes in every export
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


WRITERS: dict[str, Callable[[dict[str, RetrievalSet], epath.Path, list[str]], None]] = {
    "reid_json": _write_reid_json,
    "imagefolder": _write_imagefolder,
    "webdataset": _write_webdataset,
}


def main() -> None:
    """Runs `export` with the command's flags."""
    args = flags.FLAGS
    files.check_output(args.out, "--out", folder=True)
    counts = export(args.data, args.out, args.format)
    text = ", ".join(f"{split} {counts[split]:,}" for split in SPLITS if split in counts)
    say(f"export: {text} images as {args.format} in {args.out}")


def define_flags() -> None:
    """Declares the command's flags."""
    flags.DEFINE_string("data", None, "WORKDIR/build/NAME of a run")
    flags.DEFINE_string("out", None, "folder to write; it must not exist")
    flags.DEFINE_enum("format", "reid_json", tuple(WRITERS), "format of the files")
    command.require("data", "out")


COMMAND = "export-data", "export a built set for other tools"

if __name__ == "__main__":
    define_flags()
    command.run(main, "--data and --out")
