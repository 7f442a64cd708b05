"""Single files and folders of other tools: their names, what they lack, what they mark."""

import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxtbpr.core import tensors
from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion import weights
from jaxtbpr.diffusion.weights import infer, ldm, names
from tests.diffusion import single_file

TEXT = "cond_stage_model.transformer."
OTHER_NAMES = [
    {  # text encoders without text_model, the VAE's attention as in diffusers, compiled networks
        f"{TEXT}text_model.": TEXT,
        ".attn_1.q.": ".attn_1.to_q.",
        ".attn_1.k.": ".attn_1.to_k.",
        ".attn_1.v.": ".attn_1.to_v.",
        ".attn_1.proj_out.": ".attn_1.to_out.0.",
        ".attn_1.norm.": ".attn_1.group_norm.",
        "diffusion_model.": "diffusion_model._orig_mod.",
    },
    {  # sgm, the VAE's attention as in old diffusers
        "cond_stage_model.": "conditioner.embedders.0.",
        ".attn_1.q.": ".attn_1.query.",
        ".attn_1.k.": ".attn_1.key.",
        ".attn_1.v.": ".attn_1.value.",
        ".attn_1.proj_out.": ".attn_1.proj_attn.",
    },
]


def renamed(arrays, rules):
    found = {}
    for name, array in arrays.items():
        for old, new in rules.items():
            assert any(old in one for one in arrays), old
            name = name.replace(old, new)
        found[name] = array
    return found


def equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture
def second(reference):
    """The folder of the tiny model of 2.x."""
    return reference / "diffusion" / "sd2_tiny"


# --- names ----------------------------------------------------------------------------------------


def test_single_files_are_read_under_the_names_of_any_tool(tmp_path, reference):
    published = reference / "diffusion" / "sd1_tiny"
    whole, expected = single_file.make(published), weights.load(published)[1]
    for n, rules in enumerate(OTHER_NAMES):
        safetensors.numpy.save_file(renamed(whole, rules), tmp_path / f"{n}.safetensors")
        equal(weights.load(tmp_path / f"{n}.safetensors")[1], expected)


def test_a_tensor_under_two_names_is_refused(tmp_path, reference):
    whole = single_file.make(reference / "diffusion" / "sd1_tiny")
    name = f"{TEXT}text_model.final_layer_norm.bias"
    twice = whole | {f"{TEXT}final_layer_norm.bias": whole[name]}
    safetensors.numpy.save_file(twice, tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="holds one array twice, as .*keep one of them"):
        weights.load(tmp_path / "x.safetensors")


def test_folders_have_the_names_of_other_versions(tmp_path, second):
    """Of transformers 5 after from_single_file, and of compiled networks."""
    folder = shutil.copytree(second, tmp_path / "model")
    for path, rules in (
        ("text_encoder/model", {"text_model.": ""}),
        ("unet/diffusion_pytorch_model", {"conv_in.": "_orig_mod.conv_in."}),
    ):
        file = folder / f"{path}.safetensors"
        safetensors.numpy.save_file(renamed(safetensors.numpy.load_file(file), rules), file)
    equal(weights.load(folder)[1], weights.load(second)[1])


def test_names_that_are_current_stay():
    for network, name in (
        ("unet", "mid_block.attentions.0.transformer_blocks.0.attn1.to_q.weight"),
        ("vae", "encoder.mid_block.attentions.0.to_out.0.bias"),
        ("text_encoder", "text_model.encoder.layers.0.mlp.fc1.bias"),
        ("text_encoder", "text_projection.weight"),  # is told as unexpected
    ):
        assert names.current(network, name) == name


# --- the layers of the text encoder of 2.x --------------------------------------------------------


def test_a_2_x_file_converted_back_keeps_all_its_layers(tmp_path, second):
    """Converters from Diffusers folders write neither the last layer nor the projection."""
    whole = single_file.make(second)
    dropped = (".resblocks.3.", ".text_projection", ".logit_scale")
    left = {name: x for name, x in whole.items() if not any(part in name for part in dropped)}
    assert len(left) < len(whole) - 10
    safetensors.numpy.save_file(left, tmp_path / "x.safetensors")
    sizes, params, _, _ = weights.load(tmp_path / "x.safetensors", prediction="v_prediction")
    assert sizes.text["num_hidden_layers"] == 3
    equal(params, weights.load(second)[1])


@pytest.mark.parametrize("kind", [ldm.V1, ldm.V2])
@pytest.mark.parametrize("layers", [23, 24])
@pytest.mark.parametrize("projection", [True, False])
def test_the_published_text_encoder_of_2_x_has_23_layers_in_use(kind, layers, projection):
    first = kind == ldm.V1
    head = ldm.TEXT_1 + "text_model.embeddings." if first else ldm.TEXT_2
    position = "position_embedding.weight" if first else "positional_embedding"
    hidden = "mlp.fc1.weight" if first else "mlp.c_fc.weight"
    shapes = {f"{head}token_embedding.weight": (49408, 1024), f"{head}{position}": (77, 1024)}
    shapes |= {f"{ldm.TEXT_LAYERS[kind]}.{n}.{hidden}": (4096, 1024) for n in range(layers)}
    shapes |= {f"{ldm.TEXT_2}text_projection": (1024, 1024)} if projection else {}
    found = infer._infer_text(kind, shapes)
    assert found["num_hidden_layers"] == 23
    assert (found["hidden_act"], found["pad_token_id"]) == ("gelu", 0)
    assert (found["bos_token_id"], found["eos_token_id"]) == (49406, 49407)


# --- what the UNet predicts -----------------------------------------------------------------------


def marked(path, marks=(), metadata=None):
    unet = {f"{ldm.UNET}input_blocks.0.0.weight": (8, 4, 3, 3), f"{ldm.UNET}out.2.weight": (4, 8)}
    arrays = {name: np.zeros(shape, "f") for name, shape in unet.items()}
    arrays |= {mark: np.zeros(0, "f") for mark in marks}
    safetensors.numpy.save_file(arrays, path, metadata)
    return tensors.open_files([path])


@pytest.mark.parametrize(
    ("marks", "metadata", "expected"),
    [
        ((), None, ""),
        (("v_pred",), None, "v_prediction"),
        (("ztsnr",), None, ""),
        ((), {"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ((), {"modelspec.prediction_type": "v"}, "v_prediction"),
        ((), {"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
        ((), {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
        ((), {"modelspec.architecture": "stable-diffusion-v1"}, ""),
    ],
)
def test_a_file_s_marks_say_what_its_unet_predicts(tmp_path, marks, metadata, expected):
    opened = marked(tmp_path / "x.safetensors", marks, metadata)
    assert infer.marked_prediction(opened) == expected
    for second, otherwise in ((False, "epsilon"), (True, "v_prediction")):
        described = infer.scheduler(second, opened)
        assert described["prediction_type"] == (expected or otherwise)
        assert described.get("rescale_betas_zero_snr", False) == ("ztsnr" in marks)
        assert infer.scheduler(second, opened, "epsilon")["prediction_type"] == "epsilon"


def test_an_unmarked_2_x_file_is_told_unless_the_key_says_it(tmp_path, second, capsys):
    path = tmp_path / "x.safetensors"
    whole = single_file.make(second)
    safetensors.numpy.save_file(whole, path)
    assert weights.load(path)[2]["prediction_type"] == "v_prediction"
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"{path} does not say what its UNet predicts; assuming v_prediction")
    assert "set the key prediction_type to epsilon" in said[0]
    assert weights.load(path, prediction="epsilon")[2]["prediction_type"] == "epsilon"
    (tmp_path / "scheduler_config.json").write_text('{"prediction_type": "epsilon"}')
    assert weights.load(path)[2] == {"prediction_type": "epsilon"}
    assert weights.load(path, prediction="v_prediction")[2] == {"prediction_type": "v_prediction"}
    (tmp_path / "scheduler_config.json").unlink()
    safetensors.numpy.save_file(whole | {"v_pred": np.zeros(0, "f")}, path)
    assert weights.load(path)[2]["prediction_type"] == "v_prediction"
    assert capsys.readouterr().err == ""


def test_the_key_is_above_the_scheduler_config_of_a_folder(second):
    assert weights.load(second, prediction="epsilon")[2]["prediction_type"] == "epsilon"
