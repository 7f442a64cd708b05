"""Scalars of a training run: a JSON-lines file for programs, event files for TensorBoard."""

import json
from collections.abc import Mapping
from typing import Any

from etils import epath
from tensorboardX import SummaryWriter

from jaxtbpr.core import files


class MetricsWriter:
    """Appends scalars to `directory/metrics.jsonl` and to TensorBoard event files.

    directory: made if missing. resume_step: rows of this step and later, which a killed run wrote
    after its last checkpoint, are removed, since they will be written again.
    """

    def __init__(self, directory: epath.PathLike, *, resume_step: int = 0):
        directory = epath.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._path = directory / "metrics.jsonl"
        rows = [row for row in read_metrics(self._path) if row["step"] < resume_step]
        files.write_text_atomic(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        self._file = self._path.open("a")
        self._events = SummaryWriter(str(directory), purge_step=resume_step)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Writes one row: {"step": step, **scalars}."""
        row = {"step": int(step)} | {name: float(value) for name, value in scalars.items()}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in scalars.items():
            self._events.add_scalar(name, float(value), int(step))

    def close(self) -> None:
        """Flushes and closes both."""
        self._file.close()
        self._events.close()


def read_metrics(path: epath.PathLike) -> list[dict[str, Any]]:
    """Reads the rows of a metrics.jsonl; a last line cut off by a kill is left out."""
    path = epath.Path(path)
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]
