"""The local engine in its own environment: tiny models of random weights, through the real stage.

./tests/run.sh --isolated makes the environment with torch, which JAXTBPR_TORCH_PYTHON names.
"""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import time
import urllib.request
import zlib

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxtbpr.core import options
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.prompts import stage as prompts
from jaxtbpr.workers import client as clients
from jaxtbpr.workers import isolated
from tests.isolated import environments
from tests.workers import asked

pytestmark = pytest.mark.isolated

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def python():
    return environments.find_python("torch")


def make_model(python, kind, folder):
    environments.run(python, HERE / "tiny_mllm.py", kind, folder)
    return str(folder)


def write_people(root, count):
    asked.write_people(root, count, shard=10)
    for k in range(count):
        pixels = np.random.default_rng(k).integers(0, 256, (96, 40, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"augment/images/{k:08d}.png")


def header_of_png(width, height):
    parts = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT")
    chunks = (struct.pack(">I", len(x) - 4) + x + struct.pack(">I", zlib.crc32(x)) for x in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def caption(root, python, **changes):
    given = {"engine": "transformers", "python": python, "per_image": {"train": 1}}
    given |= {"temperature": 1.0, "top_p": 0.95, "max_tokens": 14, "min_words": 5}
    return asked.caption(root, **given | {"batch_size": 4} | changes)


def test_a_vision_language_model_captions_20_images_and_a_kill_changes_nothing(tmp_path, python):
    model = make_model(python, "qwen2_vl", tmp_path / "model")
    root = tmp_path / "w"
    write_people(root, 20)
    images = root / "augment/images"
    (images / "00000013.png").write_bytes(b"no image")
    (images / "00000011.png").write_bytes(header_of_png(20_000, 20_000))
    Image.new("RGB", (1, 300)).save(images / "00000007.png")
    result = caption(root, python, models=(model,), retries=3)
    records = asked.captioned(root)
    assert (len(records), result["records_in"]) == (20, 20)
    rejected = {r["id"][-2:]: r["rejected"]["reason"] for r in records if "rejected" in r}
    assert "the image cannot be read: cannot identify" in rejected["13"]
    assert "the image cannot be read: Image size (400000000 pixels) exceeds limit" in rejected["11"]
    assert "cannot take it: absolute aspect ratio must be smaller than 200" in rejected["07"]
    assert result["records_out"] == 20 - len(rejected) >= 6
    assert len({r["captions"][0] for r in records if r["captions"]}) == result["records_out"]
    assert result["answers"]["rejected"]

    # As a worker leaves it that was killed in the middle of a batch.
    answers = root / "caption" / "requests" / "answers"
    lines = (answers / "00000-0-0.jsonl").read_bytes().splitlines(keepends=True)
    for path in [*answers.iterdir(), *(root / "caption").glob("records-*.jsonl")]:
        path.unlink()
    (answers / "00000-0-0.0.part").write_bytes(b"".join(lines[:6]) + lines[6][:20])
    assert caption(root, python, models=(model,), retries=3) == result


@contextlib.contextmanager
def transformers_serve(python, folder):
    """Gives the URL of `transformers serve`; folder: for its files and its log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "TMPDIR": str(folder)}
    command = [pathlib.Path(python).with_name("transformers"), "serve", "--host", "127.0.0.1"]
    with (folder / "serve.log").open("wb") as log:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log, env=env)
    try:
        for _ in range(1200):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            assert server.poll() is None, (folder / "serve.log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait()


def test_a_real_server_captions_20_images_in_the_words_of_the_local_engine(tmp_path, python):
    model = make_model(python, "llava", tmp_path / "model")
    for name in ("local", "served"):
        write_people(tmp_path / name, 20)
    likeliest = {"models": (model,), "retries": 2, "temperature": 0.0, "instruction": "variable"}
    caption(tmp_path / "local", python, **likeliest)
    # It has one random generator for all requests, hence one at a time.
    served = likeliest | {"engine": "openai", "concurrency": 1}
    with transformers_serve(python, tmp_path) as url:
        result = caption(tmp_path / "served", python, url=url, **served)
    assert result["records_in"] == 20
    texts = [first_answers(tmp_path / name) for name in ("local", "served")]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 20
    assert len(set(texts[0].values())) > 4
    assert result["records_out"] >= 1
    assert result["records_out"] + result["rejected"] == 20


def first_answers(root):
    paths = (root / "caption" / "requests" / "answers").glob("*-0.jsonl")
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    return {row["id"]: " ".join(row["text"].split()) for row in rows}


def test_what_transformers_serve_does_in_silence_is_told(tmp_path, python, monkeypatch):
    """Its version 5 ignores seeds, leaves out images and answers an unknown name by HTTP 500."""
    said = []
    for module in (clients, isolated):
        monkeypatch.setattr(module, "say", said.append)
    model = make_model(python, "llava", tmp_path / "model")
    blind = make_model(python, "qwen2", tmp_path / "blind")
    given = {"engine": "openai", "retries": 1, "temperature": 1.0, "instruction": "constant"}

    def asked_of(name, **changes):
        root = tmp_path / f"w{len(list(tmp_path.glob('w*')))}"
        write_people(root, 4)
        return caption(root, python, models=(name,), **given | changes)

    def is_said(words):
        return any(words in line for line in said)

    with transformers_serve(environments.find_python("newest"), tmp_path) as url:
        given["url"] = url
        result = asked_of(model, min_words=30)  # too many
        assert result["answers"]["rejected"] == {"short": 8}
        assert is_said("gave the same answer again in 4 of 4 retries")
        assert not is_said("tokens from the server with an image")
        asked_of(blind)
        assert is_said("tokens from the server with an image and as many without")
        with pytest.raises(
            UserError, match=r"HTTP 500.*; check its log, and whether it serves 'mod"
        ):
            asked_of("model", max_attempts=2)
        names = {"max_tokens": "max_new_tokens", "temperature": "heat"}
        with pytest.raises(UserError, match=r"HTTP 422.*config key parameters\.\w+ and param"):
            asked_of(model, parameters=names)


def test_a_language_model_makes_rough_prompts_rich(tmp_path, python):
    model = make_model(python, "qwen2", tmp_path / "model")
    section = options.default_config(prompts.OPTIONS)
    section.update(engine="llm", train=6, val=1, test=1, max_tokens=200)
    section.llm.update(models=(model,), python=python, max_tokens=14, min_words=5)
    section.llm.update(retries=6, temperature=1.0)
    workdir = Workdir(tmp_path / "w", order=("prompts",), chosen=("prompts",))
    result = prompts.run(ConfigDict({"seed": 0, "prompts": section}), workdir)
    shards = [workdir.dir("prompts") / name for name in result["outputs"]]
    records = [json.loads(line) for shard in shards for line in shard.read_text().splitlines()]
    assert len(records) == 8
    assert result["records_out"] >= 3
    kept = [record for record in records if "rejected" not in record]
    assert {record["model"] for record in kept} == {model}
    assert len({record["prompt"] for record in kept}) == len(kept)


def test_a_model_that_cannot_see_is_refused_for_captions(tmp_path, python):
    model = make_model(python, "qwen2", tmp_path / "model")
    write_people(tmp_path / "w", 2)
    with pytest.raises(UserError, match=r"^model '.*' takes no images"):
        caption(tmp_path / "w", python, models=(model,))


COUNT = """
import json, pathlib, sys
from PIL import Image
from answering.transformers import LocalModel
settings = {"device": "cpu", "dtype": "auto", "batch_size": 5, "trust_remote_code": []}
request = {"messages": [{"role": "user", "text": "a red coat"}], "image": "x", "id": "x"}
request |= {"seed": 0, "temperature": 1.0, "top_p": 0.9, "max_tokens": 2}
def count(model):
    make = LocalModel(pathlib.Path("."), settings, model)._generate
    for size in [(64, 128), (20, 200), (768, 1536)]:
        images = [Image.new("RGB", size)]
        ids = make.inputs([request], images)["input_ids"]
        make([request], images)  # the network takes as many
        yield int((ids == make._network.config.image_token_id).sum())
print(json.dumps([list(count(model)) for model in sys.argv[1:]]))
"""

# A tile is 4 tokens of InternVL and of LLaVA. InternVL has one of the whole image and 2 x 4,
# 1 x 10, 2 x 4 of parts. Qwen-VL: sides in tokens of 28 (32) pixels, within the limits of `size`
# (the tiny Qwen2-VL's are 1 and 2 tokens; the library rounds sides down, but never to 0).
TOKENS = {
    "qwen2_vl": [1 * 2, 1 * 4, 1 * 1],
    "qwen3_vl": [6 * 12, 3 * 26, 24 * 48],
    "internvl": [4 * 9, 4 * 11, 4 * 9],
    "llava": [4, 4, 4],
}


@pytest.mark.parametrize("environment", ["torch", "newest"])
def test_images_are_as_many_tokens_as_the_model_s_files_ask_for(tmp_path, python, environment):
    """As the hub's files are, of transformers 4, and as 5 saves them; torchvision is nowhere."""
    models = {kind: make_model(python, kind, tmp_path / kind) for kind in TOKENS}
    rename_processor(tmp_path / "qwen3_vl", "Qwen2VLImageProcessorFast")
    rename_processor(tmp_path / "internvl", "GotOcr2ImageProcessorFast")
    reader = environments.find_python(environment)
    expected = list(TOKENS.values())
    if environment == "newest":
        expected.append(TOKENS["qwen3_vl"])
        models["new"] = make_model(reader, "qwen3_vl", tmp_path / "new")
    done = worker_says(reader, COUNT, *models.values())
    assert json.loads(done.stdout) == expected
    assert "note: " not in done.stderr


def rename_processor(folder, name):
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text()) | {"image_processor_type": name}
    path.write_text(json.dumps(settings))


def worker_says(python, program, *words):
    env = os.environ | {"PYTHONPATH": str(isolated.WORKER)}
    words = [python, "-c", program, *map(str, words)]
    done = subprocess.run(words, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    return done


def test_what_this_transformers_cannot_load_is_told_with_what_to_do(tmp_path, python):
    newest = environments.find_python("newest")
    new = make_model(newest, "qwen2", tmp_path / "new")
    for name in ("w", "v"):
        write_people(tmp_path / name, 2)
    told = r"4\.57\.\d+, which would misread .*saved by transformers 5\.\S+: set the config key `py"
    with pytest.raises(UserError, match=told):
        caption(tmp_path / "w", python, models=(new,))
    make_model(python, "qwen2_vl", tmp_path / "model")
    rename_processor(tmp_path / "model", "Cohere2VisionImageProcessor")  # it is torchvision's alone
    with pytest.raises(UserError, match=r"needs torchvision: `.* -m pip install torchvision`, in"):
        caption(tmp_path / "v", newest, models=(str(tmp_path / "model"),))


FORGETFUL = """
import transformers
from answering import seeing
load = seeing.load_processor
def load_badly(name, where):
    processor = load(name, where)
    images = processor.image_processor
    images.size = {"shortest_edge": 3136, "longest_edge": 16777216}
    images.min_pixels = 3136
    return processor
seeing.load_processor = load_badly
"""


def test_a_model_that_is_shown_fewer_tokens_than_its_files_ask_for_is_told(tmp_path, python):
    model = make_model(python, "qwen3_vl", tmp_path / "model")
    done = worker_says(python, FORGETFUL + COUNT, model)
    (told,) = (line for line in done.stderr.splitlines() if line.startswith("note: "))
    assert "gets 8 tokens for an image of 64 x 128 pixels, but" in told
    assert "asks for 72" in told


OUT_OF_MEMORY = """
import json, pathlib, sys, torch
from answering.errors import Stop
from answering.transformers import LocalModel
folder, most, large = sys.argv[1:]
settings = {"device": "cpu", "dtype": "auto", "batch_size": 5, "trust_remote_code": []}
model = LocalModel(pathlib.Path("."), settings, folder)
whole, sizes = model._generate, []
def generate(requests, images):
    sizes.append(len(requests))
    if len(requests) > int(most) or any(request["id"] == large for request in requests):
        raise torch.OutOfMemoryError("no room")
    return whole(requests, images)
request = {"messages": [{"role": "user", "text": "a red coat"}], "image": None}
request |= {"temperature": 1.0, "top_p": 0.9, "max_tokens": 6}
requests = [request | {"id": str(k), "seed": k} for k in range(5)]
expected = list(model(requests, ()))
model._generate, model._has_answered = generate, False
try:
    answers = list(model(requests, ()))
    problems = {answer["id"]: answer["problem"] for answer in answers if "problem" in answer}
    same = [answer["id"] for answer in answers if answer in expected]
    print(json.dumps([same, sizes, problems]))
except Stop as stop:
    print(stop)
"""


def test_what_does_not_fit_into_memory_is_answered_in_halves(tmp_path, python):
    model = make_model(python, "qwen2", tmp_path / "model")

    def said(most, large=""):
        return worker_says(python, OUT_OF_MEMORY, model, most, large).stdout

    assert json.loads(said(1)) == [list("01234"), [5, 2, 1, 1, 3, 1, 2, 1, 1], {}]
    same, sizes, problems = json.loads(said(5, "3"))
    assert (same, sizes) == (list("0124"), [5, 2, 3, 1, 2, 1, 1])
    assert problems["3"].startswith("the GPU's memory is too small for one request to model")
    assert said(0).startswith("the GPU's memory is too small for one request to model")


def test_code_of_a_model_runs_only_if_the_model_is_named(tmp_path, python):
    folder = tmp_path / "model"
    make_model(python, "qwen2", folder)  # for its tokenizer
    for path in [*folder.glob("*.safetensors"), folder / "generation_config.json"]:
        path.unlink()
    shutil.copy(HERE / "chat_model.py", folder)
    marker = tmp_path / "ran"
    code = {"AutoConfig": "chat_model.ChatConfig", "AutoModel": "chat_model.ChatModel"}
    config = {"model_type": "tiny_chat", "auto_map": code, "marker": str(marker)}
    (folder / "config.json").write_text(json.dumps(config))
    program = (
        "import sys, torch; from safetensors.torch import save_file;"
        "save_file({'layer.weight': torch.zeros(2, 2), 'layer.bias': torch.zeros(2)},"
        " sys.argv[1], {'format': 'pt'})"
    )
    subprocess.run([python, "-c", program, folder / "model.safetensors"], check=True)
    write_people(tmp_path / "w", 2)
    with pytest.raises(UserError, match="comes with custom code, which would be executed"):
        caption(tmp_path / "w", python, models=(str(folder),))
    assert not marker.exists()
    shutil.rmtree(tmp_path / "w" / "caption")
    caption(tmp_path / "w", python, models=(str(folder),), trust_remote_code=(str(folder),))
    assert marker.exists()
    for record in asked.captioned(tmp_path / "w"):
        assert record["captions"][0].startswith("The person of 40 by 96 is in coat")
