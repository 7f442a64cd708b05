"""Weights and PyTorch: what we write it reads alike, and what it wrote can be converted.

./tests/run.sh --isolated makes the environment with torch, which JAXTBPR_TORCH_PYTHON names.
"""

import io
import pathlib
import shutil
import subprocess

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from jaxtbpr.core import tokenizer as tokens
from jaxtbpr.datasets import transforms
from jaxtbpr.datasets.resizing import Resize
from jaxtbpr.retrieval import saved
from jaxtbpr.retrieval.clip import weights
from jaxtbpr.retrieval.clip.model import Clip, ClipConfig, init_params
from jaxtbpr.retrieval.clip.transformer import TowerConfig
from jaxtbpr.retrieval.clip.weights import convert_pt
from jaxtbpr.retrieval.training.losses.similarity import normalize
from tests.isolated import environments

pytestmark = pytest.mark.isolated

CAPTIONS = ["A woman in a red coat.", "an old man with a black backpack and grey trousers"]

# Of the pictures of 96x40 here: 115x48, of whose middle half a pixel is left; 144x60, 60x60.
RESIZES = {
    "shortest": Resize("shortest", half="floor"),
    "larger": Resize("shortest", larger=1.25, half="floor"),
    "squash larger": Resize("squash", larger=1.25, half="floor"),
}


def torch_python(*arguments):
    return environments.run(environments.find_python("torch"), *arguments)


def make_model(activation):
    words = tokens.learn([*CAPTIONS, "a red coat"] * 3, 320)
    config = ClipConfig(
        image_size=(48, 48),
        patch_size=16,
        stem="patch",
        vision=TowerConfig(32, 2, 2, activation=activation),
        text=TowerConfig(16, 2, 2, activation=activation),
        text_length=24,
        vocab_size=words.get_vocab_size(),
        embed_dim=12,
    )
    params = jax.jit(lambda key: init_params(Clip(config), key))(jax.random.key(1))
    # Larger than at the start, so that nonlinearities count.
    return config, jax.tree.map(lambda x: 1.5 * x, params), words


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "png")
    return out.getvalue()


def ours(folder, images):
    """Features of length 1, the token ids and the logit scale, as this project finds them."""
    one = saved.open_saved(folder, resize="model")
    how = one.config.image_size, one.resample, one.resize
    small = [transforms.decode_image(png(x), *how) for x in images]
    length = one.config.text_length
    ids = tokens.encode(one.tokenizer(), list(map(tokens.clean_caption, CAPTIONS)), length)
    apply = jax.jit(lambda p, x, t: Clip(one.config).apply({"params": p}, x, t))
    image, text, scale = apply(one.read_params(), np.stack(small), ids)
    return normalize(image), normalize(text), ids, scale


@pytest.mark.parametrize("environment", ["torch", "newest"])
def test_transformers_gives_the_same_features_by_its_ordinary_calls(tmp_path, environment):
    given, out = tmp_path / "in", tmp_path / "out"
    out.mkdir()
    for activation in ("quick_gelu", "gelu", "gelu_tanh"):
        config, params, words = make_model(activation)
        weights.save_folder(given / activation, params, config, words)
    for name, resize in RESIZES.items():
        config, params, words = make_model("gelu")
        weights.save_folder(given / name, params, config, words, resize=resize)
    shutil.copytree(weights.open_checkpoint("tiny-clip").folder, given / "tiny-clip")
    images = np.random.default_rng(0).integers(0, 256, (2, 96, 40, 3), np.uint8)
    np.savez(given / "given.npz", images=images, captions=CAPTIONS)
    script = pathlib.Path(__file__).with_name("torch_clip.py")
    environments.run(environments.find_python(environment), script, given, out)
    for path in sorted(out.glob("*.npz")):
        theirs = np.load(path)
        # The folder as it was written here, and as transformers saved it after use.
        for folder in (given / path.stem, out / path.stem):
            image, text, ids, scale = ours(folder, images)
            np.testing.assert_allclose(theirs["image"], image, atol=2e-5)
            np.testing.assert_allclose(theirs["text"], text, atol=2e-5)
            np.testing.assert_array_equal(theirs["ids"], ids[:, : theirs["ids"].shape[1]])
            np.testing.assert_allclose(theirs["logit_scale"], scale, rtol=1e-6)
            scores = jax.nn.softmax(np.exp(scale) * image[:1] @ text.T)[0]
            np.testing.assert_allclose(theirs["scores"], scores, atol=1e-4)
    assert len(list(out.glob("*.npz"))) == 4 + len(RESIZES)


def test_a_pickled_checkpoint_is_converted(tmp_path):
    config, params, _ = make_model("quick_gelu")
    weights.save_tensors(tmp_path / "in.safetensors", params, config, "openai")
    program = (
        "import sys, torch, safetensors.torch as s;"
        "torch.save({'state_dict': {'module.' + k: v for k, v in s.load_file(sys.argv[1]).items()},"
        " 'epoch': 3}, sys.argv[2])"
    )
    torch_python("-c", program, tmp_path / "in.safetensors", tmp_path / "clip.pt")
    torch_python(convert_pt.__file__, tmp_path / "clip.pt", tmp_path / "out.safetensors")
    hints = {"quick_gelu": True, "vision_cfg": {"head_width": 16}, "text_cfg": {"heads": 2}}
    found, loaded = weights.load(tmp_path / "out.safetensors", hints=hints, pixels=config.pixels)
    assert found == config
    jax.tree.map(np.testing.assert_array_equal, loaded, dict(params))


@pytest.mark.parametrize(
    "settings", ["easydict.EasyDict(lr=1e-5, data=dict(size=[3, 4]))", "argparse.Namespace(lr=1)"]
)
def test_settings_beside_the_weights_are_passed_over(tmp_path, settings):
    program = (
        "import sys, argparse, torch, easydict;"
        f"torch.save({{'model': {{'a.b': torch.ones(2)}}, 'config': {settings}}}, sys.argv[1])"
    )
    torch_python("-c", program, tmp_path / "best.pt")
    torch_python(convert_pt.__file__, tmp_path / "best.pt", tmp_path / "out.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    assert found["a.b"].tolist() == [1, 1]


SAVED = """
import json, pathlib, sys, torch
folder = pathlib.Path(sys.argv[1])
one, other = {"a": torch.ones(2)}, {"a": torch.zeros(2)}
saved = {
    "averaged": {"model_ema": other, "model": one, "optimizer": {"state": {0: {"m": one["a"]}}}},
    "unusual": {"weights_of_it": one, "epoch": 3},
    "unclear": {"teacher": one, "student": other},
    "listed": [one["a"]],
    "x-1.bin": one, "x-2.bin": {"b": torch.ones(3)},
}
for name, value in saved.items():
    torch.save(value, folder / name)
index = {"weight_map": {"a": "x-1.bin", "b": "x-2.bin"}}
(folder / "x.bin.index.json").write_text(json.dumps(index))
"""


def test_what_of_a_pickle_is_taken_and_what_is_left_out_is_told(tmp_path):
    torch_python("-c", SAVED, tmp_path)

    def convert(name):
        words = [convert_pt.__file__, tmp_path / name, tmp_path / "out.safetensors"]
        python = environments.find_python("torch")
        done = subprocess.run([python, *words], capture_output=True, text=True)
        return done.stdout.partition(": ")[2].strip() or done.stderr

    def arrays():
        found = safetensors.numpy.load_file(tmp_path / "out.safetensors")
        return {name: array.tolist() for name, array in found.items()}

    assert convert("averaged") == "1 arrays; left out: model_ema (1), optimizer (1)"
    assert arrays() == {"a": [1, 1]}
    assert convert("x.bin.index.json") == "2 arrays"
    assert arrays() == {"a": [1, 1], "b": [1, 1, 1]}
    assert convert("unusual") == "1 arrays"
    assert arrays() == {"a": [1, 1]}
    assert "no arrays by their names, but groups of them (teacher (1), student (1)); load it " in (
        convert("unclear")
    )
    assert "no arrays by their names; load it yourself" in convert("listed")


def test_a_pickle_that_would_run_a_program_is_refused(tmp_path):
    program = (
        "import sys, torch, os\n"
        "class Evil:\n"
        "    def __reduce__(self): return (os.system, ('touch ' + sys.argv[2],))\n"
        "torch.save({'x': Evil()}, sys.argv[1])"
    )
    torch_python("-c", program, tmp_path / "evil.pt", tmp_path / "ran")
    python = environments.find_python("torch")
    done = subprocess.run(
        [python, convert_pt.__file__, tmp_path / "evil.pt", tmp_path / "out.safetensors"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "cannot be converted" in done.stderr
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_a_torchscript_archive_gives_its_tensors(tmp_path):
    program = "import sys, torch\nm = torch.jit.script(torch.nn.Linear(3, 2))\nm.save(sys.argv[1])"
    torch_python("-c", program, tmp_path / "linear.pt")
    torch_python(convert_pt.__file__, tmp_path / "linear.pt", tmp_path / "out.safetensors")
    assert set(safetensors.numpy.load_file(tmp_path / "out.safetensors")) == {"weight", "bias"}
