"""Small folders in exactly the forms in which the field's data sets are shipped.

`make_folder(tmp_path, "cuhk_pedes")` writes one and returns what a correct reader must find in it.
All people, captions and pixels are made up.
"""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Callable

import numpy as np
from PIL import Image

MISSING, CORRUPT, TRUNCATED = "missing", "corrupt", "truncated"
EMPTY, FOLDER, HUGE = "empty", "a folder", "huge"
# Every fault of an image file and what is said of it behind "the image".
FAULTS = {
    MISSING: "cannot be read (No such file or directory)",
    FOLDER: "cannot be read (Is a directory)",
    EMPTY: "is not in a known image format (0 bytes)",
    CORRUPT: "is not in a known image format (16 bytes)",
    TRUNCATED: "cannot be decoded (",
    HUGE: "is too large (Image size (400000000 pixels) exceeds limit",
}


@dataclasses.dataclass
class Photo:
    """One image of a folder: its name there, who is on it, its captions and what is wrong."""

    name: str
    identity: str
    split: str
    captions: tuple[str, ...]
    fault: str = ""


@dataclasses.dataclass
class Folder:
    """A folder that was written: its path, where its images lie, and what is in it."""

    path: pathlib.Path
    images: pathlib.Path
    photos: list[Photo]

    def image(self, photo: Photo) -> pathlib.Path:
        return self.images / photo.name

    def split(self, split: str) -> list[Photo]:
        return [photo for photo in self.photos if photo.split == split]


COLOURS = ("red", "blue", "green", "black", "white", "yellow", "purple", "brown")
GARMENTS = ("coat", "shirt", "dress", "jacket", "vest", "hoodie")


def caption(number: int, person: int) -> str:
    """Returns a sentence that no other (number, person) has."""
    colour, other = COLOURS[person % 8], COLOURS[(person // 8 + 3) % 8]
    garment = GARMENTS[person % 6]
    bag = ("backpack", "handbag", "suitcase", "umbrella")[number % 4]
    return f"Person {person} wears a {colour} {garment}, {other} shoes and has {bag} no. {number}."


def encoded_image(seed: int, suffix: str = ".jpg", height: int = 24, width: int = 12) -> bytes:
    """Returns a small JPEG or PNG of noise on one colour."""
    noise = np.random.Generator(np.random.Philox(seed))
    pixels = noise.integers(0, 60, (height, width, 3)) + noise.integers(0, 190, (1, 1, 3))
    out = io.BytesIO()
    kind = "PNG" if suffix == ".png" else "JPEG"
    Image.fromarray(pixels.astype(np.uint8)).save(out, kind)
    return out.getvalue()


def _saved(pixels: np.ndarray, kind: str, **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def turned_bytes(seed: int) -> bytes:
    """Returns a JPEG that is stored lying (24 high, 12 wide) and whose EXIF says how to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(encoded_image(seed))) as image:
        return _saved(np.asarray(image), "JPEG", exif=exif)


def deep_bytes(seed: int) -> bytes:
    """Returns a grey PNG of 16 bits."""
    levels = np.random.default_rng(seed).integers(0, 65536, (24, 12))
    return _saved(levels.astype(np.uint16), "PNG")


def blank_bytes() -> bytes:
    """Returns a JPEG of one grey."""
    return _saved(np.full((24, 12, 3), 128, np.uint8), "JPEG")


def transparent_bytes(seed: int) -> bytes:
    """Returns a PNG whose upper half is transparent."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 12, 4), np.uint8)
    pixels[:, :, 3] = np.where(np.arange(24) < 12, 0, 255)[:, None]
    return _saved(pixels, "PNG")


def write_image(path: pathlib.Path, seed: int, fault: str = "") -> None:
    """Writes an image file, or one with a fault."""
    data = encoded_image(seed, path.suffix.lower())
    path.parent.mkdir(parents=True, exist_ok=True)
    if fault == MISSING:
        return
    if fault == FOLDER:
        path.mkdir()
        return
    if fault == EMPTY:
        data = b""
    if fault == HUGE:
        data = b"P6 20000 20000 255\n"  # the header of a PPM
    if fault == CORRUPT:
        data = b"this is no image"
    if fault == TRUNCATED:
        data = data[: len(data) // 2]
    path.write_bytes(data)


def write_json(path: pathlib.Path, value, *, bom: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False)
    path.write_text(text, encoding="utf-8-sig" if bom else "utf-8")


def make_folder(
    tmp_path: pathlib.Path,
    form: str,
    *,
    faults: bool = False,
    people: int = 3,
    images: int = 2,
    captions: int = 2,
    name: str | None = None,
) -> Folder:
    """Writes a folder of `form` (a key of `FORMS`) with `people` a split below `tmp_path`.

    faults: one missing, one corrupt and one truncated image, all in train.
    images: a person's; captions: an image's, where the form allows a choice. name: the folder's.
    """
    path = tmp_path / (name or form)
    path.mkdir(parents=True, exist_ok=True)
    root, photos = FORMS[form](path, people, images, captions)
    if faults:
        for photo, fault in zip(photos, (MISSING, CORRUPT, TRUNCATED), strict=False):
            photo.fault = fault
    for seed, photo in enumerate(photos):
        write_image(root / photo.name, seed, photo.fault)
    return Folder(path, root, photos)


def _photos(
    ids: dict[str, list], names: Callable[[int, int], str], images: int, captions: int
) -> list[Photo]:
    """Returns the images of the people `ids` (split -> identities); names(identity, number)."""
    photos = []
    for split, people in ids.items():
        for person in people:
            for number in range(images):
                texts = tuple(caption(number * 10 + k, person) for k in range(captions))
                photos.append(Photo(names(person, number), str(person), split, texts))
    return photos


def _cuhk_ids(people: int) -> dict[str, list[int]]:
    # 1-based and, as in a subset, not contiguous.
    return {
        "train": [1 + 7 * k for k in range(people)],
        "val": [11004 + 5 * k for k in range(people)],
        "test": [12004 + 3 * k for k in range(people)],
    }


def _cuhk_name(person: int, number: int) -> str:
    places = ("cam_a", "CUHK01", "Market", "train_query", "test_query")
    names = ("{:05d}_{}.jpg", "{:05d} copy {}.png", "{:05d}_rück_{}.jpg", "{:05d}_\u4eba_{}.png")
    return f"{places[person % 5]}/" + names[(person + number) % 4].format(person, number)


def _record(photo: Photo, key: str = "file_path", *, split: bool = True) -> dict:
    identity = int(photo.identity) if photo.identity.isdecimal() else photo.identity
    record = {"split": photo.split} if split else {}
    tokens = [text.lower().rstrip(".").split() for text in photo.captions]
    return record | {
        "captions": list(photo.captions),
        key: photo.name,
        "processed_tokens": tokens,
        "id": identity,
    }


def _cuhk(path: pathlib.Path, people: int, images: int, captions: int):
    photos = _photos(_cuhk_ids(people), _cuhk_name, images, captions)
    write_json(path / "reid_raw.json", [_record(photo) for photo in photos])
    return path / "imgs", photos


def _cuhk_caption_all(path: pathlib.Path, people: int, images: int, captions: int):
    photos = _photos(_cuhk_ids(people), _cuhk_name, images, captions)
    keys = ("id", "file_path", "captions")
    records = [{key: _record(photo)[key] for key in keys} for photo in photos]
    write_json(path / "caption_all.json", records, bom=True)
    return path / "imgs", photos


def _icfg_name(person: int, number: int) -> str:
    # MSMT17's folders are not the split: test people lie in train/ too.
    return f"train/{person:04d}/{person:04d}_{number:03d}_05_0303morning_0012_{number}.jpg"


def _icfg(json_name: str):
    def write(path: pathlib.Path, people: int, images: int, captions: int):
        ids = {"train": [4 * k for k in range(people)], "test": [3102 + k for k in range(people)]}
        photos = _photos(ids, _icfg_name, images, 1)
        write_json(path / json_name, [_record(photo) for photo in photos])
        return path / "imgs", photos

    return write


def _rstp(path: pathlib.Path, people: int, images: int, captions: int):
    ids = {
        "train": [2 * k for k in range(people)],
        "val": [3701 + k for k in range(people)],
        "test": [3901 + k for k in range(people)],
    }
    photos = _photos(ids, lambda p, n: f"{p:04d}_c{n + 1}_{n:04d}.jpg", images, captions)
    keys = ("id", "img_path", "captions", "split")
    records = [{key: _record(photo, "img_path")[key] for key in keys} for photo in photos]
    write_json(path / "data_captions.json", records)
    return path / "imgs", photos


def _rasa(path: pathlib.Path, people: int, images: int, captions: int):
    photos = _photos(_cuhk_ids(people), _cuhk_name, images, captions)
    for split in ("train", "val", "test"):
        some = [_record(photo, split=False) for photo in photos if photo.split == split]
        write_json(path / "processed_data" / f"{split}.json", some)
    return path / "imgs", photos


def _tbps_clip(path: pathlib.Path, people: int, images: int, captions: int):
    ids = {split: some for split, some in _cuhk_ids(people).items() if split != "val"}
    photos = _photos(ids, _cuhk_name, images, captions)
    for split in ids:
        some = [photo for photo in photos if photo.split == split]
        records = [_record(photo, split=False) for photo in some]
        for record in records[::2]:  # back-translated captions are optional
            record["captions_bt"] = [f"Back: {text}" for text in record["captions"]]
        write_json(path / f"{split}_reid.json", records)
    return path / "imgs", photos


def _alone(names: list[str], captions: int, first: int = 0) -> list[Photo]:
    """Returns train images that each show a person of their own."""
    return [
        Photo(name, f"image:{name}", "train", tuple(caption(j, k) for j in range(captions)))
        for k, name in enumerate(names, first)
    ]


def _mals(path: pathlib.Path, people: int, images: int, captions: int):
    parts = ("4x", "c_g_a_0", "i_g_a_12")
    photos = []
    for part in parts:
        names = [f"gene_crop/{part}/{k}.jpg" for k in range(people * images)]
        some = _alone(names, 1, first=len(photos))
        photos += some
        records = [
            {
                "image": photo.name,
                # A list is as good as a string.
                "caption": list(photo.captions) if k % 2 else photo.captions[0],
                "image_id": f"{part}_{k}",
                "label": [1, 0, -1] * 9,
            }
            for k, photo in enumerate(some)
        ]
        name = "g_4x_attrs" if part == "4x" else f"g_{part[0]}_g_a_{part[6:]}_attrs"
        write_json(path / "gene_attrs" / f"{name}.json", records)
    return path, photos


def _aptm(path: pathlib.Path, people: int, images: int, captions: int):
    photos = _photos(_cuhk_ids(people), _cuhk_name, images, captions)
    for split in ("train", "val", "test"):
        some = [photo for photo in photos if photo.split == split]
        records = []
        for photo in some:
            base = {"image": photo.name, "image_id": int(photo.identity)}
            if split == "train":
                records += [base | {"caption": text} for text in photo.captions]
            else:
                records.append(base | {"caption": list(photo.captions)})
        write_json(path / f"cuhk_{split}.json", records)
    return path / "imgs", photos


def _luperson_mllm(path: pathlib.Path, people: int, images: int, captions: int):
    names = [f"{k:06d}.jpg" for k in range(people * images)]
    photos = _alone(names, 4)
    for j, file in enumerate(("Ts-qwen", "Td-qwen", "Ts-shikra", "Td-shikra")):
        pairs = {
            f"part{1 + k % 4}/{photo.name}": photo.captions[j] for k, photo in enumerate(photos)
        }
        write_json(path / "caption" / f"{file}.json", pairs)
    for photo in photos:  # files are read in the order of their names
        d_qwen, d_shikra, s_qwen, s_shikra = (photo.captions[j] for j in (1, 3, 0, 2))
        photo.captions = (d_qwen, d_shikra, s_qwen, s_shikra)
    return path / "LUPerson-MLLM", photos


def _synth_pedes(path: pathlib.Path, people: int, images: int, captions: int):
    ids = {"train": [3 * k for k in range(people)]}
    photos = _photos(ids, lambda p, n: f"Part{1 + p % 11}/{p}/{n}.jpg", images, 3)
    records = [
        _record(photo, split=False)
        | {"attributes": ["woman,brown hair"], "prompt_caption": ["A woman with brown hair."]}
        for photo in photos
    ]
    write_json(path / "synthpedes_dataset.json", records)
    return path, photos


def _sda(path: pathlib.Path, people: int, images: int, captions: int):
    photos = _alone([f"c_0_5000/{k}_1.jpg" for k in range(people * images)], 1)
    records = [
        {
            "image": photo.name,
            "caption": photo.captions[0],
            "image_id": k,
            "phrases": ["a man"],
            "boxes": [[0.5, 0.5, 0.2, 0.4]],
            "logits": [0.7],
        }
        for k, photo in enumerate(photos)
    ]
    write_json(path / "annotation.json", records)
    return path, photos


def _ufine(path: pathlib.Path, people: int, images: int, captions: int):
    photos = _photos(_cuhk_ids(people), lambda p, n: f"person {p}/{n}.jpg", images, captions)
    records = [_record(photo) | {"source": "video"} for photo in photos]
    write_json(path / "annotations.json", records)
    return path, photos


def _syntbpr_images(path: pathlib.Path, people: int, images: int, captions: int):
    photos = [
        Photo(f"images_{k}_{k * 977 + 5}_base.png", str(k), "train", (caption(0, k),))
        for k in range(people * images)
    ]
    records = [
        # The scripts write the path as it was on the machine that generated.
        {"id": k, "image_path": f"/data/ann/out/{photo.name}", "caption": photo.captions[0]}
        for k, photo in enumerate(photos)
    ]
    write_json(path / "t2i.json", records)
    return path / "images", photos


def _syntbpr_edit_input(path: pathlib.Path, people: int, images: int, captions: int):
    photos = [
        Photo(f"images_{k}_{k * 977 + 5}_base.jpg", str(k), "train", (caption(0, k),))
        for k in range(0, 3 * people, 3)
    ]
    keys = ("id", "file_path", "captions")
    write_json(path / "anno.json", [{key: _record(photo)[key] for key in keys} for photo in photos])
    return path, photos


def _syntbpr_captions(path: pathlib.Path, people: int, images: int, captions: int):
    photos = []
    for person in range(people):
        number = 40 + person
        names = [f"images_{number}_918273_base.png"]
        names += [f"images_{number}_{55 + k}_{k}.jpg" for k in range(1, images + 1)]
        photos += [
            Photo(name, str(number), "train", (caption(k, person),)) for k, name in enumerate(names)
        ]
    # Edits of a picture that was called otherwise, and two pictures that only look like edits.
    named = ("0017_c1.png", "0017_c1_1.png", "0017_c1_2.png", "person_1.png", "person_2.png")
    owners = ("0017_c1",) * 3 + ("person_1", "person_2")
    for k, (name, owner) in enumerate(zip(named, owners, strict=True)):
        photos.append(Photo(name, f"image:{owner}", "train", (caption(k, 90 + k),)))
    records = [
        {
            "image_path": f"/data/ann/augmented/{photo.name}",
            "captions": list(photo.captions),
            "MiniCPM_question": "Describe the person.",
            "split": "train",
        }
        for photo in photos
    ]
    write_json(path / "captions.json", records)
    return path / "imgs", photos


def _own_photos(people: int, images: int, captions: int) -> list[Photo]:
    ids = {"train": list(range(people)), "test": [100 + k for k in range(people)]}
    photos = _photos(ids, lambda p, n: f"my photos/{p} – Zoë {n}.jpg", images, captions)
    for photo in photos[::3]:
        photo.identity = f"image:{photo.name}"  # unlabelled
    for photo in photos[1::3]:
        photo.identity = f"person-{photo.identity}"
    return photos


def _unique_identity(photo: Photo) -> str:
    return "" if photo.identity.startswith("image:") else photo.identity


def _csv(path: pathlib.Path, people: int, images: int, captions: int):
    photos = _own_photos(people, images, captions)
    with (path / "captions.csv").open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption", "id", "split"])
        for photo in photos:
            for text in photo.captions:
                table.writerow([photo.name, text, _unique_identity(photo), photo.split])
    return path, photos


def _jsonl(path: pathlib.Path, people: int, images: int, captions: int):
    photos = _own_photos(people, images, captions)
    for split in ("train", "test"):
        lines = []
        for photo in photos:
            row = {"file_path": photo.name, "captions": list(photo.captions)}
            if _unique_identity(photo):
                row["identity"] = photo.identity
            lines += [json.dumps(row, ensure_ascii=False)] if photo.split == split else []
        (path / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path / "images", photos


def _web_person(path: pathlib.Path, people: int, images: int, captions: int):
    photos = _alone([f"00001/{k:09d}.jpg" for k in range(people * images)], 2)
    with (path / "webperson.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["image_path", "caption1", "caption2"])
        table.writerows([photo.name, *photo.captions] for photo in photos)
    return path / "imgs", photos


FORMS = {
    "cuhk_pedes": _cuhk,
    "cuhk_caption_all": _cuhk_caption_all,
    "icfg_pedes": _icfg("ICFG-PEDES.json"),
    "icfg_pedes_underscore": _icfg("ICFG_PEDES.json"),
    "rstpreid": _rstp,
    "rasa": _rasa,
    "tbps_clip": _tbps_clip,
    "mals": _mals,
    "aptm": _aptm,
    "luperson_mllm": _luperson_mllm,
    "synth_pedes": _synth_pedes,
    "sda": _sda,
    "ufine": _ufine,
    "syntbpr_images": _syntbpr_images,
    "syntbpr_edit_input": _syntbpr_edit_input,
    "syntbpr_captions": _syntbpr_captions,
    "csv": _csv,
    "jsonl": _jsonl,
    "web_person": _web_person,
}
