"""The isolated worker: kills on either side change nothing; several share one run."""

import ast
import dataclasses
import importlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from jaxtbpr.core.errors import UserError
from jaxtbpr.workers import client as clients
from jaxtbpr.workers import install, isolated
from tests.workers import asked, fault_server

REAL = isolated.WORKER
FAKE = pathlib.Path(__file__).parent / "fake_worker"
NEEDS_NOTHING = dataclasses.replace(isolated.ENGINES["transformers"], packages=())
OPTIONS = {"engine": "transformers", "python": sys.executable, "claim_seconds": 2.0}


@pytest.fixture(autouse=True)
def fake_worker(monkeypatch):
    monkeypatch.setattr(isolated, "WORKER", FAKE)
    monkeypatch.setitem(isolated.ENGINES, "transformers", NEEDS_NOTHING)


def run(root, **changes):
    if not (root / "augment").exists():
        asked.write_people(root)
    return asked.caption(root, **OPTIONS | changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run gives: its result and its records."""
    root = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolated, "WORKER", FAKE)
        patch.setitem(isolated.ENGINES, "transformers", NEEDS_NOTHING)
        result = run(root)
    return result, asked.captioned(root)


def test_every_image_is_captioned_as_its_own(whole):
    result, records = whole
    assert (result["records_out"], result["rejected"]) == (10, 0)
    for number, record in enumerate(records):
        assert len(record["captions"]) == 2
        assert all(f"number {asked.NUMBERS[number]} " in text for text in record["captions"])
    assert result["answers"]["rejected"].keys() == {"refusal"}


def test_a_worker_killed_in_the_middle_changes_nothing(tmp_path, whole, capsys):
    asked.write_people(tmp_path)
    folder = tmp_path / "caption" / "requests"
    folder.mkdir(parents=True)
    (folder / "die").write_text("3")
    assert run(tmp_path) == whole[0]
    assert len((folder / "loaded.txt").read_text().splitlines()) == 2
    assert "a worker ended with status -9 and is restarted" in capsys.readouterr().err


def test_a_run_killed_in_the_middle_changes_nothing_and_leaves_no_worker(tmp_path, whole):
    asked.write_people(tmp_path)
    folder = tmp_path / "caption" / "requests"
    folder.mkdir(parents=True)
    (folder / "slow").touch()
    program = (
        "import json, pathlib, sys; from jaxtbpr.workers import isolated;"
        "from tests.workers import asked; from tests.workers.test_isolated import NEEDS_NOTHING;"
        "isolated.WORKER = pathlib.Path(sys.argv[2]);"
        "isolated.ENGINES['transformers'] = NEEDS_NOTHING;"
        "asked.caption(pathlib.Path(sys.argv[1]), **json.loads(sys.argv[3]))"
    )
    words = [sys.executable, "-c", program, str(tmp_path), str(FAKE), json.dumps(OPTIONS)]
    process = subprocess.Popen(words, cwd=pathlib.Path(__file__).parents[2])
    wait_for(lambda: any((folder / "answers").glob("*.part")))
    worker = int((folder / "loaded.txt").read_text().split()[0])
    process.send_signal(signal.SIGKILL)
    process.wait()
    wait_for(lambda: not is_alive(worker))
    (folder / "slow").unlink()
    assert run(tmp_path) == whole[0]


def test_workers_started_by_hand_share_the_tasks(tmp_path, whole):
    asked.write_people(tmp_path)
    folder = tmp_path / "caption" / "requests"
    folder.mkdir(parents=True)
    (folder / "slow").touch()
    results = []
    stage = threading.Thread(target=lambda: results.append(run(tmp_path, workers=0)))
    stage.start()
    wait_for(lambda: (folder / "settings.json").exists())
    workers = [subprocess.Popen([sys.executable, FAKE, folder, "--name", f"w{k}"]) for k in (0, 1)]
    stage.join()
    assert [worker.wait() for worker in workers] == [0, 0]
    assert results == [whole[0]]
    assert len((folder / "loaded.txt").read_text().splitlines()) == 2


def test_what_is_waited_for_is_told_and_answers_once_counted_stay_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clients, "SECONDS_BETWEEN_LINES", 0.0)
    folder = tmp_path / "caption" / "requests"
    folder.mkdir(parents=True)
    (folder / "slow").touch()
    run(tmp_path)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("caption: ")]
    waiting = f"waiting for the worker's first answer; its log is {folder}/worker-0.log"
    assert said[0].endswith(waiting)
    assert not any(" 1 tasks" in line for line in said)
    counts = [int(n) for line in said for n in re.findall(r"(\d+) answers so far", line)]
    assert 0 < counts[0] < counts[-1]
    assert counts == sorted(counts)


def test_each_model_of_several_is_loaded_once_a_round(tmp_path):
    run(tmp_path, models=("a", "b"), retries=0)
    loaded = (tmp_path / "caption" / "requests" / "loaded.txt").read_text().split()[1::2]
    assert sorted(loaded) == ["a", "b"]
    for record in asked.captioned(tmp_path):
        sources = record.get("caption_source", []) + record.get("rejected_captions", [])
        assert {source["model"] for source in sources} == {"a", "b"}


def test_what_a_worker_says_is_told_in_one_sentence(tmp_path):
    told = r"^model 'missing' cannot be loaded: not in the cache\. See: the hub$"
    with pytest.raises(UserError, match=told):
        run(tmp_path / "a", models=("missing",))
    with pytest.raises(UserError, match=r"3 times in a row \(RuntimeError: out of luck\); see "):
        run(tmp_path / "b", models=("broken",))


def test_an_environment_is_asked_for_in_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(
        UserError, match=r"run `python -m jaxtbpr.workers.install transformers`, set config"
    ):
        run(tmp_path / "w", python="")
    with pytest.raises(UserError, match=r"config.caption.python=/no/python cannot be run"):
        run(tmp_path / "w", python="/no/python")
    with pytest.raises(UserError, match=f"config.caption.python={tmp_path} cannot be run"):
        run(tmp_path / "w", python=str(tmp_path))  # a folder, which Linux calls executable


@pytest.mark.parametrize("url", ["", "localhost:8000/v1", "ftp://host/v1"])
def test_a_server_has_a_web_address(tmp_path, url):
    with pytest.raises(UserError, match=r"config.caption.url=.* must begin with http:// or"):
        run(tmp_path / "w", engine="openai", url=url)


ASKS = {"engine": "openai", "workers": 1, "url": ""}


@pytest.mark.parametrize("section", ["caption", "prompts.llm"])
def test_a_server_that_is_not_there_is_told_before_anything_runs(section):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with pytest.raises(UserError, match=rf"config\.{section}\.url='{url}': no server .*refused"):
        isolated.check(ASKS | {"url": url}, section)
    with pytest.raises(UserError, match=r"no server can be reached there \(nonnumeric port"):
        isolated.check(ASKS | {"url": "http://localhost:port/v1"}, section)
    isolated.check(ASKS | {"url": url, "workers": 0}, section)  # they may be elsewhere


def test_a_server_that_answers_anything_or_is_busy_is_there(monkeypatch):
    monkeypatch.setattr(isolated, "_CONNECT_TIMEOUT", 0.2)
    with fault_server.serving(lambda body: "") as server:
        isolated.check(ASKS | {"url": server.url}, "caption")
    for answer in (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0\r\n", b""):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            address = listening.getsockname()
            thread = threading.Thread(target=reply, args=(listening, answer))
            thread.start()
            isolated.check(ASKS | {"url": f"http://127.0.0.1:{address[1]}/v1"}, "caption")
            thread.join()


def reply(listening, answer):
    """Sends an answer to one request; none: keeps it waiting."""
    connection, _ = listening.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(answer) if answer else time.sleep(0.4)


def test_a_python_that_is_none_or_lacks_packages_is_told_before_anything_runs(monkeypatch):
    given = {"engine": "pose", "model": "net.onnx", "workers": 1, "python": sys.executable}
    lacking = dataclasses.replace(isolated.ENGINES["pose"], packages=("json", "no_such_package"))
    monkeypatch.setitem(isolated.ENGINES, "pose", lacking)
    with pytest.raises(
        UserError, match=r"engine 'pose' of config.filter.pose needs packages that .* does n"
    ):
        isolated.check(given, "filter.pose")
    with pytest.raises(
        UserError, match=r"\(no_such_package, mediapipe\); `python -m jaxtbpr.worke"
    ):
        isolated.check(given | {"model": "mediapipe"}, "filter.pose")
    with pytest.raises(UserError, match="config.filter.pose.python=/bin/ls is not a Python"):
        isolated.check(given | {"python": "/bin/ls"}, "filter.pose")
    isolated.check(given | {"python": "/bin/ls", "workers": 0}, "filter.pose")


def test_a_worker_that_lacks_a_package_tells_it_too(tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "WORKER", REAL)
    with pytest.raises(UserError, match=r"does not have \(No module named 'torch'\); `python -m"):
        run(tmp_path)


def test_a_model_in_the_home_folder_is_the_worker_s_too(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    run(tmp_path / "w", models=("~/mine",), trust_remote_code=("~/mine",))
    folder = tmp_path / "w" / "caption" / "requests"
    assert (folder / "loaded.txt").read_text().split()[1::2] == [str(tmp_path / "mine")]
    assert json.loads((folder / "settings.json").read_text())["trust_remote_code"] == [
        str(tmp_path / "mine")
    ]
    assert asked.captioned(tmp_path / "w")[0]["caption_source"][0]["model"] == "~/mine"


def test_options_with_which_no_answer_can_do_are_told(tmp_path):
    with pytest.raises(UserError, match=r"config.caption.models names no model"):
        run(tmp_path / "a", models=())
    with pytest.raises(UserError, match=r"min_words=9 is more than max_words=8"):
        run(tmp_path / "b", min_words=9, max_words=8)
    assert not (tmp_path / "a" / "caption").exists()


@pytest.mark.parametrize(("model", "why"), [("no", "does not exist"), ("empty", "has no config")])
def test_a_model_s_folder_that_is_none_is_told_before_anything_runs(tmp_path, model, why):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"config.caption.models names .*/{model}, which {why}"):
        run(tmp_path / "w", models=("owner/of-the-hub@main", str(tmp_path / model)))
    assert not (tmp_path / "w" / "caption").exists()


PIP = """import sys
print("Collecting torch==1\\n  Downloading torch-1.whl.metadata (9 kB)")
print("  Downloading torch-1.whl (900 MB)", flush=True)
sys.exit("ERROR: no space")"""


def test_what_pip_does_is_told_line_by_line_and_its_last_words_in_the_end(capsys):
    with pytest.raises(UserError, match="failed: ERROR: no space; fix it"):
        install._run([sys.executable, "-c", PIP])
    told = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert told == ["Collecting torch==1", "Downloading torch-1.whl (900 MB)"]


def test_the_environment_is_made_once_and_found_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    commands = []

    def run(words):
        commands.append(words[1:3])
        install.place(requirements).mkdir(exist_ok=True)

    monkeypatch.setattr(install, "_run", run)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("torch==1\n")
    half = install.place(requirements) / "half-done"
    half.mkdir(parents=True)
    assert install.find(requirements) is None
    python = install.install(requirements)
    assert not half.exists()
    assert install.install(requirements) == install.find(requirements) == python
    assert commands == [["-m", "venv"], ["-m", "pip"]]
    assert f"into {python.parents[1]} (some GB)" in capsys.readouterr().err
    requirements.write_text("torch==2\n")
    assert install.find(requirements) is None


def test_the_workers_code_imports_neither_jax_nor_jaxtbpr():
    folder = pathlib.Path(isolated.__file__).parent / "worker"
    files = list(folder.rglob("*.py"))
    assert len(files) >= 6
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])]
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            roots = {name.split(".")[0] for name in names}
            assert not roots & {"jax", "jaxlib", "flax", "jaxtbpr"}, path


def test_nothing_but_the_worker_imports_torch():
    root = pathlib.Path(isolated.__file__).parents[1]
    apart = (root / "workers" / "worker", root / "retrieval" / "clip" / "weights" / "convert_pt.py")
    paths = [p for p in root.rglob("*.py") if not any(p.is_relative_to(other) for other in apart)]
    paths = [path for path in paths if path.name != "__main__.py"]
    for path in paths:
        parts = path.relative_to(root.parent).with_suffix("").parts
        importlib.import_module(".".join(parts).removesuffix(".__init__"))
    assert len(paths) > 150
    assert not {"torch", "torchvision", "mediapipe", "onnxruntime"} & set(sys.modules)


@pytest.mark.parametrize("engine", isolated.ENGINES.values(), ids=isolated.ENGINES)
def test_each_engine_of_the_table_is_there(engine):
    module, _, name = engine.opens.partition(".")
    tree = ast.parse((REAL / "answering" / f"{module}.py").read_text())
    (kind,) = (n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    (init,) = (n for n in kind.body if getattr(n, "name", "") == "__init__")
    assert len(init.args.args) == 4  # self, folder, settings, model


def test_requirements_are_pinned():
    wanted = {"transformers": "torch==", "pose": "onnxruntime==", "fid": "torch-fidelity=="}
    assert wanted.keys() == install.REQUIREMENTS.keys()
    for engine, package in wanted.items():
        lines = install.REQUIREMENTS[engine].read_text().splitlines()
        packages = [line.split("#")[0].strip() for line in lines if not line.startswith("#")]
        assert any(line.startswith(package) for line in packages)
        assert all("==" in line.split(";")[0] for line in packages)


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Orphans of a container without an init stay as zombies.
    return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
