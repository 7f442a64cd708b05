"""The networks of Stable Diffusion against models_*.safetensors and the folder that it names."""

import json
import pathlib

import flax.linen as nn
import jax
import numpy as np
import safetensors.numpy

from jaxtbpr.diffusion import networks, weights

# Of values that have a deviation of 1; larger ones may be as much farther off.
TOLERANCE = {"unet.stage": 3e-5, "unet": 1e-5, "text": 5e-5, "vae": 5e-5}
_INPUTS = ("unet.sample", "unet.encoder_hidden_states", "unet.timesteps", "unet.odd.sample")
_INPUTS += ("unet.per_sample_timesteps", "unet.stage.sample", "vae.image", "vae.eps", "vae.z")


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance) for every output that the file holds."""
    path = pathlib.Path(path)
    described = json.loads(path.with_suffix(".json").read_text())
    published = safetensors.numpy.load_file(path)
    sizes, params, _, _ = weights.load(path.parent / described["model"], "float32")
    model = networks.Networks(sizes)
    found = {
        **_text(model, params, published),
        **_unet(model, params, published),
        **_stages(model, params, published, described["stage_timestep"]),
        **_vae(model, params, published),
    }
    outputs = [
        name for name in published if name.startswith(tuple(TOLERANCE)) and name not in _INPUTS
    ]
    return [_row(name, found.get(name), published[name]) for name in sorted(outputs)]


def _text(model, params, published):
    out = jax.jit(model.text_outputs)(params, published["input_ids"].astype(np.int32))
    found = {f"text.{name}": out[name] for name in ("last_hidden_state", "pooler_output")}
    for n, states in enumerate(out["hidden_states"]):
        found[f"text.hidden_states.{n}"] = states
    return found


def _unet(model, params, published):
    predict, text = jax.jit(model.predict), published["unet.encoder_hidden_states"]
    sample, odd = (_last(published[f"unet.{name}"]) for name in ("sample", "odd.sample"))
    found = {
        f"unet.out.t{t}": predict(params, sample, t, text)
        for t in published["unet.timesteps"].tolist()
    }
    steps = published["unet.per_sample_timesteps"].astype(np.int32)
    found["unet.out.per_sample"] = predict(params, sample, steps, text)
    for name in published:
        if name.startswith("unet.odd.out.t"):
            step = int(name.rpartition("t")[2])
            found[name] = predict(params, odd, step, text[1:2])
    return found


def _stages(model, params, published, timestep):
    """What the modules give inside one call, by an interceptor outside those of the model."""
    inside = {}

    def listen(call_next, args, kwargs, context):
        out = call_next(*args, **kwargs)
        name = _theirs(context.module.path)
        if context.method_name == "__call__" and f"unet.stage.{name}" in published:
            inside[name] = out[0] if isinstance(out, tuple) else out
        return out

    def run(params):
        inside.clear()
        sample, text = published["unet.stage.sample"], published["text.last_hidden_state"]
        with nn.intercept_methods(listen):
            out = model.predict(params, _last(sample), timestep, text[1:2])
        return {**inside, "out": out}

    return {f"unet.stage.{name}": x for name, x in jax.jit(run)(params).items()}


def _theirs(path):
    """The reference's name of a module, which leaves the one transformer block unnamed."""
    name = ".".join(path)
    for part in ("down_blocks", "up_blocks", "attentions", "resnets", "transformer_blocks"):
        name = name.replace(f"{part}_", f"{part}.")
    return name.replace(".transformer_blocks.0.", ".")


def _vae(model, params, published):
    mean, logvar = jax.jit(model.encode_image)(params, _last(published["vae.image"]))
    sample = mean + np.exp(logvar / 2) * _last(published["vae.eps"])
    decoded = jax.jit(model.decode)(params, _last(published["vae.z"]))
    return {"vae.mean": mean, "vae.logvar": logvar, "vae.sample": sample, "vae.decoded": decoded}


def _last(x):
    return x.transpose(0, 2, 3, 1)


def _row(name, found, expected):
    """The largest error in units of the values' deviation, where that is above 1."""
    tolerance = next(TOLERANCE[kind] for kind in TOLERANCE if name.startswith(kind))
    if found is None:
        return f"{name} is computed nowhere", float("nan"), tolerance
    found = np.asarray(found)[: len(expected)]  # the states between layers are of the first texts
    expected = _last(expected) if expected.ndim == 4 else expected
    if found.shape != expected.shape:
        return name, float("nan"), tolerance
    return name, float(np.abs(found - expected).max() / max(expected.std(), 1)), tolerance
