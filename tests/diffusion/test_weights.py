"""Weights in and out: folders, single files, other dtypes and versions, and what is refused."""

import json
import pathlib
import shutil
import subprocess
import sys

import flax.traverse_util
import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxtbpr.core.errors import InputError
from jaxtbpr.diffusion import weights
from jaxtbpr.diffusion.networks import Networks, make_sizes
from jaxtbpr.diffusion.weights import ldm
from jaxtbpr.diffusion.weights.load import stored_shape
from tests.diffusion import single_file

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture
def folder(tmp_path, reference):
    """A copy of the smaller model, to be spoilt."""
    return shutil.copytree(reference / "diffusion" / "sd2_tiny", tmp_path / "model")


@pytest.fixture(params=["sd1_tiny", "sd2_tiny"])
def published(request, reference):
    return reference / "diffusion" / request.param


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def change(path, edit):
    """Rewrites a .safetensors file by `edit`, a function of {name: array}."""
    arrays = safetensors.numpy.load_file(path)
    arrays = edit(arrays) or arrays
    safetensors.numpy.save_file(arrays, path)


# --- round trips ----------------------------------------------------------------------------------


def test_what_is_saved_is_loaded(tmp_path, published):
    sizes, params, scheduler, words = weights.load(published)
    weights.save(tmp_path, sizes, params, scheduler, words)
    again = weights.load(tmp_path)
    assert again[0] == sizes
    assert again[2] == scheduler
    assert again[3] == tmp_path / "tokenizer"
    assert_equal(again[1], params)
    for path in (UNET, VAE, TEXT):
        found, expected = (safetensors.numpy.load_file(x / path) for x in (tmp_path, published))
        assert_equal(found, expected)
    for file in (published / "tokenizer").iterdir():
        assert (tmp_path / "tokenizer" / file.name).read_bytes() == file.read_bytes()
    index, expected = (
        json.loads((x / "model_index.json").read_text()) for x in (tmp_path, published)
    )
    assert expected == index


def test_configs_say_what_pytorch_reads(tmp_path, published):
    sizes, params, scheduler, words = weights.load(published)
    weights.save(tmp_path, sizes, params, scheduler, words)
    for part in ("unet", "vae", "text_encoder"):
        found, expected = (
            json.loads((x / part / "config.json").read_text()) for x in (tmp_path, published)
        )
        assert {key: expected[key] for key in found} == found
        assert part == "text_encoder" or "_diffusers_version" in found


def test_a_saved_folder_may_be_overwritten_by_itself(folder):
    sizes, params, scheduler, words = weights.load(folder)
    weights.save(folder, sizes, params, scheduler, words)
    assert_equal(weights.load(folder)[1], params)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_dtypes_in_and_out(tmp_path, published, dtype):
    sizes, params, scheduler, words = weights.load(published)
    weights.save(tmp_path, sizes, params, scheduler, words, dtype=dtype)
    rounded = jax.tree.map(lambda x: x.astype(dtype), params)
    found = weights.load(tmp_path)[1]
    assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype(dtype)}
    assert_equal(found, rounded)
    wide = weights.load(tmp_path, "float32")[1]
    assert_equal(wide, jax.tree.map(lambda x: x.astype("f"), rounded))
    half = weights.load(published, "bfloat16")[1]
    assert {x.dtype for x in jax.tree.leaves(half)} == {np.dtype(ml_dtypes.bfloat16)}


def test_arrays_are_contiguous_and_not_shared(folder):
    for leaf in jax.tree.leaves(weights.load(folder)[1]):
        assert leaf.flags["C_CONTIGUOUS"]
        assert leaf.flags["OWNDATA"]


# --- what folders look like -----------------------------------------------------------------------


def shard(path, index_name, part_name):
    arrays = safetensors.numpy.load_file(path)
    path.unlink()
    place = {name: part_name.format(n % 2 + 1) for n, name in enumerate(sorted(arrays))}
    for part in set(place.values()):
        mine = {name: x for name, x in arrays.items() if place[name] == part}
        safetensors.numpy.save_file(mine, path.parent / part)
    (path.parent / index_name).write_text(json.dumps({"weight_map": place}))


def test_shards_are_read_by_their_index(folder):
    expected = weights.load(folder)[1]
    stem = "diffusion_pytorch_model"
    shard(folder / UNET, f"{stem}.safetensors.index.json", stem + "-0000{}-of-00002.safetensors")
    shard(
        folder / VAE,
        f"{stem}.safetensors.index.fp16.json",
        stem + ".fp16-0000{}-of-00002.safetensors",
    )
    shard(folder / TEXT, "model.safetensors.index.json", "model-0000{}-of-00002.safetensors")
    assert_equal(weights.load(folder)[1], expected)
    (folder / "text_encoder" / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="text_encoder lacks model-00002-of-00002.safetensors"):
        weights.load(folder)


def test_half_precision_variants_are_read_where_there_is_nothing_else(folder):
    expected = weights.load(folder)[1]
    for path in (UNET, VAE, TEXT):
        file = folder / path
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    assert_equal(weights.load(folder)[1], expected)


def test_folders_of_other_parts_and_constants_are_ignored(folder):
    expected = weights.load(folder)[1]
    for other in ("safety_checker", "feature_extractor"):
        (folder / other).mkdir()
        (folder / other / "model.safetensors").write_bytes(b"not read")
    ids = {"text_model.embeddings.position_ids": np.arange(77)[None]}
    change(folder / TEXT, lambda arrays: arrays | ids)
    assert_equal(weights.load(folder)[1], expected)


def test_old_names_of_the_vae_are_read(folder):
    expected = weights.load(folder)[1]
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(arrays):
        found = {}
        for name, array in arrays.items():
            for new in old:
                name = name.replace(f".{new}.", f".{old[new]}.")
            found[name] = array
        return found

    change(folder / VAE, rename)
    names_ = safetensors.numpy.load_file(folder / VAE)
    assert "encoder.mid_block.attentions.0.proj_attn.bias" in names_
    assert_equal(weights.load(folder)[1], expected)


def test_a_unet_alone_takes_the_rest_from_the_base(tmp_path, reference):
    base = reference / "diffusion" / "sd1_tiny"
    alone = tmp_path / "tuned"
    shutil.copytree(base / "unet", alone / "unet")
    change(
        alone / "unet" / "diffusion_pytorch_model.safetensors",
        lambda arrays: {name: array + (name == "conv_out.bias") for name, array in arrays.items()},
    )
    with pytest.raises(InputError, match="tuned lacks vae/config.json, text_encoder/config.json"):
        weights.load(alone)
    found, expected = weights.load(alone, base=base), weights.load(base)
    assert found[0] == expected[0]
    assert found[2:] == expected[2:]
    assert_equal(found[1]["vae"], expected[1]["vae"])
    bias = [x[1]["unet"]["conv_out"]["bias"] for x in (found, expected)]
    np.testing.assert_array_equal(bias[0], bias[1] + 1)


# --- single files ---------------------------------------------------------------------------------


def test_a_single_file_holds_the_same_model(tmp_path, published):
    path = tmp_path / "v1-5.safetensors"
    safetensors.numpy.save_file(single_file.make(published), path)
    expected = weights.load(published)
    found = weights.load(path, base=published)
    assert found[0] == expected[0]
    assert found[2:] == expected[2:]
    assert_equal(found[1], expected[1])
    alone = weights.load(path, "float16")
    assert_equal(alone[1], jax.tree.map(lambda x: x.astype("float16"), expected[1]))
    velocity = "v_prediction" if published.name == "sd2_tiny" else "epsilon"
    assert alone[2]["prediction_type"] == velocity
    for part, told in (
        ("unet", ("block_out_channels", "layers_per_block", "cross_attention_dim", "in_channels")),
        ("unet", ("down_block_types", "up_block_types", "use_linear_projection")),
        ("vae", ("block_out_channels", "layers_per_block", "latent_channels")),
        ("text", ("hidden_size", "intermediate_size", "num_hidden_layers", "hidden_act")),
        ("text", ("vocab_size", "max_position_embeddings", "eos_token_id", "pad_token_id")),
    ):
        for key in told:
            assert getattr(alone[0], part)[key] == getattr(expected[0], part)[key], key


def test_scheduler_and_tokenizer_beside_a_single_file(tmp_path, reference):
    published = reference / "diffusion" / "sd2_tiny"
    safetensors.numpy.save_file(single_file.make(published), tmp_path / "x.safetensors")
    (tmp_path / "scheduler_config.json").write_text('{"prediction_type": "epsilon"}')
    shutil.copytree(published / "tokenizer", tmp_path / "tokenizer")
    _, _, scheduler, words = weights.load(tmp_path / "x.safetensors")
    assert scheduler == {"prediction_type": "epsilon"}
    assert words == tmp_path / "tokenizer"


def test_names_and_shapes_of_the_published_single_files():
    """Some of the 1130 names of v1-5-pruned-emaonly, and of 2.1's, at their true sizes."""
    known = {
        "model.diffusion_model.time_embed.0.weight": (1280, 320),
        "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
        "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
        "model.diffusion_model.input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "model.diffusion_model.input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        "model.diffusion_model.input_blocks.11.0.emb_layers.1.weight": (1280, 1280),
        "model.diffusion_model.middle_block.1.transformer_blocks.0.ff.net.0.proj.weight": (
            10240,
            1280,
        ),
        "model.diffusion_model.output_blocks.2.1.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        "model.diffusion_model.output_blocks.8.2.conv.weight": (640, 640, 3, 3),
        "model.diffusion_model.output_blocks.11.1.proj_out.weight": (320, 320, 1, 1),
        "model.diffusion_model.out.2.weight": (4, 320, 3, 3),
        "first_stage_model.encoder.down.1.block.0.nin_shortcut.weight": (256, 128, 1, 1),
        "first_stage_model.encoder.down.2.downsample.conv.bias": (512,),
        "first_stage_model.decoder.up.3.upsample.conv.weight": (512, 512, 3, 3),
        "first_stage_model.decoder.up.0.block.0.nin_shortcut.weight": (128, 256, 1, 1),
        "first_stage_model.decoder.mid.attn_1.proj_out.bias": (512,),
        "first_stage_model.encoder.norm_out.weight": (512,),
        "first_stage_model.post_quant_conv.weight": (4, 4, 1, 1),
        "cond_stage_model.transformer.text_model.encoder.layers.11.mlp.fc1.weight": (3072, 768),
    }
    first, shapes = at_true_size(ldm.V1)
    assert {name: shapes[name] for name in known} == known
    counts = {"unet": 686, "vae": 248, "text_encoder": 196}
    assert {name: len(found) for name, found in first.items()} == counts
    second, shapes = at_true_size(ldm.V2)
    head = "cond_stage_model.model.transformer.resblocks"
    assert f"{head}.23.ln_1.weight" not in shapes
    assert shapes[f"{head}.22.attn.in_proj_weight"] == (3072, 1024)
    name = "model.diffusion_model.input_blocks.1.1.proj_in.weight"
    assert shapes[name] == (320, 320)
    assert len(second["text_encoder"]) == 2 + 2 + 23 * 12


def at_true_size(kind):
    """({network: tensors}, {name: shape}) of a published model."""
    vae = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
    for key, block in (("down", "DownEncoderBlock2D"), ("up", "UpDecoderBlock2D")):
        vae[f"{key}_block_types"] = (block,) * 4
    if kind == ldm.V1:
        unet = {"cross_attention_dim": 768}
        text = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    else:
        unet = {"cross_attention_dim": 1024, "use_linear_projection": True}
        unet["attention_head_dim"] = (5, 10, 20, 20)
        text = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
        text["num_hidden_layers"] = 23
    sizes = make_sizes(unet, vae, text)
    shapes = Networks(sizes).shapes()
    found = {name: ldm.tensors(kind, name, sizes, shapes[name]) for name in shapes}
    stored = {}
    for name, several in found.items():
        for one in several:
            stored[one.theirs] = stored_shape(one, shapes[name])
    return found, stored


def test_a_single_file_that_lacks_or_has_more_is_refused(tmp_path, reference):
    published, path = reference / "diffusion" / "sd1_tiny", tmp_path / "x.safetensors"
    whole = single_file.make(published)
    control = {"control_model.input_blocks.0.0.weight": np.zeros(3, "f")}
    gone = "model.diffusion_model.middle_block.0.in_layers.0.weight"
    safetensors.numpy.save_file({k: x for k, x in whole.items() if k != gone} | control, path)
    with pytest.raises(InputError, match=rf"missing: {gone}; unexpected: control_model"):
        weights.load(path)
    unet = {k: x for k, x in whole.items() if k.startswith("model.")}
    safetensors.numpy.save_file(unet, path)
    with pytest.raises(InputError, match="not those of a whole Stable Diffusion 1.x or 2.x"):
        weights.load(path)
    layer = "model.diffusion_model.input_blocks.1.0.in_layers.2.weight"
    safetensors.numpy.save_file({k: x for k, x in whole.items() if k != layer}, path)
    with pytest.raises(InputError, match=f"lacks '{layer}', which is needed for the sizes"):
        weights.load(path)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "gone", ["unet", "vae", "text_encoder", "tokenizer", "scheduler", "unet/config.json"]
)
def test_a_folder_without_a_part_is_refused(folder, gone):
    path = folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(InputError, match=rf"model lacks {gone}"):
        weights.load(folder)


def test_tensors_that_do_not_fit_are_listed(folder):
    def spoil(arrays):
        del arrays["conv_in.bias"]
        arrays["extra.weight"] = np.zeros(2, "f")
        arrays["conv_out.weight"] = np.zeros((4, 8, 1, 1), "f")

    change(folder / UNET, spoil)
    said = (
        r"model/unet does not fit the model \(unet\); missing: conv_in.bias; unexpected: "
        r"extra.weight; of another shape: conv_out.weight \[4, 8, 1, 1\] \(for \[4, 8, 3, 3\] here"
    )
    with pytest.raises(InputError, match=said):
        weights.load(folder)


def test_a_foreign_model_is_refused_in_one_sentence(folder):
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionXLPipeline"}
    index["text_encoder_2"] = ["transformers", "CLIPTextModelWithProjection"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(
        InputError, match="is a StableDiffusionXLPipeline with text_encoder_2, not "
    ):
        weights.load(folder)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model_index.json", [1], "model_index.json does not hold a JSON object"),
        ("unet/config.json", None, "unet/config.json does not hold a JSON object"),
        (
            "scheduler/scheduler_config.json",
            [],
            "scheduler_config.json does not hold a JSON object",
        ),
        ("unet/config.json", {"norm_num_groups": 0}, "unet: norm_num_groups 0 is not of the type"),
        (
            "unet/config.json",
            {"attention_head_dim": 0},
            "unet: attention_head_dim 0 is not a number",
        ),
        (
            "unet/config.json",
            {"block_out_channels": ["8"]},
            r"block_out_channels \('8',\) is not of",
        ),
        (
            "vae/config.json",
            {"scaling_factor": None},
            "vae: scaling_factor None is not of the type",
        ),
        ("text_encoder/config.json", {"num_attention_heads": 0}, "num_attention_heads 0 is not of"),
    ],
)
def test_configs_that_make_no_sense_are_told_by_their_entry(folder, name, content, said):
    if isinstance(content, dict):
        content = json.loads((folder / name).read_text()) | content
    (folder / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        weights.load(folder)


@pytest.mark.parametrize("code", ["I8", "F8_E4M3"])
def test_quantised_weights_are_refused(folder, code):
    header, rest = json.dumps({"x": {"dtype": code, "shape": [2], "data_offsets": [0, 2]}}), b"ab"
    data = len(header).to_bytes(8, "little") + header.encode() + rest
    (folder / UNET).write_bytes(data)
    with pytest.raises(
        InputError, match=rf"a dtype that is not supported \(the first: x, {code}\)"
    ):
        weights.load(folder)


def test_a_home_folder_may_be_named_by_its_tilde(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert weights.load("~/model")[0] == weights.load(folder)[0]


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.bin", "pytorch_model.ckpt"])
def test_pickles_are_refused(folder, name):
    (folder / UNET).rename(folder / "unet" / name)
    with pytest.raises(InputError, match=rf"{name} is a pickle, .*convert_pt.py"):
        weights.load(folder)
    with pytest.raises(InputError, match=r"is a pickle, .*convert_pt.py"):
        weights.load(folder / "unet" / name)


def test_files_that_are_none_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist; give a folder"):
        weights.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="model_index.json is not a .safetensors file"):
        weights.load(folder / "model_index.json")
    (folder / UNET).write_bytes((folder / UNET).read_bytes()[:1000])
    with pytest.raises(InputError, match="is not a complete .safetensors file"):
        weights.load(folder)
    (folder / UNET).unlink()
    with pytest.raises(InputError, match="model/unet has no .safetensors file"):
        weights.load(folder)


def test_parameters_of_other_sizes_are_not_saved(tmp_path, published):
    sizes, params, scheduler, words = weights.load(published)
    params["unet"] = dict(params["unet"], extra={"kernel": np.zeros(2, "f")})
    with pytest.raises(ValueError, match="parameters of unet .* extra/kernel"):
        weights.save(tmp_path, sizes, params, scheduler, words)
    with pytest.raises(InputError, match="has no tokenizer"):
        weights.save(tmp_path, sizes, weights.load(published)[1], scheduler, tmp_path)


# --- memory ---------------------------------------------------------------------------------------


def test_loading_takes_little_more_memory_than_the_weights(tmp_path, reference):
    sizes, _, scheduler, words = weights.load(reference / "diffusion" / "sd1_tiny")
    unet = dict(sizes.unet, block_out_channels=(128, 256, 256))
    sizes = make_sizes(unet, sizes.vae, sizes.text)
    rng = np.random.default_rng(0)
    params = {
        name: flax.traverse_util.unflatten_dict(
            {path: rng.random(shape, "f") for path, shape in shapes.items()}, sep="/"
        )
        for name, shapes in Networks(sizes).shapes().items()
    }
    weights.save(tmp_path, sizes, params, scheduler, words)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    assert size > 80e6
    script = pathlib.Path(__file__).with_name("load_and_measure.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[0]) <= 1.3 * size
