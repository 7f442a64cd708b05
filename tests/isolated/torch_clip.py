"""Run by another Python, one with torch: what transformers' CLIPModel makes of a folder.

torch_clip.py FOLDER INPUTS.npz OUT.npz: images uint8 [B, H, W, 3] and captions in, features out.
"""

import sys

import numpy as np
import torch
import transformers


def main(folder, inputs, out):
    given = np.load(inputs)
    model = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    words = transformers.AutoTokenizer.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)
    pixels = processor(images=list(given["images"]), return_tensors="pt")
    captions = [str(caption) for caption in given["captions"]]
    length = model.config.text_config.max_position_embeddings
    ids = words(
        captions, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        image = model.get_image_features(**pixels)
        # Causal attention needs no mask for the padding, and training had none.
        text = model.get_text_features(input_ids=ids["input_ids"])
    np.savez(
        out,
        image=image.numpy(),
        text=text.numpy(),
        ids=ids["input_ids"].numpy(),
        logit_scale=model.logit_scale.detach().numpy(),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
