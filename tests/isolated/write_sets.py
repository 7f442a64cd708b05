"""Writes one data set in many forms by the field's own tools: PYTHON write_sets.py FOLDER.

Prints {form: what these tools read of it: [split, captions, identity, SHA-256 of the image]}.
"""

import ast
import hashlib
import io
import json
import pathlib
import sys

import datasets
import numpy as np
import pandas as pd
import webdataset
from PIL import Image

ROOT = pathlib.Path(sys.argv[1])
SPLITS = ("train", "test")


def photo(number):
    out = io.BytesIO()
    Image.fromarray(np.full((8, 4, 3), 40 * number, np.uint8)).save(out, "PNG")
    return out.getvalue()


def people(split):
    first = 0 if split == "train" else 3
    return [
        {
            "name": f"{number:04d}.png",
            "captions": [f'Zoë no. {number}, it\'s "red"', "someone – walks,\nslowly"],
            "identity": f"p{number // 2 + first}",
            "image": photo(number),
        }
        for number in range(first, first + 3)
    ]


def told(split, captions, identity, image):
    if isinstance(captions, str):  # a CSV has texts alone
        captions = ast.literal_eval(captions)
    return [split, list(captions), identity, hashlib.sha256(image).hexdigest()]


def write_imagefolder(name, save):
    """Images in folders of splits, each with a table that pandas saves; read by `datasets`."""
    for split in SPLITS:
        folder = ROOT / name / split
        folder.mkdir(parents=True)
        rows = people(split)
        for row in rows:
            (folder / row["name"]).write_bytes(row.pop("image"))
        save(pd.DataFrame(rows).rename(columns={"name": "file_name"}), folder)
    read = datasets.load_dataset(
        "imagefolder", data_dir=str(ROOT / name), cache_dir=str(ROOT.parent / "cache")
    ).cast_column("image", datasets.Image(decode=False))
    found = []
    for split, rows in read.items():
        for row in rows:
            image = pathlib.Path(row["image"]["path"]).read_bytes()
            found.append(told(split, row["captions"], row["identity"], image))
    return found


def write_csv_of_lists():
    """One table whose cells hold lists, as pandas writes Python's and NumPy's."""
    folder = ROOT / "csv_of_lists"
    folder.mkdir()
    rows = [row | {"split": split} for split in SPLITS for row in people(split)]
    for number, row in enumerate(rows):
        (folder / row["name"]).write_bytes(row["image"])
        row["caption"] = (list, tuple, np.array)[number % 3](row.pop("captions"))
    table = pd.DataFrame(rows).drop(columns="image").rename(columns={"name": "file_path"})
    table.to_csv(folder / "captions.csv", index=False)


def write_parquet():
    """Images inside of parquet files, as a data set on the hub has them."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "captions": datasets.List(datasets.Value("string")),
            "identity": datasets.Value("string"),
        }
    )
    found = []
    for split in SPLITS:
        rows = [
            {"image": {"bytes": row["image"], "path": row["name"]}}
            | {key: row[key] for key in ("captions", "identity")}
            for row in people(split)
        ]
        table = datasets.Dataset.from_list(rows, features=features)
        file = ROOT / "parquet" / "data" / f"{split}-00000-of-00001.parquet"
        table.to_parquet(str(file), batch_size=2)
        read = datasets.Dataset.from_parquet(str(file), cache_dir=str(ROOT.parent / "cache"))
        for row in read.cast_column("image", datasets.Image(decode=False)):
            image = row["image"]["bytes"]
            found.append(told(split, row["captions"], row["identity"], image))
    return found


def write_webdataset():
    found = []
    for split in SPLITS:
        folder = ROOT / "webdataset" / split
        folder.mkdir(parents=True)
        with webdataset.ShardWriter(f"{folder}/%05d.tar", maxcount=2, verbose=0) as shards:
            for row in people(split):
                key = row.pop("name").removesuffix(".png")
                image = row.pop("image")
                shards.write({"__key__": key, "png": image, "json": row, "txt": row["captions"][0]})
        for shard in sorted(folder.glob("*.tar")):
            for one in webdataset.WebDataset(str(shard), shardshuffle=False, empty_check=False):
                facts = json.loads(one["json"])
                found.append(told(split, facts["captions"], facts["identity"], one["png"]))
    return found


SAVE = {
    "csv": lambda table, folder: table.to_csv(folder / "metadata.csv", index=False),
    "jsonl": lambda table, folder: table.to_json(
        folder / "metadata.jsonl", orient="records", lines=True
    ),
    "parquet_table": lambda table, folder: table.to_parquet(folder / "metadata.parquet"),
}
FOUND = {name: write_imagefolder(name, save) for name, save in SAVE.items()}
FOUND |= {"parquet": write_parquet(), "webdataset": write_webdataset()}
write_csv_of_lists()
json.dump(FOUND | {"csv_of_lists": FOUND["csv"]}, sys.stdout)
