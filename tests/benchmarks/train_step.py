"""One training step of CLIP ViT-B/16 beside the same step in PyTorch, in one run.

    python tests/benchmarks/train_step.py --torch=/path/to/python     # of an environment with
                                                                      # torch and transformers
Both sides train OpenAI's ViT-B/16 (random weights) with N-ITC over identities and AdamW on random
images and captions, each in a process of its own, one after the other. PyTorch runs eagerly, with
transformers' CLIPModel and its default attention. On a GPU: --batch=256 --dtype=bfloat16. Ours is
run twice: as it is, and with scan=True, remat="dots", which computes again what is cheap.
Prints samples a second, peak memory, floating-point operations of our step, and what share of the
machine's measured matrix product speed they reach.
"""

import argparse
import json
import statistics
import sys
import time

from sides import measure, peak_gib

VISION = {"width": 768, "layers": 12, "heads": 12}
TEXT = {"width": 512, "layers": 12, "heads": 8}
SIDES = {"jax": {}, "jax, remat": {"scan": True, "remat": "dots"}}  # fields of ClipConfig
SIDE, PATCH, LENGTH, VOCABULARY, EMBED = 224, 16, 77, 49408, 512


def main() -> None:
    options = parse()
    if options.side:
        run = run_torch if options.side == "torch" else run_jax
        print(json.dumps(run(options)))
        return
    found = {side: measure(__file__, sys.executable, side) for side in SIDES}
    if options.torch:
        found["torch"] = measure(__file__, options.torch, "torch")
    for side, one in found.items():
        print(
            f"{side:10s} {one['rate']:8.2f} samples/s   peak {one['peak']:6.2f} GiB   {one['note']}"
        )
    if "torch" in found:
        theirs = found["torch"]
        for side in SIDES:
            rate, peak = (found[side][key] / theirs[key] for key in ("rate", "peak"))
            print(f"{side:10s} {rate:8.2f} of PyTorch's speed   {peak:6.2f} of its memory")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch", help="the Python of an environment with torch and transformers")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5, help="timed steps; the median counts")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--side", choices=(*SIDES, "torch"), help=argparse.SUPPRESS)
    return parser.parse_args()


def timed(step, options: argparse.Namespace) -> float:
    """Returns samples a second; step: runs one step to its end. The first two are not counted."""
    seconds = []
    for _ in range(options.steps + 2):
        began = time.monotonic()
        step()
        seconds.append(time.monotonic() - began)
    return options.batch / statistics.median(seconds[2:])


def run_jax(options: argparse.Namespace) -> dict:
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxtbpr.core import mesh as meshes
    from jaxtbpr.retrieval.clip.model import SHARDING, Clip, ClipConfig
    from jaxtbpr.retrieval.clip.transformer import TowerConfig
    from jaxtbpr.retrieval.training import optimizer as optimizers
    from jaxtbpr.retrieval.training.step import StepConfig, compile_step, create_state

    config = ClipConfig(
        image_size=(SIDE, SIDE), patch_size=PATCH, stem="patch", vision=TowerConfig(**VISION),
        text=TowerConfig(**TEXT), text_length=LENGTH, vocab_size=VOCABULARY, embed_dim=EMBED,
        dtype=options.dtype, **SIDES[options.side],
    )  # fmt: skip
    mesh = meshes.make_mesh()
    step_config = StepConfig(Clip(config), optimizers.adamw(1e-5), mesh)
    shapes = meshes.place(lambda: create_state(jax.random.key(0), step_config), mesh, SHARDING)
    create = jax.jit(
        lambda key: create_state(key, step_config), out_shardings=meshes.shardings_of(shapes)
    )
    began = time.monotonic()
    step = compile_step(step_config, shapes=shapes, batch_size=options.batch)
    compiling = time.monotonic() - began
    rng = np.random.default_rng(0)
    rows = {
        "image": rng.integers(0, 256, (options.batch, SIDE, SIDE, 3), np.uint8),
        "tokens": rng.integers(1, VOCABULARY, (options.batch, LENGTH)).astype(np.int32),
        "identity": np.arange(options.batch, dtype=np.int32),
        "weight": np.ones(options.batch, np.float32),
    }
    batch, state = meshes.put_batch(rows, mesh), create(jax.random.key(0))

    def once():
        nonlocal state
        state, scalars = step(state, batch)
        jax.block_until_ready((state, scalars))

    rate = timed(once, options)
    operations = operations_of_a_step(options.batch)
    speed = matmul_speed(jnp.dtype(options.dtype))
    share = rate / options.batch * operations / speed
    note = (
        f"{operations / 1e12:.2f} TFLOP a step, {share:.0%} of {speed / 1e12:.2f} TFLOP/s, "
        f"compiled in {compiling:.0f} s"
    )
    stats = jax.devices()[0].memory_stats() or {}
    peak = stats["peak_bytes_in_use"] / 2**30 if stats else peak_gib()
    return {"rate": rate, "peak": peak, "note": note}


def operations_of_a_step(batch: int) -> float:
    """Multiplications and additions of the matrix products, forward and (twice that) backward.

    Of the plain model with all tokens of all blocks, whatever an implementation leaves out.
    """

    def tower(width: int, layers: int, tokens: int, **_) -> float:
        return layers * (2 * 12 * width**2 * tokens + 4 * tokens**2 * width)

    patches = (SIDE // PATCH) ** 2
    vision = tower(**VISION, tokens=patches + 1) + 2 * patches * 3 * PATCH**2 * VISION["width"]
    return 3 * batch * (vision + tower(**TEXT, tokens=LENGTH))


def matmul_speed(dtype) -> float:
    """Operations a second of a product of two square matrices, the best of five."""
    import jax
    import jax.numpy as jnp

    side = 8192 if jax.default_backend() == "gpu" else 3072
    x = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.matmul)
    jax.block_until_ready(product(x, x))
    seconds = []
    for _ in range(5):
        began = time.monotonic()
        jax.block_until_ready(product(x, x))
        seconds.append(time.monotonic() - began)
    return 2 * side**3 / min(seconds)


def run_torch(options: argparse.Namespace) -> dict:
    import torch
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = CLIPModel(CLIPConfig(
        vision_config={
            "hidden_size": VISION["width"], "num_hidden_layers": VISION["layers"],
            "num_attention_heads": VISION["heads"], "intermediate_size": 4 * VISION["width"],
            "image_size": SIDE, "patch_size": PATCH,
        },
        text_config={
            "hidden_size": TEXT["width"], "num_hidden_layers": TEXT["layers"],
            "num_attention_heads": TEXT["heads"], "intermediate_size": 4 * TEXT["width"],
            "max_position_embeddings": LENGTH, "vocab_size": VOCABULARY,
        },
        projection_dim=EMBED,
    )).to(device).train()  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, betas=(0.9, 0.98), weight_decay=0.02)
    images = torch.randn(options.batch, 3, SIDE, SIDE, device=device)
    tokens = torch.randint(1, VOCABULARY, (options.batch, LENGTH), device=device)
    ids = torch.arange(options.batch, device=device)
    same = (ids[:, None] == ids[None]).float()
    targets = same / same.sum(1, keepdim=True)
    half = options.dtype == "bfloat16"

    def once():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            found = model(input_ids=tokens, pixel_values=images)
        image, text = (x.float() for x in (found.image_embeds, found.text_embeds))
        logits = model.logit_scale.exp() * image @ text.T
        loss = -0.5 * sum((targets * x.log_softmax(1)).sum(1).mean() for x in (logits, logits.T))
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    rate = timed(once, options)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else peak_gib()
    return {"rate": rate, "peak": peak, "note": f"torch {torch.__version__}, {options.dtype}"}


if __name__ == "__main__":
    main()
