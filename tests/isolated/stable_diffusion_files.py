"""Run by another Python, one with torch: files of Stable Diffusion as today's tools write them.

stable_diffusion_files.py single FILE CONFIGS OUT: OUT is what diffusers makes of a single file.
stable_diffusion_files.py learn FOLDER OUT: OUT is the model with learned tokens.
stable_diffusion_files.py run FOLDER INPUTS.npz RESULTS.npz: what a pipeline has of a prompt.
stable_diffusion_files.py open FOLDER: that the pipelines that look at a version open it.
stable_diffusion_files.py make-instruct FOLDER OUT: OUT is the model as an InstructPix2Pix.
stable_diffusion_files.py instruct FOLDER INPUTS.npz RESULTS.npz: edits by an InstructPix2Pix.
"""

import sys

import diffusers
import numpy as np
import PIL.Image
import torch

LEARNED = (("<s0>", 1), ("<s1>", 2), ("My-Style", 1))  # how many vectors each


def single(file, configs, out):
    opened = diffusers.StableDiffusionPipeline.from_single_file(
        file, config=configs, local_files_only=True
    )
    opened.save_pretrained(out)


def learn(folder, out):
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    width = pipeline.text_encoder.config.hidden_size
    random = torch.Generator().manual_seed(0)
    for token, count in LEARNED:
        vectors = torch.randn(count, width, generator=random)
        pipeline.load_textual_inversion({token: vectors}, token=token)
    pipeline.save_pretrained(out)


def run(folder, inputs, out):
    given = np.load(inputs)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    prompts = [
        pipeline.maybe_convert_prompt(str(one), pipeline.tokenizer) for one in given["prompts"]
    ]
    words = pipeline.tokenizer(
        prompts, padding="max_length", truncation=True, max_length=77, return_tensors="pt"
    )
    latents = torch.tensor(given["latents"].transpose(0, 3, 1, 2))
    with torch.no_grad():
        text = pipeline.text_encoder(words.input_ids).last_hidden_state
        found = {
            "text": text,
            "predicted": pipeline.unet(latents, 500, text).sample.permute(0, 2, 3, 1),
            "decoded": pipeline.vae.decode(latents).sample.permute(0, 2, 3, 1),
        }
    arrays = {name: array.numpy() for name, array in found.items()}
    np.savez(out, ids=words.input_ids.numpy(), **arrays)


def open_all(folder):
    for kind in (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "AutoPipelineForInpainting",
    ):
        getattr(diffusers, kind).from_pretrained(folder)


def make_instruct(folder, out):
    base = diffusers.StableDiffusionPipeline.from_pretrained(folder)
    torch.manual_seed(0)
    pipeline = diffusers.StableDiffusionInstructPix2PixPipeline(
        vae=base.vae,
        text_encoder=base.text_encoder,
        tokenizer=base.tokenizer,
        unet=diffusers.UNet2DConditionModel.from_config(base.unet.config, in_channels=8),
        scheduler=diffusers.EulerAncestralDiscreteScheduler.from_config(base.scheduler.config),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out)


def instruct(folder, inputs, out):
    given = np.load(inputs)
    pipeline = diffusers.StableDiffusionInstructPix2PixPipeline.from_pretrained(folder)
    noise = iter(torch.tensor(given["noise"].transpose(0, 1, 4, 2, 3)))
    # The noise of a step comes from a generator that others do not have.
    steps = sys.modules[type(pipeline.scheduler).__module__]
    steps.randn_tensor = lambda *_, **__: next(noise)
    images = pipeline(
        [str(one) for one in given["prompts"]],
        image=[PIL.Image.fromarray(one) for one in given["images"]],
        latents=torch.tensor(given["latents"].transpose(0, 3, 1, 2)),
        num_inference_steps=len(given["noise"]),
        guidance_scale=float(given["guidance_scale"]),
        image_guidance_scale=float(given["image_guidance_scale"]),
        output_type="np",
    ).images
    np.savez(out, images=images)


if __name__ == "__main__":
    commands = {"single": single, "learn": learn, "run": run, "open": open_all}
    commands |= {"make-instruct": make_instruct, "instruct": instruct}
    commands[sys.argv[1]](*sys.argv[2:])
