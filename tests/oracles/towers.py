"""Towers against eva_clip_tiny*.npz and openai_clip_tiny*.npz: tokens, features, logits."""

import dataclasses
import json
import pathlib

import jax
import numpy as np

from jaxtbpr.retrieval.clip import weights
from jaxtbpr.retrieval.clip.model import Clip
from jaxtbpr.retrieval.training import losses

FEATURES, UNIT, LOGITS = (1e-5, 5e-5), (0, 5e-6), (0, 1e-4)
# Positions that a half-precision checkpoint has for another grid are rounded to its dtype after
# resampling, one unit up or down; what follows from them differs by as much.
ROUNDED_POSITIONS, ROUNDED = 1e-3, 40


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance) for every variant that the file holds."""
    path, published = pathlib.Path(path), np.load(path)
    variants = sorted({key.split("/")[0] for key in published.files if "/" in key}) or [""]
    return [row for variant in variants for row in _check_variant(path, published, variant)]


def open_model(path, image_size=None, text_length=None, **changes):
    """(config, parameters) of the weights beside `path`, by the product's own loader."""
    path = pathlib.Path(path)
    described = json.loads(path.with_suffix(".config.json").read_text())
    hints = described.get("model_config")
    if hints is None:  # TBPS-CLIP's, whose file has no model config
        vision = described["vision"]
        hints = {"quick_gelu": True, "text_cfg": {"heads": described["text"]["heads"]}}
        hints["vision_cfg"] = {"head_width": vision["width"] // vision["heads"]}
    (source,) = path.parent.glob(f"{path.stem}.*.safetensors")
    return weights.load(
        source,
        image_size=image_size,
        text_length=text_length,
        hints=hints,
        pixels="none",
        **changes,
    )


def _check_variant(path, published, variant):
    head = f"{variant}/" if variant else ""
    images = published[f"{head}images"].transpose(0, 2, 3, 1)
    own = f"{head}token_ids"  # a variant may have texts, and a length of them, of its own
    tokens = published[own if own in published.files else "token_ids"]
    config, params = open_model(path, images.shape[1:3], tokens.shape[1])
    found = _outputs(config, params, images, tokens)
    resampled, rounded = _positions_changed(path, config)
    rows = [
        _row(head + key, found[key], published[head + key], _tolerance(key, rounded))
        for key in found
        if head + key in published.files
    ]
    double = dataclasses.replace(config, dtype="float64")
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
        found = _outputs(double, wide, images.astype(np.float64), tokens)
        # RoPE's tables and resampled positions are float32 in the double run, too.
        tolerance = 1e-6 if config.vision.rope or resampled else 1e-10
        rows += [
            _row(f"{head}{key}_f64", found[key], published[f"{head}{key}_f64"], (0, tolerance))
            for key in found
            if f"{head}{key}_f64" in published.files and not rounded
        ]
    return rows


def _positions_changed(path, config):
    """Whether the positions are resampled, and whether they are then rounded to a half dtype."""
    own, _ = open_model(path)
    same = own.grid == config.grid and own.text_length == config.text_length
    stored = json.loads(path.with_suffix(".config.json").read_text()).get("checkpoint_dtype")
    return not same, not same and stored in ("float16", "bfloat16")


def _outputs(config, params, images, tokens):
    """Our arrays under the names of the published ones."""
    model = Clip(config)

    def run(method, rows):
        apply = jax.jit(
            lambda p, x: model.apply(
                {"params": p}, x, every_token=True, method=method, mutable="intermediates"
            )
        )
        dense, state = apply(params, rows)
        return dense, state["intermediates"]

    image_dense, image = run(Clip.encode_image, images)
    text_dense, text = run(Clip.encode_text, tokens)
    found = {
        "visual_embed": image["image"]["embedded"][0],
        "image_dense": image_dense,
        "text_dense": text_dense,
        "visual_positional_embedding": params["image"]["positional_embedding"],
        "text_positional_embedding": params["text"]["positional_embedding"],
    }
    for tower, blocks in (("visual", image["image"]), ("text", text["text"])):
        for name, block in blocks["transformer"].items():
            found[f"{tower}_block{name.removeprefix('block_')}_out"] = block["out"][0]
    # The features by the way that training takes: only the pooled token in the last block.
    pooled = jax.jit(lambda p, x, t: model.apply({"params": p}, x, t))(params, images, tokens)
    found["image_features"], found["text_features"], scale = pooled
    image, text = (losses.normalize(found[f"{x}_features"]) for x in ("image", "text"))
    scale = losses.clamped_scale(scale)
    return found | {
        "image_features_norm": image,
        "text_features_norm": text,
        "logits_per_image": scale * losses.product(image, text),
        "logits_per_text": scale * losses.product(text, image),
        "cosine_t2i": losses.product(text, image),
    }


def _tolerance(key, rounded):
    """(relative, absolute) of a quantity in float32."""
    if key.endswith("positional_embedding"):
        return 0, ROUNDED_POSITIONS if rounded else 2e-6
    found = FEATURES
    if key.endswith("_norm") or key == "cosine_t2i":
        found = UNIT
    elif key.startswith("logits"):
        found = LOGITS
    return tuple(ROUNDED * value for value in found) if rounded else found


def _row(name, found, expected, tolerance):
    """The largest error beyond the relative share, against the absolute one."""
    relative, absolute = tolerance
    found, expected = np.asarray(found), np.asarray(expected)
    if found.shape != expected.shape:
        return name, float("nan"), absolute
    error = np.abs(found - expected) - relative * np.abs(expected)
    return name, float(max(error.max(), 0)), absolute
