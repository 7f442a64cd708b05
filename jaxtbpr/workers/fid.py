"""Inception features for FID, by an isolated worker (`worker/answering/inception.py`).

`stages.py` passes this module to stage measure, which is in another room.
"""

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.images import plain
from jaxtbpr.core.options import Option, Options
from jaxtbpr.workers import client as clients
from jaxtbpr.workers import isolated

OPTIONS: Options = {
    "weights": Option("", "Inception weights of torch-fidelity, for FID; '' = no FID"),
    **isolated.OPTIONS,
}

_TASK = 100  # images


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the digest of the weights.

    Raises UserError where there is no such file, or no reference to compare with.
    """
    weights = config.measure.fid.weights
    if not weights:
        return {}
    if not epath.Path(weights).expanduser().is_file():
        raise UserError(
            f"config.measure.fid.weights={weights} does not exist; give the file of "
            "torch-fidelity's Inception weights (weights-inception-2015-12-05-6726825d.pth)."
        )
    if not config.measure.reference:
        raise UserError(
            "config.measure.fid.weights needs config.measure.reference, the set to compare with."
        )
    return {"fid": files.sha256_of([epath.Path(weights).expanduser()])}


def check(config: ConfigDict) -> None:
    """Raises UserError where there is no environment for the network."""
    if config.measure.fid.weights:
        isolated.check(config.measure.fid.to_dict() | {"engine": "fid"}, "measure.fid")


def features(images: Iterable[bytes], config: ConfigDict, directory: epath.Path) -> np.ndarray:
    """Returns the features of encoded images, float32 [N, 2048].

    config: holds section `measure`; directory: for the images and the worker's answers, which an
    earlier run may have left. Raises UserError where there is no environment for the worker.
    """
    options = config.measure.fid
    weights = epath.Path(options.weights).expanduser().resolve()
    folder = directory / "images"
    folder.mkdir(parents=True, exist_ok=True)
    requests = []
    for number, data in enumerate(images):
        name = f"{number:07d}"
        if not (folder / name).exists():
            files.write_bytes_atomic(folder / name, plain(data))
        requests.append({"id": name, "model": str(weights), "image": f"../images/{name}"})
    tasks = {
        f"{start // _TASK:05d}": requests[start : start + _TASK]
        for start in range(0, len(requests), _TASK)
    }
    settings = options.to_dict() | {"engine": "fid"}
    answers = clients.answer_all(directory, directory / "requests", tasks, settings, "measure.fid")
    problems = [answer["problem"] for answer in answers if "problem" in answer]
    if problems:
        raise UserError(
            f"FID cannot be measured: {len(problems)} images have no features; the first: "
            f"{problems[0]}"
        )
    data = b"".join(base64.b64decode(answer["features"]) for answer in answers)
    return np.frombuffer(data, "<f4").reshape(len(answers), -1)
