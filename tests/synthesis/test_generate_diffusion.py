"""Stage generate with a tiny random Stable Diffusion: records in, images and records out."""

import functools
import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.manifest import Manifest, shard_digests
from jaxtbpr.core.workdir import COMMIT
from jaxtbpr.diffusion import checkpoint
from jaxtbpr.diffusion.checkpoint import fingerprint
from jaxtbpr.diffusion.generator import Generator, Images
from jaxtbpr.synthesis import augment, diffusion, generate
from tests.conftest import DATA
from tests.synthesis.stages import (
    WORDS,
    generation_config,
    make_prompts,
    open_workdir,
    prompt_records,
)

MODEL = DATA / "reference" / "diffusion" / "sd1_tiny"
COUNT = 8


def content(root: pathlib.Path, stage: str = "generate") -> dict[str, str]:
    """{path: digest} of all that a stage has left."""
    folder = root / stage
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def start(root, *, process=0, processes=0, port=0, die_after=0, devices=1):
    arguments = map(str, (root, MODEL, process, processes, port, die_after))
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, "-m", "tests.synthesis.generate_in_processes", *arguments],
        env=os.environ | {"XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out.splitlines()[-1]  # what gloo says of itself stands before it


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pathlib.Path:
    """A run on the eight devices of the tests."""
    root = tmp_path_factory.mktemp("whole")
    workdir = make_prompts(root, prompt_records(COUNT))
    done = generate.run(generation_config(MODEL), workdir)
    assert (done["records_in"], done["records_out"], done["rejected"]) == (COUNT, COUNT, 0)
    return root


def test_each_record_has_its_image_and_how_it_was_made(whole):
    records = [json.loads(x) for f in sorted((whole / "generate").glob("*.jsonl")) for x in
               f.read_text().splitlines()]  # fmt: skip
    assert [r["id"] for r in records] == [f"{k:08d}" for k in range(COUNT)]
    for record in records:
        data = (whole / record["image"]["path"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == record["image"]["sha256"]
        assert record["identity"] == record["id"]
        assert record["prompt"].startswith("a man in a ")
        assert record["generation"] == {
            "negative_prompt": "",
            "seed": 0,
            "sampler": "euler_a",
            "steps": 2,
            "guidance_scale": 3.0,
            "prediction_type": "epsilon",
            "guidance_rescale": 0.0,
            "eta": 0.0,
            "dtype": "float32",
            "checkpoint": fingerprint(MODEL),
        }
    with Image.open(whole / records[0]["image"]["path"]) as image:
        assert image.size == (16, 32)


def test_two_processes_make_the_bytes_of_one(whole, tmp_path):
    make_prompts(tmp_path, prompt_records(COUNT))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [start(tmp_path, process=k, processes=2, port=port) for k in range(2)]
    assert len({finish(one) for one in both}) == 1
    assert content(tmp_path) == content(whole)


def test_a_killed_run_goes_on_to_the_same_bytes(whole, tmp_path):
    make_prompts(tmp_path, prompt_records(COUNT))
    killed = start(tmp_path, die_after=5)
    killed.communicate(timeout=600)
    assert killed.returncode == -9
    assert 0 < len(content(tmp_path)) < len(content(whole))
    finish(start(tmp_path))
    assert content(tmp_path) == content(whole)


class Killed(Exception):
    pass


def show_places(generator, _program, prompts, _records, *_images):
    """In place of `Generator._start`: an image shows its place in its unit, and nothing else."""
    places = np.arange(len(prompts), dtype=np.uint8) % generator.unit
    pixels = np.tile(places[:, None, None, None], (*generator.size, 3))
    return Images((pixels[None, None], np.ones((1, 1, len(prompts)), bool)), len(prompts))


def killed_after(count, stage, config, root, engine=diffusion):
    """Runs `stage` in `root` until module `engine` has written `count` images."""
    written, write = [], engine.write_image

    def write_or_die(*args):
        if len(written) == count:
            raise Killed
        written.append(args)
        return write(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "write_image", write_or_die)
        with pytest.raises(Killed):
            stage.run(config, open_workdir(root))


def test_an_image_has_the_same_place_in_its_unit_whenever_a_run_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(Generator, "_start", show_places)
    monkeypatch.setattr(checkpoint, "open_checkpoint", functools.cache(checkpoint.open_checkpoint))
    before, config = tmp_path / "before", generation_config(MODEL, writer_threads=1)
    config.generate.update(height=64, width=64)  # large: units of four
    config.augment.edits = 3
    records = prompt_records(9)
    records[2]["prompt"] = "sunglasses and photography " * 20  # it takes no place
    workdir = make_prompts(before, records, size=7)
    for name, stage, images in (("generate", generate, 8), ("augment", augment, 21)):
        whole = shutil.copytree(before, tmp_path / f"{name}-whole")
        done = stage.run(config, open_workdir(whole))
        for count in range(0, images, 2):
            root = shutil.copytree(before, tmp_path / f"{name}-{count}")
            killed_after(count, stage, config, root)
            other = config.copy_and_resolve_references()
            other.generate.batch_size = 8
            stage.run(other, open_workdir(root))
            assert content(root, name) == content(whole, name)
        shutil.copytree(whole / name, before / name)
        (before / "generate/images/00000/00000004.png").write_bytes(b"no image")
        files.write_json_atomic(workdir.dir(name) / COMMIT, {"outputs": done["outputs"]})


def test_a_prompt_that_the_model_cannot_read_is_set_aside_and_told(tmp_path):
    records = prompt_records(3)
    records[1]["prompt"] = "sunglasses and photography " * 20
    records[2]["prompt"] = "in the style of <s0>, a man"
    workdir = make_prompts(tmp_path, records)
    done = generate.run(generation_config(MODEL), workdir)
    assert (done["records_out"], done["rejected"]) == (1, 2)
    rejected, unknown = Manifest(workdir.dir("generate"), done["outputs"]).rejected()
    assert unknown["rejected"]["reason"] == (
        "the prompt has <s0>, which this model has not learned: leave it out (prompts.prefix)"
    )
    assert rejected["id"] == "00000001"
    assert "tokens, but the text encoder takes 77: shorten it" in rejected["rejected"]["reason"]
    assert "prompts.max_tokens=77" in rejected["rejected"]["reason"]
    assert not (tmp_path / "generate/images/00000/00000001.png").exists()


def test_an_image_that_is_not_finite_is_set_aside(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(MODEL, model, copy_function=shutil.copyfile)
    path = model / "vae" / "diffusion_pytorch_model.safetensors"
    arrays = load_file(path)
    arrays["decoder.conv_out.bias"] = np.full_like(arrays["decoder.conv_out.bias"], np.inf)
    save_file(arrays, path)
    workdir = make_prompts(tmp_path / "run", prompt_records(2))
    done = generate.run(generation_config(model), workdir)
    assert (done["records_out"], done["rejected"]) == (0, 2)
    all_rejected = Manifest(workdir.dir("generate"), done["outputs"]).rejected()
    reasons = {rejected["rejected"]["reason"] for rejected in all_rejected}
    assert reasons == {"the image is not finite with dtype float32"}  # nothing better to try


def test_jpegs_have_the_quality_asked_for(tmp_path):
    sizes = {}
    for quality in (20, 95):
        workdir = make_prompts(tmp_path / str(quality), prompt_records(1))
        generate.run(generation_config(MODEL, jpeg_quality=quality), workdir)
        (path,) = (tmp_path / str(quality) / "generate/images").rglob("*.jpg")
        with Image.open(path) as image:
            assert image.format == "JPEG"
        sizes[quality] = path.stat().st_size
    assert sizes[20] < sizes[95]


def test_the_model_must_be_named(tmp_path):
    workdir = make_prompts(tmp_path, prompt_records(1))
    with pytest.raises(UserError, match=r"needs config.generate.model"):
        generate.run(generation_config(""), workdir)


def test_what_a_run_depends_on_outside_is_the_model():
    assert generate.fingerprint(generation_config(MODEL)) == {"model": fingerprint(MODEL)}
    config = generation_config(MODEL)
    config.generate.engine = "render"
    assert generate.fingerprint(config) == {}
    assert augment.fingerprint(config) == {"model": fingerprint(MODEL)}
    config.augment.engine = "render"
    assert augment.fingerprint(config) == {}


@pytest.fixture
def generated(whole, tmp_path):
    """A copy of the run, with stage generate finished."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    outputs = shard_digests(tmp_path / "generate")
    files.write_json_atomic(tmp_path / "generate" / COMMIT, {"outputs": outputs})
    return open_workdir(tmp_path)


def test_edits_are_made_of_the_image_towards_another_scene(generated):
    done = augment.run(generation_config(MODEL), generated)
    assert done["records_out"] == 3 * COUNT
    made = list(Manifest(generated.dir("augment"), done["outputs"]))
    bases = [r for r in made if not r["edits"] and r["image"]["path"].startswith("generate/")]
    assert len(bases) == COUNT
    for record in made:
        assert (generated.root / record["image"]["path"]).exists()
        if record in bases:
            continue
        assert record["identity"] == record["id"].split("-")[0]
        assert set(record["edits"]) == set(record["scene"])
        assert record["prompt"].startswith("a man in a ")
        assert record["prompt"] != f"a man in a {WORDS[int(record['identity'])]} coat"
        assert record["generation"]["strength"] == 0.6
    images = {r["image"]["sha256"] for r in made}
    assert len(images) == 3 * COUNT


def test_an_image_that_cannot_be_read_is_set_aside_and_has_no_edits(generated):
    first = next(iter(generated.manifest("generate")))
    (generated.root / first["image"]["path"]).write_bytes(b"no image")
    done = augment.run(generation_config(MODEL), generated)
    assert (done["records_out"], done["rejected"]) == (3 * COUNT - 3, 1)
