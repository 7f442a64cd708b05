"""Reads exports as their users do: PYTHON read_export.py IMAGEFOLDER WEBDATASET; prints JSON."""

import hashlib
import json
import pathlib
import sys

import datasets
import webdataset

folder, tars = map(pathlib.Path, sys.argv[1:])
cache = str(folder.parent / "cache")
splits = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=cache)
rows = {
    split: [
        [row["image_id"], row["captions"], row["identity"], list(row["image"].size)] for row in one
    ]
    for split, one in splits.items()
}
samples = {}
for path in sorted(tars.glob("*.tar")):
    split = path.name.partition("-")[0]
    for sample in webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False):
        facts = json.loads(sample["json"])
        (image,) = (sample[key] for key in ("jpg", "png") if key in sample)
        digest, text = hashlib.sha256(image).hexdigest(), sample["txt"].decode()
        samples.setdefault(split, []).append(
            [
                facts["image_id"],
                facts["captions"],
                facts["identity"],
                sample["txt"].decode(),
                digest,
            ]
        )
json.dump({"imagefolder": rows, "webdataset": samples}, sys.stdout)
