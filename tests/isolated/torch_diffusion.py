"""Run by another Python, one with torch: what PyTorch's diffusers makes of a folder.

torch_diffusion.py FOLDER INPUTS.npz OUT.npz: prompts, latents and an image in, NHWC as ours are.
"""

import sys

import diffusers
import numpy as np
import torch


def channels(x, first):
    return x.transpose(0, 3, 1, 2) if first else x.transpose(0, 2, 3, 1)


def main(folder, inputs, out):
    given = np.load(inputs)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    tensor = {key: torch.tensor(channels(given[key], True)) for key in ("latents", "image", "z")}
    words = pipeline.tokenizer(
        [str(prompt) for prompt in given["prompts"]],
        padding="max_length",
        truncation=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        text = pipeline.text_encoder(words.input_ids).last_hidden_state
        predicted = pipeline.unet(tensor["latents"], torch.tensor(given["steps"]), text).sample
        moments = pipeline.vae.encode(tensor["image"]).latent_dist
        decoded = pipeline.vae.decode(tensor["z"]).sample
    images = {"predicted": predicted, "mean": moments.mean, "decoded": decoded}
    np.savez(
        out,
        ids=words.input_ids.numpy(),
        text=text.numpy(),
        prediction_type=pipeline.scheduler.config.prediction_type,
        **{key: channels(x.numpy(), False) for key, x in images.items()},
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
