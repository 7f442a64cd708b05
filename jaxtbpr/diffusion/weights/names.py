"""Names and layouts of the parameters in Diffusers folders; ours are those of the Flax classes.

The names differ by rules alone ("resnets_0/conv1/kernel" is "resnets.0.conv1.weight"), so that the
list of tensors follows from our own paths, whatever the sizes.
"""

import re
from collections.abc import Mapping

from jaxtbpr.core.tensors import CONVOLUTION, LINEAR, SAME, Tensor, unwrapped

Shapes = Mapping[str, tuple[int, ...]]

_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
# Entries of a list, which PyTorch names by number: a number at the end, except linear_1, linear_2.
_LISTED = re.compile(r"^(?!linear_)(\w+)_(\d+)$")
# The attention of the VAE: what Flax and old PyTorch files call it, and what new ones do.
_VAE_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_VAE_ATTENTION = re.compile(r"(.*\.attentions\.\d+\.)(query|key|value|proj_attn)(\.\w+)")
_TEXT_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")
# Constants that files of old versions carry.
CONSTANTS = re.compile(r"text_model\.embeddings\.position_ids")


def tensors(network: str, shapes: Shapes) -> list[Tensor]:
    """Returns every tensor of the PyTorch file of `network`, whose parameters are `shapes`."""
    return [
        Tensor(diffusers_name(network, path), (path,), _layout(path, shape))
        for path, shape in shapes.items()
    ]


def diffusers_name(network: str, path: str) -> str:
    """Returns the name in a PyTorch file of the parameter at `path` of `network`."""
    *parts, leaf = path.split("/")
    if network == "vae":
        parts = [_VAE_ATTENTION.get(part, part) for part in parts]
    return ".".join([*(_LISTED.sub(r"\1.\2", part) for part in parts), _LEAVES[leaf]])


def current(network: str, name: str) -> str:
    """Returns what `tensors` calls the tensor `name` of a file of another version.

    Before diffusers 0.17 the attention of the VAE was query, key, value, proj_attn; text encoders
    that transformers 5 writes after diffusers' `from_single_file` have no `text_model.` in front.
    """
    name = unwrapped(name)
    if network == "vae" and (match := _OLD_VAE_ATTENTION.fullmatch(name)):
        return f"{match[1]}{_VAE_ATTENTION[match[2]]}{match[3]}"
    if network == "text_encoder" and name.startswith(_TEXT_PARTS):
        return f"text_model.{name}"
    return name


def _layout(path: str, shape: tuple[int, ...]):
    if not path.endswith("/kernel"):
        return SAME
    return CONVOLUTION if len(shape) == 4 else LINEAR
