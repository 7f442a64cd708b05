"""Losses against losses_syntbpr*.npz and losses_tbps*.npz: values and gradients."""

import functools
import pathlib

import flax.traverse_util
import jax
import numpy as np
from safetensors.numpy import load_file

from jaxtbpr.retrieval.clip.weights import names
from jaxtbpr.retrieval.training import heads, losses

MULTI_VIEW = losses.multi_view(losses.nitc_loss)
PAIRED = ("image", "text", "logit_scale")


def check(path) -> list[tuple[str, float, float]]:
    """Rows of (quantity, largest error, tolerance); what we cannot compute yet fails."""
    published = np.load(path)
    syntbpr = pathlib.Path(path).name.startswith("losses_syntbpr")
    rows = []
    for case in sorted({key.split("/")[0] for key in published.files if "/" in key}):
        settings = _syntbpr(published) if syntbpr else tbps_settings(published)
        for name, at, loss in settings:
            keys = ("image_features", "text_features", "person_ids", "logit_scale")
            arrays = [published[f"{case}/{key}"] for key in keys]
            found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 3)))(*arrays)
            rows += _compare(published, f"{case}/{name}", at, found, PAIRED)
        if not syntbpr:
            rows += _simclr(published, case)
            rows += _with_heads(pathlib.Path(path), published, case)
            rows += _of_one_process(published, case)
    return rows


def _syntbpr(published):
    """(name, axes of the published result, loss) of every setting."""
    for i, kind in _numbered(published, "softlabel_types"):
        for j, alpha in _numbered(published, "alphas"):
            options = {"soft_labels": str(kind), "alpha": alpha}
            yield "nitc", (i, j), functools.partial(losses.nitc_loss, **options)
            for k, eps in _numbered(published, "ritc_eps"):
                yield "ritc", (i, j, k), functools.partial(losses.ritc_loss, eps=eps, **options)


def tbps_settings(published):
    """The same of TBPS-CLIP's losses of identities and scale."""
    for i, alpha in _numbered(published, "alphas"):
        options = {"alpha": alpha, "soft_labels": "softmax"}
        yield "nitc", (i,), functools.partial(losses.nitc_loss, **options)
    for i, eps in _numbered(published, "ritc_eps"):
        yield "ritc", (i,), functools.partial(losses.ritc_loss, eps=eps)
    yield "citc", (), losses.citc_loss
    for n, name in enumerate(("citc_in_modal", "citc_cross_modal")):
        yield name, (), lambda image, text, ids, scale, n=n: losses.citc_parts(image, text)[n]


def _simclr(published, case):
    views = [published[f"{case}/{view}_features"] for view in ("aug1", "aug2")]
    for i, temperature in _numbered(published, f"{case}/simclr_temperatures"):
        loss = functools.partial(losses.simclr_loss, temperature=float(temperature))
        found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(*views)
        yield from _compare(published, f"{case}/simclr", (i,), found, ("aug1", "aug2"))


def _with_heads(path, published, case):
    """The losses that have parameters of their own, which losses_tbps*.weights.safetensors has."""
    weights = load_file(path.with_suffix(".weights.safetensors"))
    views, keys = ("aug1", "aug2"), ("image", "image1", "text")
    first, second = (published[f"{case}/{view}_features"] for view in views)
    image, image1, text = (published[f"{case}/{key}_features"] for key in keys)
    ids, scale = published[f"{case}/person_ids"], published[f"{case}/logit_scale"]
    for i, alpha in _numbered(published, "alphas"):
        loss = functools.partial(MULTI_VIEW, alpha=alpha, soft_labels="softmax")
        found = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 4)))(
            image, image1, text, ids, scale
        )
        inputs = (*keys, "logit_scale")
        yield from _compare(published, f"{case}/nitc_mvs", (i,), found, inputs)

    params = view_head(weights)
    head = heads.ViewHead(hidden=len(weights["simclr_mlp.0.bias"]))
    for i, temperature in _numbered(published, f"{case}/simclr_temperatures"):

        def ss_mlp(a, b, temperature=float(temperature)):
            a, b = (head.apply({"params": params}, x) for x in (a, b))
            return losses.simclr_loss(a, b, temperature=temperature)

        found = jax.jit(jax.value_and_grad(ss_mlp, argnums=(0, 1)))(first, second)
        yield from _compare(published, f"{case}/ss_mlp", (i,), found, views)

    def identity(image, text):
        head = heads.IdentityHead(len(weights["classifier.bias"]))
        params = {"classifier": _linear(weights, "classifier")}
        logits = (head.apply({"params": params}, x) for x in (image, text))
        return losses.identity_loss(*logits, ids)

    found = jax.jit(jax.value_and_grad(identity, argnums=(0, 1)))(image, text)
    yield from _compare(published, f"{case}/id", (), found, ("image", "text"))

    def masked_words(text, image):
        params, head = word_head(weights)
        logits = head.apply({"params": params}, text, image)
        return losses.masked_word_loss(logits, published[f"{case}/mlm_labels"])

    sequences = [published[f"{case}/{key}"] for key in ("text_seq", "image_seq")]
    found = jax.jit(jax.value_and_grad(masked_words, argnums=(0, 1)))(*sequences)
    yield from _compare(published, f"{case}/mlm", (), found, ("text_seq", "image_seq"))
    yield from _full_recipe(published, case, ss_mlp)


def _of_one_process(published, case):
    """N-ITC and SimCLR on the second of four processes: its rows against all columns."""
    if f"{case}/rank1of4_nitc_loss" not in published.files:
        return
    keys = ("image_features", "text_features", "person_ids", "logit_scale")
    arrays = [published[f"{case}/{key}"] for key in keys]
    quarter = np.arange(len(arrays[0])) * 4 // len(arrays[0]) == 1
    found = {"nitc": [], "simclr": []}
    for alpha in _values(published, "alphas"):
        options = {"alpha": alpha, "soft_labels": "softmax", "weights": quarter.astype(np.float32)}
        found["nitc"].append(losses.nitc_loss(*arrays, **options))
    views = [published[f"{case}/{view}_features"] for view in ("aug1", "aug2")]
    for temperature in _values(published, f"{case}/simclr_temperatures"):
        rows = losses.simclr_rows(*views, temperature=float(temperature))
        found["simclr"].append(rows[quarter].mean())
    for name, values in found.items():
        expected = _values(published, f"{case}/rank1of4_{name}_loss")
        for i, (value, wanted) in enumerate(zip(values, expected, strict=True)):
            error = abs(float(value) - wanted) / max(1, abs(wanted))
            yield f"{case}/rank1of4_{name}[{i}]", error, 1e-5


def _full_recipe(published, case, ss_mlp):
    """TBPS-CLIP's sum, whose temperature is the first one and alpha 0.5."""
    inputs = ("image", "image1", "text", "aug1", "aug2")
    image, image1, text, *views = (published[f"{case}/{key}_features"] for key in inputs)
    rest = (published[f"{case}/person_ids"], published[f"{case}/logit_scale"])
    total = MULTI_VIEW(image, image1, text, *rest, alpha=0.5, soft_labels="softmax")
    total += losses.ritc_loss(image, text, *rest, eps=1e-2)
    total += 0.1 * losses.citc_loss(image, text, *rest) + 0.4 * ss_mlp(*views, temperature=0.1)
    expected = published[f"{case}/full_recipe_total_alpha0.5"]
    error = abs(float(total - expected)) / max(1, abs(float(expected)))
    yield f"{case}/full_recipe_total_alpha0.5", error, 1e-5


def view_head(weights):
    """Our parameters of `simclr_mlp`."""
    return {"in": _linear(weights, "simclr_mlp.0"), "out": _linear(weights, "simclr_mlp.2")}


def word_head(weights):
    """(our parameters, our head) of the published masked-word head."""
    layers = len({k.split(".")[2] for k in weights if k.startswith("cross_modal_transformer")})
    qkv = zip(
        np.split(weights["cross_attn.in_proj_weight"], 3),
        np.split(weights["cross_attn.in_proj_bias"], 3),
        strict=True,
    )
    params = {f"attn_{x}": {"kernel": w.T, "bias": b} for x, (w, b) in zip("qkv", qkv, strict=True)}
    params["attn_out"] = _linear(weights, "cross_attn.out_proj")
    norms = {
        "ln_text": "ln_pre_t",
        "ln_image": "ln_pre_i",
        "ln_post": "ln_post",
        "ln": "mlm_head.ln",
    }
    for ours, theirs in norms.items():
        params[ours] = {"scale": weights[f"{theirs}.weight"], "bias": weights[f"{theirs}.bias"]}
    params["dense"] = _linear(weights, "mlm_head.dense")
    params["words"] = _linear(weights, "mlm_head.fc")
    blocks = {}
    for tensor in names.residual_blocks("cross_modal_", "x", layers):
        arrays = tensor.layout.read(weights[tensor.theirs])
        blocks |= {
            tuple(path.split("/")[2:]): a for path, a in zip(tensor.ours, arrays, strict=True)
        }
    params["transformer"] = flax.traverse_util.unflatten_dict(blocks)
    return params, heads.MaskedWordHead(len(weights["mlm_head.fc.bias"]), layers)


def _linear(weights, name):
    return {"kernel": weights[f"{name}.weight"].T, "bias": weights[f"{name}.bias"]}


def _values(published, key):
    """The values of a setting, of which there may be one that stands alone."""
    return np.atleast_1d(published[key])


def _numbered(published, key):
    """((index, number of values), value) of each value of a setting."""
    values = _values(published, key)
    return [((i, len(values)), value) for i, value in enumerate(values)]


def _result(array, at, axes=0):
    """The result at a setting; at: (index, number of values) of each part of it; axes: of a result.

    An axis of a part that the results do not depend on has length 1, and one of a part that has
    one value only may be left out.
    """
    lead = array.shape[: array.ndim - axes]
    if len(lead) != len(at):
        at = [(i, count) for i, count in at if count > 1]
    return array[tuple(0 if n == 1 else i for (i, _), n in zip(at, lead, strict=True))]


def _compare(published, name, at, found, inputs):
    """The value relative to max(1, value), each gradient relative to its largest entry (or 1)."""
    value, gradients = found
    expected = _result(published[f"{name}_loss"], at)
    label = f"{name}{[i for i, _ in at]}"
    yield label, abs(float(value - expected)) / max(1, abs(float(expected))), 1e-5
    for key, gradient in zip(inputs, gradients, strict=True):
        wanted = _result(published[f"{name}_grad_{key}"], at, np.ndim(gradient))
        error = np.max(np.abs(np.asarray(gradient) - wanted)) / max(1, np.max(np.abs(wanted)))
        yield f"{label}, gradient to {key}", float(error), 5e-5
