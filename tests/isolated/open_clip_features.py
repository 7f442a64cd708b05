"""Run by another Python, one with open_clip: what it makes of a folder, by its own calls.

open_clip_features.py FOLDER IN.npz OUT.npz: images uint8 [B, H, W, 3] and captions in.
"""

import os
import sys

import numpy as np
import torch
from PIL import Image

# torchvision's compiled part is for CUDA; what open_clip needs of it is Python, once two of its
# operators, which nobody calls, have a signature.
sys.path.append(os.path.join(sys.prefix, "torchvision"))
operators = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    operators.define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")

import open_clip  # noqa: E402


def main(folder, inputs, out):
    given, name = np.load(inputs), f"local-dir:{folder}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    words = open_clip.get_tokenizer(name)
    model.eval()
    ids = words([str(caption) for caption in given["captions"]])
    images = torch.stack([preprocess(Image.fromarray(image)) for image in given["images"]])
    with torch.no_grad():
        image, text = (
            model.encode_image(images, normalize=True),
            model.encode_text(ids, normalize=True),
        )
    scale = model.logit_scale.detach().numpy()
    np.savez(out, image=image, text=text, ids=ids, logit_scale=scale)


if __name__ == "__main__":
    main(*sys.argv[1:])
