"""Time of the stages build and measure beside that of another commit, run in turn.

    python tests/benchmarks/stages.py --against=f119856 [--records=20000] [--repeats=3]

Makes a run of drawn people (96x48, each image a file of its own, two captions each) up to stage
caption, and lets each side make build and measure of it by its own command line; measure judges by
tiny-clip. Both times are of the stage alone: seconds as the stage tells them, and CPU seconds of
the command with its worker processes, less those of the same command when all is done. Prints the
ratio of the best times of each side, and which files of the two are not the same.
"""

import argparse
import hashlib
import io
import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image

from jaxtbpr.core import files, seeds
from jaxtbpr.core.attributes import sample_person, sample_scene
from jaxtbpr.core.manifest import shard_digests
from jaxtbpr.render import render

ROOT = pathlib.Path(__file__).parents[2]
STAGES = ("build", "measure")
DRAWN = 200  # people who are drawn; the others are these, moved and in other colours
SHARD = 1000


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        other = pathlib.Path(scratch) / "other"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(other), options.against], check=True)
        try:
            run = pathlib.Path(scratch) / "run"
            make_run(run, options.records)
            for stage in options.stages.split(","):
                compare(stage, run, other, options.repeats)
        finally:
            subprocess.run([*git, "remove", "--force", str(other)], check=True)


def compare(stage: str, run: pathlib.Path, other: pathlib.Path, repeats: int) -> None:
    """Prints the times of a stage in the working tree and in `other`, and what they are in all."""
    sides: dict[str, list[dict]] = {"here": [], "there": []}
    for _ in range(repeats):
        for name, tree in zip(sides, (ROOT, other), strict=True):
            sides[name].append(measure(stage, run, tree))
    for what in ("seconds", "cpu"):
        here, there = (min(one[what] for one in some) for some in sides.values())
        print(f"{stage} {what}: {here:.1f} here, {there:.1f} there, ratio {here / there:.2f}")
    here, there = (some[-1]["files"] for some in sides.values())
    differing = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    print(f"{stage}: of {len(here)} files {len(differing)} differ {differing[:6]}", flush=True)


def measure(stage: str, run: pathlib.Path, tree: pathlib.Path) -> dict:
    """Lets the code in `tree` make a stage of `run` anew."""
    shutil.rmtree(run / stage, ignore_errors=True)
    first, again = (cpu_of(stage, run, tree) for _ in range(2))  # then it is done, and is skipped
    commit = json.loads((run / stage / "commit.json").read_text())
    made = [path for path in (run / stage).rglob("*") if path.is_file()]
    digests = {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
               for path in made if path.name != "commit.json"}  # fmt: skip
    shutil.rmtree(run / stage)
    return {"seconds": commit["seconds"], "cpu": first - again, "files": digests}


def cpu_of(stage: str, run: pathlib.Path, tree: pathlib.Path) -> float:
    command = [sys.executable, "-m", "jaxtbpr.main", "--config=configs/syn.py", f"--workdir={run}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [*command, f"--config.stages=('{stage}',)"],
        cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def make_run(run: pathlib.Path, count: int) -> None:
    """Writes the stages of a run up to caption."""
    (run / "generate" / "images").mkdir(parents=True)
    (run / "caption").mkdir()
    people = [sample_person(seeds.rng(0, k)) | sample_scene(seeds.rng(1, k)) for k in range(DRAWN)]
    drawn = [render(one, seed=0, record_id=str(k), height=96, width=48)
             for k, one in enumerate(people)]  # fmt: skip
    shards = -(-count // SHARD)
    for shard in range(shards):
        numbers = range(shard * SHARD, min(count, (shard + 1) * SHARD))
        lines = [json.dumps(record(run, k, people[k % DRAWN], drawn[k % DRAWN])) for k in numbers]
        name = f"records-{shard:05d}-of-{shards:05d}.jsonl"
        (run / "caption" / name).write_text("".join(f"{line}\n" for line in lines))
    # Older commits want the count of rejected records under its former name.
    counts = {"records_in": count, "records_out": count, "seconds": 0.0}
    counts |= dict.fromkeys(("rejected", "set_aside"), 0)
    made = {"outputs": shard_digests(run / "caption"), "recipe": {"config": {}, "inputs": {}}}
    files.write_json_atomic(run / "caption" / "commit.json", made | counts)


def record(run: pathlib.Path, number: int, person: dict, pixels: np.ndarray) -> dict:
    """Writes the image of a record and returns the record."""
    rng = np.random.default_rng(number)
    moved = np.roll(pixels, rng.integers(0, 48, 2), (0, 1))[..., rng.permutation(3)]
    data = io.BytesIO()
    Image.fromarray(moved).save(data, "JPEG", quality=90)
    path = f"generate/images/{number:08d}.jpg"
    (run / path).write_bytes(data.getvalue())
    image = {"path": path, "sha256": files.sha256(data.getvalue()), "height": 96, "width": 48}
    words = ", ".join(f"{slot.replace('_', ' ')} {value}" for slot, value in person.items())
    return {
        "id": f"{number:08d}",
        "identity": f"{number // 2:08d}",
        "split": ("train", "train", "train", "val", "test")[number // 2 % 5],
        "prompt": f"a photo of a person, {words}",
        "seed": 0,
        "source": "render",
        "edits": [],
        "attributes": person,
        "image": image,
        "captions": [f"Person {number}: {words[:60]}.", f"There is {words[-80:]}"],
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--against", required=True, help="commit to compare with")
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stages", default=",".join(STAGES))
    return parser.parse_args()


if __name__ == "__main__":
    main()
