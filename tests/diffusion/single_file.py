"""Single files as the original Stable Diffusion code wrote them, made of the tiny folders.

The tables are written out from the checkpoints that were published, apart from the rules of
jaxtbpr/diffusion/weights/ldm.py that they test.
"""

import re

import numpy as np
import safetensors.numpy

UNET_BLOCKS = {
    "sd1_tiny": {
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.attentions.0": "input_blocks.1.1",
        "down_blocks.0.resnets.1": "input_blocks.2.0",
        "down_blocks.0.attentions.1": "input_blocks.2.1",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.3.0.op",
        "down_blocks.1.resnets.0": "input_blocks.4.0",
        "down_blocks.1.attentions.0": "input_blocks.4.1",
        "down_blocks.1.resnets.1": "input_blocks.5.0",
        "down_blocks.1.attentions.1": "input_blocks.5.1",
        "down_blocks.1.downsamplers.0.conv": "input_blocks.6.0.op",
        "down_blocks.2.resnets.0": "input_blocks.7.0",
        "down_blocks.2.resnets.1": "input_blocks.8.0",
        "up_blocks.0.resnets.0": "output_blocks.0.0",
        "up_blocks.0.resnets.1": "output_blocks.1.0",
        "up_blocks.0.resnets.2": "output_blocks.2.0",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.2.1.conv",
        "up_blocks.1.resnets.0": "output_blocks.3.0",
        "up_blocks.1.attentions.0": "output_blocks.3.1",
        "up_blocks.1.resnets.1": "output_blocks.4.0",
        "up_blocks.1.attentions.1": "output_blocks.4.1",
        "up_blocks.1.resnets.2": "output_blocks.5.0",
        "up_blocks.1.attentions.2": "output_blocks.5.1",
        "up_blocks.1.upsamplers.0.conv": "output_blocks.5.2.conv",
        "up_blocks.2.resnets.0": "output_blocks.6.0",
        "up_blocks.2.attentions.0": "output_blocks.6.1",
        "up_blocks.2.resnets.1": "output_blocks.7.0",
        "up_blocks.2.attentions.1": "output_blocks.7.1",
        "up_blocks.2.resnets.2": "output_blocks.8.0",
        "up_blocks.2.attentions.2": "output_blocks.8.1",
    },
    "sd2_tiny": {
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.attentions.0": "input_blocks.1.1",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0": "input_blocks.3.0",
        "up_blocks.0.resnets.0": "output_blocks.0.0",
        "up_blocks.0.resnets.1": "output_blocks.1.0",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.1.1.conv",
        "up_blocks.1.resnets.0": "output_blocks.2.0",
        "up_blocks.1.attentions.0": "output_blocks.2.1",
        "up_blocks.1.resnets.1": "output_blocks.3.0",
        "up_blocks.1.attentions.1": "output_blocks.3.1",
    },
}
UNET_OTHERS = {
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
# Of any number of levels; those of the decoder are counted the other way round.
VAE = [
    ("mid_block.resnets.0.", "mid.block_1."),
    ("mid_block.resnets.1.", "mid.block_2."),
    ("mid_block.attentions.0.", "mid.attn_1."),
    (".conv_norm_out.", ".norm_out."),
    (".conv_shortcut.", ".nin_shortcut."),
    (".group_norm.", ".norm."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    (".to_out.0.", ".proj_out."),
]
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "self_attn.out_proj": "attn.out_proj",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def make(folder):
    """{name: array} of the single file that holds the model of a tiny Diffusers folder."""
    found = {}
    arrays = safetensors.numpy.load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    for name, array in arrays.items():
        found[f"model.diffusion_model.{_unet(folder.name, name)}"] = array
    arrays = safetensors.numpy.load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    levels = 1 + max(
        int(found[0]) for name in arrays for found in re.findall(r"up_blocks\.(\d)", name)
    )
    for name, array in arrays.items():
        theirs = _vae(name, levels)
        if ".attn_1." in theirs and array.ndim == 2:
            array = array[:, :, None, None]  # ldm has convolutions there
        found[f"first_stage_model.{theirs}"] = array
    arrays = safetensors.numpy.load_file(folder / "text_encoder" / "model.safetensors")
    found |= _text_1(arrays) if folder.name == "sd1_tiny" else _text_2(arrays)
    return found | _constants()


def _constants():
    """What such files carry beside the parameters."""
    return {
        "betas": np.zeros(1000, "f"),
        "alphas_cumprod": np.zeros(1000, "f"),
        "logvar": np.zeros(1000, "f"),
        "model_ema.decay": np.zeros((), "f"),
        "model_ema.diffusion_modelinput_blocks00weight": np.zeros((8, 4, 3, 3), "f"),
    }


def _unet(model, name):
    places = UNET_BLOCKS[model] | UNET_OTHERS
    head = next(place for place in places if name.startswith(f"{place}."))
    rest = name.removeprefix(f"{head}.")
    if ".resnets." in head:
        layer, leaf = rest.split(".")
        rest = f"{RESNET[layer]}.{leaf}"
    return f"{places[head]}.{rest}"


def _vae(name, levels):
    name = name.replace(".down_blocks.", ".down.").replace(".downsamplers.0.", ".downsample.")
    for theirs, ours in VAE:
        name = name.replace(theirs, ours)
    if ".up_blocks." in name:
        head, level, rest = re.fullmatch(r"(.*)\.up_blocks\.(\d)\.(.*)", name).groups()
        name = f"{head}.up.{levels - 1 - int(level)}.{rest}"
    return name.replace(".upsamplers.0.", ".upsample.").replace(".resnets.", ".block.")


def _text_1(arrays):
    head = "cond_stage_model.transformer."
    ids = {f"{head}text_model.embeddings.position_ids": np.arange(77)[None]}
    return ids | {f"{head}{name}": array for name, array in arrays.items()}


def _text_2(arrays):
    """open_clip's names, with one more layer than is used and the projection of the pooled text."""
    found, layers = {}, 3
    text = {name.removeprefix("text_model."): array for name, array in arrays.items()}
    found["token_embedding.weight"] = text["embeddings.token_embedding.weight"]
    found["positional_embedding"] = text["embeddings.position_embedding.weight"]
    for leaf in ("weight", "bias"):
        found[f"ln_final.{leaf}"] = text[f"final_layer_norm.{leaf}"]
        for n in range(layers):
            mine, theirs = f"encoder.layers.{n}", f"transformer.resblocks.{n}"
            qkv = [text[f"{mine}.self_attn.{x}_proj.{leaf}"] for x in "qkv"]
            found[f"{theirs}.attn.in_proj_{leaf}"] = np.concatenate(qkv)
            for name, other in OPEN_CLIP.items():
                found[f"{theirs}.{other}.{leaf}"] = text[f"{mine}.{name}.{leaf}"]
    last = {
        name.replace(f".{layers - 1}.", f".{layers}."): array + 1
        for name, array in found.items()
        if f"resblocks.{layers - 1}." in name
    }
    width = found["positional_embedding"].shape[1]
    found |= last | {"text_projection": np.ones((width, 16), "f"), "logit_scale": np.zeros((), "f")}
    return {f"cond_stage_model.model.{name}": array for name, array in found.items()}
