"""The real worker with a model that needs no torch: its answer is a function of the request.

A pose model's answer is in a file of JSON beside the image.

A file `die` beside the tasks makes it die like a killed process after so many answers; `slow`
makes it take its time.
"""

import json
import os
import pathlib
import signal
import sys
import time

ROOT = pathlib.Path(__file__).parents[3]
sys.path[0] = str(ROOT / "jaxtbpr" / "workers" / "worker")

from answering import errors, serve  # noqa: E402

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def text(folder, request):
    if request["seed"] % 5 == 0:
        return "I am sorry, but no."
    hats, bags, pins = (NUMBERS[int(digit)] for digit in f"{request['seed']:03d}"[-3:])
    things = f"{hats} hats, {bags} bags and {pins} pins"
    if not request["image"]:
        return f"A woman in the red coat with {things} is walking to the lake in blue shoes."
    number = NUMBERS[int((folder / request["image"]).read_text())]
    return f"The person of number {number} has {things}."


def answer(folder, settings, request):
    if settings["engine"] == "pose":
        image = folder / request["image"]
        return json.loads(image.with_suffix(".json").read_text())
    return {"text": text(folder, request), "finish": "stop"}


def open_engine(folder, settings, model):
    with (folder / "loaded.txt").open("a") as file:
        file.write(f"{os.getpid()} {model}\n")

    def engine(requests, done):
        for count, request in enumerate(r for r in requests if r["id"] not in done):
            die = folder / "die"
            if die.exists() and count == int(die.read_text()):
                die.unlink()
                os.kill(os.getpid(), signal.SIGKILL)
            if (folder / "slow").exists():
                time.sleep(0.05)
            yield {"id": request["id"]} | answer(folder, settings, request)

    if bad := {"jax", "jaxtbpr", "numpy"} & set(sys.modules):
        raise errors.Stop(f"the worker has imported {bad}")
    if model == "missing":
        raise errors.Stop(
            "model 'missing' cannot be loaded: not in the cache.\nSee:\n\n  the hub\n"
        )
    if model == "broken":
        raise RuntimeError("out of luck")
    return engine


serve._open_engine = open_engine
serve.main()
