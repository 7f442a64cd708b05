"""Run by another Python, one with torch: what transformers makes of folders, by its own calls.

torch_clip.py IN OUT: IN/given.npz holds images uint8 [B, H, W, 3] and captions [B]; each other
entry of IN is a folder. Writes OUT/NAME.npz, and OUT/NAME, the folder as transformers saves it.
"""

import pathlib
import sys

import numpy as np
import torch
import transformers
from PIL import Image


def main(given, out):
    inputs = np.load(given / "given.npz")
    images = [Image.fromarray(image) for image in inputs["images"]]
    captions = [str(caption) for caption in inputs["captions"]]
    for folder in sorted(path for path in given.iterdir() if path.is_dir()):
        np.savez(out / f"{folder.name}.npz", **features(folder, images, captions))
        save_again(folder, out / folder.name, images, captions)


def features(folder, images, captions):
    """What model(**processor(...)) and the pipeline give."""
    model = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    processor = transformers.CLIPProcessor.from_pretrained(folder)
    batch = processor(text=captions, images=images, return_tensors="pt", padding=True)
    with torch.no_grad():
        found = model(**batch)
    ask = transformers.pipeline(
        "zero-shot-image-classification", model=str(folder), dtype=torch.float32
    )
    scores = {
        row["label"]: row["score"]
        for row in ask(images[0], candidate_labels=captions, hypothesis_template="{}")
    }
    return {
        "image": found.image_embeds.numpy(),
        "text": found.text_embeds.numpy(),
        "ids": batch["input_ids"].numpy(),
        "logit_scale": model.logit_scale.detach().numpy(),
        "scores": [scores[caption] for caption in captions],
    }


def save_again(folder, out, images, captions):
    """Saves what was loaded, after a use that leaves padding and truncation in the tokenizer."""
    model = transformers.CLIPModel.from_pretrained(folder)
    processor = transformers.CLIPProcessor.from_pretrained(folder)
    limits = {"padding": "max_length", "max_length": 6, "truncation": True}
    processor(text=captions, images=images, return_tensors="pt", **limits)
    model.save_pretrained(out)
    processor.save_pretrained(out)


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
