"""Weights in and out: each format's round trip, other sizes, and what is refused."""

import dataclasses
import functools
import json
import re

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxtbpr.core import tokenizer as tokens
from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets.resizing import Resize
from jaxtbpr.retrieval import saved
from jaxtbpr.retrieval.clip import weights
from jaxtbpr.retrieval.clip.model import PIXELS, Clip, ClipConfig, init_params
from jaxtbpr.retrieval.clip.published import EVA02, EVA02_VISION, PUBLISHED
from jaxtbpr.retrieval.clip.transformer import TowerConfig, stack_blocks, unstack_blocks, with_scan
from jaxtbpr.retrieval.clip.weights import names
from jaxtbpr.retrieval.clip.weights.load import expected_shapes
from jaxtbpr.retrieval.clip.weights.open_clip import to_open_clip
from jaxtbpr.retrieval.clip.weights.positions import resample_grid, resample_line

PLAIN = ClipConfig(
    image_size=(32, 32),
    patch_size=8,
    stem="patch",
    vision=TowerConfig(64, 2, 1, activation="quick_gelu"),
    text=TowerConfig(64, 3, 1, activation="quick_gelu"),
    text_length=12,
    vocab_size=50,
    embed_dim=24,
    pixels="clip",
)
EVA = dataclasses.replace(
    PLAIN,
    vision=TowerConfig(64, 2, 1, mlp_ratio=2.6667, rope=True, **EVA02_VISION),
    text=TowerConfig(64, 2, 1, activation="gelu"),
    **EVA02,
)


@functools.cache
def params_of(config):
    """Random parameters, biases and norms too; drawn by NumPy, since nothing is compiled then."""
    shapes = jax.eval_shape(functools.partial(init_params, Clip(config)), jax.random.key(0))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0.1, 0.2, x.shape).astype("f"), shapes)


def write(folder, config, kind, dtype="float32"):
    """A folder as that format's users have it."""
    folder.mkdir(exist_ok=True)
    if kind == "huggingface":
        words = tokens.learn(["a red coat"] * 3, 300)
        config = dataclasses.replace(config, vocab_size=words.get_vocab_size())
        weights.save_folder(folder, params_of(config), config, words, dtype=dtype)
        return config
    weights.save_tensors(folder / "model.safetensors", params_of(config), config, kind, dtype)
    quick = config.text.activation == "quick_gelu"
    described = {"embed_dim": 24, "quick_gelu": quick, "vision_cfg": {}, "text_cfg": {}}
    if kind == "eva":
        described["vision_cfg"] = {"rope": True}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": described}))
    return config


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, dict(found), dict(expected))


@pytest.mark.parametrize("kind", list(names.FORMATS))
@pytest.mark.parametrize("scan", [False, True])
def test_what_is_saved_is_loaded(tmp_path, kind, scan):
    config = write(tmp_path, EVA if kind in ("eva", "timm") else PLAIN, kind)
    found, params = weights.load(tmp_path, pixels="clip", scan=scan)
    assert found == dataclasses.replace(
        config,
        scan=scan,
        vision=dataclasses.replace(config.vision, mlp_ratio=found.vision.mlp_ratio),
    )
    assert found.vision.hidden == config.vision.hidden
    assert ("blocks" in params["text"]["transformer"]) is scan
    assert_equal(params, with_scan(params_of(config), scan))


def test_sub_norms_and_gates_are_told_from_the_tensors(tmp_path):
    plain = dataclasses.replace(EVA.vision, gated=False, sub_norm=False, activation="gelu")
    config = dataclasses.replace(EVA, vision=dataclasses.replace(plain, rope=False))
    weights.save_tensors(tmp_path / "x.safetensors", params_of(config), config, "eva")
    found, params = weights.load(tmp_path / "x.safetensors")
    flags = (found.vision.gated, found.vision.sub_norm, found.vision.rope)
    assert flags == (False, False, False)
    assert_equal(params, params_of(config))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_is_read_as_float32(tmp_path, dtype):
    write(tmp_path, PLAIN, "openai")
    path = tmp_path / "model.safetensors"
    arrays = {k: x.astype(dtype) for k, x in safetensors.numpy.load_file(path).items()}
    safetensors.numpy.save_file(arrays, path)
    _, params = weights.load(tmp_path)
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype("float32")}
    expected = jax.tree.map(lambda x: x.astype(dtype).astype("f"), params_of(PLAIN))
    assert_equal(params, expected)


def test_a_number_too_great_for_half_precision_is_refused(tmp_path):
    params = params_of(PLAIN) | {"logit_scale": np.float32(1e5)}
    with pytest.raises(InputError, match="logit_scale has numbers that float16 cannot hold"):
        weights.save_tensors(tmp_path / "x", params, PLAIN, "openai", "float16")


@pytest.mark.parametrize(
    "name", ["model.safetensors.index.json", "model.safetensors.index.fp16.json"]
)
def test_shards_are_read_by_their_index(tmp_path, name):
    config = write(tmp_path, PLAIN, "huggingface")
    arrays = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    index = {name: f"part-{n % 2}.safetensors" for n, name in enumerate(sorted(arrays))}
    for part in set(index.values()):
        safetensors.numpy.save_file(
            {k: x for k, x in arrays.items() if index[k] == part}, tmp_path / part
        )
    path = tmp_path / name
    path.write_text(json.dumps({"weight_map": index}))
    assert_equal(weights.load(tmp_path)[1], params_of(config))
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(InputError, match=rf"lacks part-1.safetensors, which {name} names"):
        weights.load(tmp_path)


def test_positions_follow_another_image_and_text(tmp_path):
    write(tmp_path, PLAIN, "openai")
    config, params = weights.load(tmp_path, image_size=(48, 16), text_length=20)
    assert config.grid == (6, 2)
    own = params_of(PLAIN)
    image = params["image"]["positional_embedding"]
    np.testing.assert_array_equal(
        image, resample_grid(own["image"]["positional_embedding"], (6, 2))
    )
    assert params["text"]["positional_embedding"].shape == (20, 64)
    out = Clip(config).apply(
        {"params": params}, np.zeros((2, 48, 16, 3), np.uint8), np.zeros((2, 20), np.int32)
    )
    assert out[0].shape == (2, 24)


def test_a_tall_checkpoint_whose_patches_would_make_a_square_stays_tall(tmp_path):
    tall = dataclasses.replace(PLAIN, image_size=(64, 16))  # 8 x 2 patches, and 4 x 4 are as many
    weights.save_folder(tmp_path, params_of(tall), tall, tokens.learn(["a"], 300), kind="openai")
    assert weights.load(tmp_path)[0].image_size == (64, 16)
    image = weights.load(tmp_path, image_size=(128, 16))[1]["image"]["positional_embedding"]
    own = params_of(tall)["image"]["positional_embedding"]
    np.testing.assert_array_equal(image, resample_grid(own, (16, 2), saved_grid=(8, 2)))


def test_the_grid_that_rotary_positions_were_trained_on_is_read_and_written(tmp_path):
    vision = dataclasses.replace(EVA.vision, rope_grid=14)
    config = dataclasses.replace(EVA, vision=vision)
    write(tmp_path, config, "eva")
    assert weights.load(tmp_path)[0].vision.rope_grid == 16  # not told
    hints = {"vision_cfg": {"rope": True, "pt_hw_seq_len": 14}}
    assert weights.load(tmp_path, hints=hints)[0].vision.rope_grid == 14
    assert to_open_clip(config, "eva")["vision_cfg"]["pt_hw_seq_len"] == 14


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("ln_final.bias", lambda x: x * np.nan, "ln_final.bias of .* that are not finite"),
        ("visual.conv1.weight", lambda x: x[0, 0], "another number of axes"),
        ("token_embedding.weight", lambda x: x[0], "another number of axes"),
    ],
)
def test_a_damaged_tensor_is_a_sentence(tmp_path, name, change, said):
    write(tmp_path, PLAIN, "openai")
    path = tmp_path / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file(arrays | {name: np.array(change(arrays[name]))}, path)
    with pytest.raises(InputError, match=said):
        weights.load(tmp_path)


def test_open_clips_epsilon_and_gelu_are_obeyed(tmp_path):
    write(tmp_path, PLAIN, "openai")
    tower = {"norm_kwargs": {"eps": 1e-3}, "act_kwargs": {"approximate": "tanh"}}
    found = weights.load(tmp_path, hints={"vision_cfg": tower, "text_cfg": {"pool_type": "argmax"}})
    towers = found[0].vision, found[0].text
    assert [(t.eps, t.activation) for t in towers] == [(1e-3, "gelu_tanh"), (1e-5, "gelu")]


def test_a_config_that_is_no_object_is_a_sentence(tmp_path):
    write(tmp_path, PLAIN, "openai")
    (tmp_path / "open_clip_config.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="is not a JSON object"):
        weights.load(tmp_path)


def test_resampling_keeps_a_ramp_and_the_ends():
    ramp = np.repeat(np.arange(4.0, dtype="f")[:, None], 4, axis=1).reshape(16, 1)
    positions = np.concatenate([[[9.0]], ramp]).astype("f")
    found = resample_grid(positions, (8, 3))
    assert found[0, 0] == 9
    rows = found[1:].reshape(8, 3)
    np.testing.assert_allclose(rows[1:-1, 0], np.arange(0.25, 3, 0.5), atol=1e-6)
    assert (rows[:, 0] == rows[:, 1]).all()
    # TBPS-CLIP's rule, unless the own grid is told: as many patches are left as they are.
    np.testing.assert_array_equal(resample_grid(positions, (8, 2)), positions)
    assert (resample_grid(positions, (8, 2), (4, 4))[1:, 0] != ramp[:, 0]).any()
    line = resample_line(np.arange(10.0, dtype="f")[:, None], 19)
    assert line[0, 0] == 0
    assert line[-1, 0] == 9
    assert (np.diff(line[:, 0]) >= 0).all()


def test_a_partial_or_foreign_checkpoint_lists_what_is_wrong(tmp_path):
    write(tmp_path, PLAIN, "openai")
    path = tmp_path / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    del arrays["ln_final.weight"]
    arrays["head.weight"] = np.zeros(3, "f")
    arrays["visual.proj"] = np.zeros((64, 23), "f")
    arrays["logit_scale"] = np.zeros(5, "f")
    safetensors.numpy.save_file(arrays, path)
    with pytest.raises(InputError) as caught:
        weights.load(tmp_path)
    assert "missing: ln_final.weight" in str(caught.value)
    assert "unexpected: head.weight" in str(caught.value)
    assert "logit_scale [5] (for [] here)" in str(caught.value)
    assert "visual.proj [64, 23] (for [64, 24] here)" in str(caught.value)
    safetensors.numpy.save_file({"bert.x": np.zeros(1, "f")}, path)
    with pytest.raises(InputError, match=r"tensors \(bert.x, ...\) of no CLIP that is known"):
        weights.load(tmp_path)
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="not a complete .safetensors file"):
        weights.load(tmp_path)


@pytest.mark.parametrize(
    ("array", "kind", "said"),
    [
        ("vision_model.head.attention.in_proj_bias", "siglip", "config says model_type='siglip'"),
        ("vision_model.embeddings.patch_embedding.weight", "chinese_clip", "'chinese_clip'"),
        ("text_model.x", "align", "config says model_type='align'"),
        ("visual.layer1.0.conv1.weight", None, "a ResNet vision tower"),
        ("base_model.model.q_proj.lora_A.weight", "clip", "1 arrays of LoRA .*merge_and_unload"),
        ("lora_unet_mid_block.lora_down.weight", None, "1 arrays of LoRA .* fuse_lora"),
    ],
)
def test_another_kind_of_model_is_called_by_its_name(tmp_path, array, kind, said):
    safetensors.numpy.save_file({array: np.zeros((2, 3, 4, 4), "f")}, tmp_path / "x.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind} if kind else {}))
    with pytest.raises(InputError, match=said):
        weights.load(tmp_path)[0]


def rename(path, change, heads=()):
    """Renames the arrays of a file and puts further ones beside them."""
    arrays = safetensors.numpy.load_file(path)
    more = {name: np.zeros(3, "f") for name in heads}
    safetensors.numpy.save_file({change(k): x for k, x in arrays.items()} | more, path)


@pytest.mark.parametrize(
    ("change", "heads", "left_out"),
    [
        (lambda k: f"base_model.{k}", ("cross_attn.in_proj_bias", "mlm_head.fc.bias"),
         "2 arrays of no CLIP are left out: cross_attn, mlm_head."),  # IRRA
        (lambda k: f"base_model.{k}", ("visul_emb_layer.fc.bias",),
         "1 arrays of no CLIP are left out: visul_emb_layer."),  # RDE, its spelling
        (lambda k: k if k.startswith(("visual.", "logit")) else f"encode_text.{k}",
         ("simclr_mlp.0.bias",), "left out: simclr_mlp."),  # TBPS-CLIP
        (lambda k: f"_orig_mod.module.{k}", (), ""),
        (lambda k: k.replace("visual.", "visual._orig_mod."), (), ""),
    ],
    ids=["IRRA", "RDE", "TBPS-CLIP", "compiled", "part compiled"],
)  # fmt: skip
def test_the_towers_in_the_fields_files_are_read(tmp_path, capsys, change, heads, left_out):
    tall = dataclasses.replace(PLAIN, image_size=(48, 16))  # as 384x128 is
    weights.save_tensors(tmp_path / "x.safetensors", params_of(tall), tall, "openai")
    rename(tmp_path / "x.safetensors", change, heads)
    hints = None if heads else {"quick_gelu": True}
    found, params = weights.load(tmp_path / "x.safetensors", hints=hints, pixels="clip")
    assert found == tall
    assert_equal(params, params_of(tall))
    assert left_out in capsys.readouterr().err


def test_a_file_without_a_logit_scale_gets_irras_and_is_told(tmp_path, capsys):
    write(tmp_path, PLAIN, "openai")
    path = tmp_path / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    del arrays["logit_scale"]
    safetensors.numpy.save_file(arrays, path)
    assert np.exp(weights.load(tmp_path)[1]["logit_scale"]) == pytest.approx(50)
    assert "has no logit_scale" in capsys.readouterr().err


def test_what_is_left_over_of_a_tower_is_refused(tmp_path):
    write(tmp_path, PLAIN, "openai")
    rename(tmp_path / "model.safetensors", lambda k: k, ["visual.ls_1.gamma"])
    with pytest.raises(InputError, match=r"unexpected: visual\.ls_1\.gamma"):
        weights.load(tmp_path)


def test_the_constants_of_published_files_are_no_parameters(tmp_path):
    write(tmp_path, PLAIN, "openai")
    path = tmp_path / "model.safetensors"
    arrays = safetensors.numpy.load_file(path)
    for name in ("input_resolution", "context_length", "vocab_size"):
        arrays[name] = np.array(1)
    arrays["attn_mask"] = np.zeros((12, 12), "f")
    safetensors.numpy.save_file(arrays, path)
    (tmp_path / "open_clip_config.json").unlink()
    found, params = weights.load(tmp_path)  # such constants are OpenAI's, whose GELU is quick
    assert found.vision.activation == "quick_gelu"
    assert_equal(params, params_of(PLAIN))


def test_what_cannot_be_read_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="does not exist; give a folder"):
        weights.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither a model trained here"):
        weights.load(tmp_path)
    (tmp_path / "clip.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"is a pickle, .*convert_pt.py"):
        weights.load(tmp_path)
    (tmp_path / "x.bin.index.json").write_text("{}")  # of a model in several pickles
    with pytest.raises(InputError, match=r"convert_pt.py .*/x.bin.index.json .*/x.safetensors$"):
        weights.load(tmp_path)
    config = write(tmp_path, PLAIN, "openai")
    (tmp_path / "open_clip_config.json").unlink()
    with pytest.raises(InputError, match="does not tell its activation"):
        weights.load(tmp_path)
    weights.save_tensors(tmp_path / "two.safetensors", params_of(config), config, "openai")
    (tmp_path / "model.safetensors").rename(tmp_path / "one.safetensors")
    with pytest.raises(InputError, match="holds 2 .safetensors files"):
        weights.load(tmp_path)


def test_an_id_that_the_hub_does_not_give_is_a_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="could not be downloaded from the hub"):
        weights.load("someone/no-such-clip")


TALL = dataclasses.replace(PLAIN, image_size=(32, 16))
HIERARCHICAL = dataclasses.replace(PLAIN, stem="hierarchical")


@pytest.mark.parametrize(
    ("config", "kind", "told"),
    [
        (TALL, "huggingface", "does not support images that are not square; .*--format=openai"),
        (dataclasses.replace(PLAIN, vision=EVA.vision), "huggingface", "not support gates.*=eva"),
        (HIERARCHICAL, "huggingface", "hierarchical stem; train with stem='patch'"),
        (EVA, "openai", "does not hold an EVA02-CLIP; use --format=eva"),
        (PLAIN, "eva", "eva holds EVA02-CLIP alone, .*; use --format=openai"),
        (TALL, "timm", "timm holds EVA02-CLIP alone, .*; use --format=openai"),
        (HIERARCHICAL, "openai", "hierarchical stem; train with stem='patch'"),
    ],
)
def test_a_format_that_cannot_hold_a_model_names_the_one_that_can(tmp_path, config, kind, told):
    words = tokens.learn(["a red coat"], 300)
    with pytest.raises(InputError, match=told):
        weights.save_folder(tmp_path / "x", params_of(config), config, words, kind=kind)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("config", "resize", "kind", "why"),
    [
        (PLAIN, "squash", "huggingface", "can hold it"),
        (PLAIN, "longest", "openai", "does not resize by 'longest'"),
        (TALL, "squash", "openai", "does not support images that are not square"),
        (EVA, "squash", "eva", "does not support .*gates"),
    ],
)
def test_the_format_that_most_tools_open_is_chosen_with_its_reason(config, resize, kind, why):
    chosen, reason = weights.choose_format(config, Resize(resize))
    assert chosen == kind
    assert re.search(why, reason)


def test_a_saved_model_brings_its_tokenizer_and_image_processor(tmp_path):
    config = write(tmp_path, PLAIN, "huggingface")
    opened = saved.open_saved(tmp_path)
    assert opened.config == config
    assert opened.resample == "bicubic"
    assert_equal(opened.read_params(), params_of(config))
    row = tokens.encode(opened.tokenizer(), ["a red coat"], 12)[0]
    assert row.argmax() == (row > 0).sum() - 1
    other = tokens.learn(["a red coat and a blue bag"] * 9, 320)
    tokens.save(other, tmp_path / "other.json")
    if other.get_vocab_size() != config.vocab_size:
        with pytest.raises(InputError, match="use the model.s own tokenizer"):
            opened.tokenizer(str(tmp_path / "other.json"))


@pytest.mark.parametrize(
    ("kind", "there"),
    [
        ("huggingface", "open_clip_model.safetensors"),
        ("openai", "model.safetensors"),
        ("huggingface", "model-00001-of-00002.safetensors"),
        ("huggingface", "merges.txt"),  # of a tokenizer that would go before tokenizer.json
        ("openai", "model.json"),  # a training's folder
    ],
)
def test_two_models_are_not_mixed_in_a_folder(tmp_path, kind, there):
    words = tokens.learn(["a red coat"] * 3, 300)
    config = dataclasses.replace(PLAIN, vocab_size=words.get_vocab_size())
    for _ in range(2):  # the same again takes the place of the first
        weights.save_folder(tmp_path, params_of(config), config, words, kind=kind)
    (tmp_path / there).write_text("")
    with pytest.raises(InputError, match=rf"holds another model \({there}\), which would be mixed"):
        weights.save_folder(tmp_path, params_of(config), config, words, kind=kind)


def test_a_tokenizer_that_was_saved_is_saved_again_as_it_is(tmp_path):
    config = write(tmp_path / "first", PLAIN, "huggingface")
    words = saved.open_saved(tmp_path / "first").tokenizer()
    weights.save_folder(tmp_path / "again", params_of(config), config, words)
    first, again = (tmp_path / name / "tokenizer.json" for name in ("first", "again"))
    assert again.read_text() == first.read_text()


OTHER = ((0.5, 0.25, 0.125), (0.5, 0.3, 0.7))


def describe(folder, name, key, values):
    """Puts settings of images into a folder, where the tool that writes `name` puts them."""
    for old in ("preprocessor_config.json", "processor_config.json"):
        (folder / old).unlink(missing_ok=True)
    path = folder / name
    whole = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(whole | {key: values} if key else values))


@pytest.mark.parametrize(
    ("kind", "name", "key"),
    [
        ("huggingface", "preprocessor_config.json", None),
        ("huggingface", "processor_config.json", "image_processor"),
        ("openai", "open_clip_config.json", "preprocess_cfg"),
    ],
)
def test_any_colours_and_filter_are_carried_in_and_out(tmp_path, capsys, kind, name, key):
    config = write(tmp_path, PLAIN, kind)
    values = {"image_mean": OTHER[0], "image_std": OTHER[1], "resample": 2, "do_center_crop": False,
              "size": {"height": 32, "width": 32}}  # fmt: skip
    if kind == "openai":
        values = {"mean": OTHER[0], "std": OTHER[1], "interpolation": "bilinear", "size": [32, 32],
                  "resize_mode": "squash"}  # fmt: skip
    describe(tmp_path, name, key, values)
    found = saved.open_saved(tmp_path)
    np.testing.assert_allclose(found.config.pixels, OTHER)
    assert found.resample == "bilinear"
    assert capsys.readouterr().err == ""
    words = tokens.learn(["a red coat"] * 3, 300)
    weights.save_folder(
        tmp_path / "out", params_of(config), found.config, words, kind=kind, resample="bilinear"
    )
    again = saved.open_saved(tmp_path / "out")
    assert (again.config.pixels, again.resample) == (found.config.pixels, "bilinear")
    assert ClipConfig.from_dict(json.loads(json.dumps(found.config.to_dict()))) == found.config


def test_images_that_are_prepared_otherwise_than_told_are_told(tmp_path, capsys):
    write(tmp_path, PLAIN, "huggingface")
    values = {"size": {"shortest_edge": 48}, "crop_size": 48, "do_center_crop": True,
              "do_rescale": False, "image_mean": [127.5] * 3, "image_std": 255}  # fmt: skip
    describe(tmp_path, "preprocessor_config.json", None, values)
    np.testing.assert_allclose(saved.open_saved(tmp_path).config.pixels, [[0.5] * 3, [1.0] * 3])
    said = capsys.readouterr().err
    assert "are cropped to a square" in said
    assert "says images of 48x48, but its positional embedding is for 32x32" in said
    saved.open_saved(tmp_path, pixels="imagenet")
    assert "not as in its training (mean (0.5, 0.5, 0.5)" in capsys.readouterr().err
    (tmp_path / "preprocessor_config.json").unlink()
    saved.open_saved(tmp_path)
    assert "its folder has no file that says how images are prepared" in capsys.readouterr().err
    describe(tmp_path, "preprocessor_config.json", None, {"image_mean": [1, 2]})
    with pytest.raises(InputError, match="does not tell how images are prepared"):
        saved.open_saved(tmp_path)


@pytest.mark.parametrize("pixels", list(PIXELS))
def test_a_saved_model_tells_how_its_colours_are_normalised(tmp_path, pixels):
    config = dataclasses.replace(PLAIN, pixels=pixels)
    write(tmp_path, config, "huggingface")
    assert saved.open_saved(tmp_path).config.pixels == pixels


def test_stacking_blocks_undoes_itself():
    tower = params_of(PLAIN)["text"]["transformer"]
    assert_equal(unstack_blocks(stack_blocks(tower)), tower)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("clip_vit_b16", 149_620_737), ("clip_vit_b32", 151_277_313), ("clip_vit_l14", 427_616_513),
     ("eva02_clip_b16", 149_691_137)],
)  # fmt: skip
def test_published_models_have_the_published_number_of_parameters(name, parameters):
    shapes = expected_shapes(PUBLISHED[name])
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == parameters


@pytest.mark.parametrize("name", ["eva02_clip_b16"])
def test_a_published_model_has_the_tensors_of_its_file(reference, name):
    groups = json.loads((reference / "param_groups_syntbpr_eva02_b16.json").read_text())
    theirs = groups["weight_decay"] | groups["no_weight_decay"]
    ours = {one.theirs for one in names.tensors("eva", PUBLISHED[name], "text.")}
    assert ours == set(theirs)
