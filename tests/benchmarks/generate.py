"""Text to images beside PyTorch diffusers' StableDiffusionPipeline, in one run.

    python tests/benchmarks/generate.py --torch=/path/to/python      # of an environment with torch
                                                                     # and diffusers
    python tests/benchmarks/generate.py --torch=... --shape=sd15 --batch=1 --steps=2
    python tests/benchmarks/generate.py --torch=... --model=/models/stable-diffusion-v1-5

Both sides read the same folder (random weights of a `--shape`, or `--model`) and make the same
number of images at once with the same sampler, steps and guidance, each in a process of its own,
one after the other; ours on each of its devices, which on a CPU are its cores where images are
small. On a GPU ours computes in bfloat16 and PyTorch in float16 with a compiled UNet, unless
--dtype says otherwise. Prints images a second, the time to compile, peak memory of host or device.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from sides import measure, peak_gib

PROMPT = "a woman in a red coat carrying a black backpack, seen from behind in the rain"
TOKENIZER = pathlib.Path(__file__).parents[1] / "data/reference/diffusion/sd1_tiny/tokenizer"
# (UNet, VAE, text encoder) of a shape: what differs from Stable Diffusion 1.5.
SHAPES = {
    "tiny": (
        {
            "sample_size": [16, 8], "block_out_channels": [64, 128], "attention_head_dim": 2,
            "layers_per_block": 1, "cross_attention_dim": 96, "norm_num_groups": 16,
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
        },
        {
            "block_out_channels": [16, 32, 48, 64], "layers_per_block": 1, "norm_num_groups": 8,
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
        },
        {"hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2,
         "num_attention_heads": 4, "vocab_size": 1000},
    ),
    "sd15": (
        {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
        {
            "block_out_channels": [128, 256, 512, 512], "layers_per_block": 2,
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
        },
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
         "num_attention_heads": 12, "vocab_size": 1000},
    ),
}  # fmt: skip


def main() -> None:
    options = parse()
    if options.side:
        run = run_torch if options.side == "torch" else run_jax
        print(json.dumps(run(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or make_model(options.shape, folder)
        found = {"jax": measure(__file__, sys.executable, "jax", f"--model={model}")}
        if options.torch:
            found["torch"] = measure(__file__, options.torch, "torch", f"--model={model}")
    for side, one in found.items():
        print(
            f"{side:6s} {one['rate']:8.3f} images/s   compiled in {one['compiling']:5.0f} s   "
            f"peak {one['peak']:6.2f} GiB   on {one['device']}"
        )
    if "torch" in found:
        rate, peak = (found["jax"][key] / found["torch"][key] for key in ("rate", "peak"))
        print(f"jax is {rate:.2f} of PyTorch's speed and has {peak:.2f} of its memory")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", help="the Python of an environment with torch and diffusers")
    parser.add_argument("--shape", default="tiny", choices=tuple(SHAPES))
    parser.add_argument("--model", help="a Diffusers folder, in place of random weights")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=25, help="sampling steps")
    parser.add_argument("--repeats", type=int, default=3, help="timed batches; the median counts")
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--height", type=int, default=0)
    parser.add_argument("--width", type=int, default=0)
    parser.add_argument("--dtype", default="", choices=("", "float32", "bfloat16", "float16"))
    parser.add_argument("--side", choices=("jax", "torch"), help=argparse.SUPPRESS)
    return parser.parse_args()


def make_model(shape: str, folder: str) -> str:
    """Writes a Diffusers folder with random weights, in a process that then gives memory back."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {sys.path[0]!r});"
               f"import generate; generate.write_model({shape!r}, {folder!r})"]  # fmt: skip
    subprocess.run(command, check=True)
    return folder


def write_model(shape: str, folder: str) -> None:
    import jax

    from jaxtbpr.diffusion import weights
    from jaxtbpr.diffusion.networks import Networks, make_sizes
    from jaxtbpr.diffusion.training import SCHEDULER

    unet, vae, text = SHAPES[shape]
    sizes = make_sizes(unet, vae, {"bos_token_id": 998, "eos_token_id": 999, **text})
    params = jax.device_get(jax.jit(Networks(sizes).init)(jax.random.key(0)))
    weights.save(folder, sizes, params, SCHEDULER, TOKENIZER)


def timed(make, options: argparse.Namespace) -> tuple[float, float]:
    """Returns (batches a second, seconds that the first call took longer). make: one batch."""
    seconds = []
    for _ in range(options.repeats + 1):
        began = time.monotonic()
        make()
        seconds.append(time.monotonic() - began)
    usual = statistics.median(seconds[1:])
    return 1 / usual, seconds[0] - usual


def run_jax(options: argparse.Namespace) -> dict:
    import jax

    from jaxtbpr.core import mesh
    from jaxtbpr.diffusion.checkpoint import open_checkpoint
    from jaxtbpr.diffusion.generator import Generator, Sampling

    mesh.split_cpu()
    device = jax.devices()[0]
    dtype = options.dtype or ("float32" if device.platform == "cpu" else "bfloat16")
    sampling = Sampling(
        sampler="ddim", steps=options.steps, guidance_scale=options.guidance, dtype=dtype,
        height=options.height, width=options.width,
    )  # fmt: skip
    generator = Generator(
        open_checkpoint(options.model, dtype), sampling, seed=0, batch_size=options.batch
    )
    records = [str(k) for k in range(generator.batch)]
    batches, compiling = timed(lambda: generator([PROMPT] * len(records), records).wait(), options)
    stats = device.memory_stats() or {}
    peak = stats["peak_bytes_in_use"] / 2**30 if stats else peak_gib()
    rate = batches * len(records)
    return {"rate": rate, "compiling": compiling, "peak": peak, "device": device.device_kind}


def run_torch(options: argparse.Namespace) -> dict:
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    cuda = torch.cuda.is_available()
    dtype = getattr(torch, options.dtype or ("float16" if cuda else "float32"))
    pipeline = StableDiffusionPipeline.from_pretrained(
        options.model, torch_dtype=dtype, safety_checker=None, feature_extractor=None
    )
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    pipeline = pipeline.to("cuda" if cuda else "cpu")
    if cuda:
        pipeline.unet.to(memory_format=torch.channels_last)
        pipeline.unet = torch.compile(pipeline.unet)
    side = pipeline.unet.config.sample_size
    sides = side if isinstance(side, (list, tuple)) else (88, 48) if side == 64 else (side, side)
    own = [one * pipeline.vae_scale_factor for one in sides]
    height, width = options.height or own[0], options.width or own[1]

    def make():
        pipeline(
            [PROMPT] * options.batch, num_inference_steps=options.steps, height=height,
            width=width, guidance_scale=options.guidance, output_type="np",
        )  # fmt: skip

    batches, compiling = timed(make, options)
    peak = torch.cuda.max_memory_allocated() / 2**30 if cuda else peak_gib()
    device = torch.cuda.get_device_name() if cuda else "cpu"
    rate = batches * options.batch
    return {"rate": rate, "compiling": compiling, "peak": peak, "device": device}


if __name__ == "__main__":
    main()
