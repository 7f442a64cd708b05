"""The log of a training run, and the check that losses are finite."""

import collections
import json
import math
import time
from collections.abc import Callable, Mapping

import jax
import numpy as np
from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.metrics_writer import MetricsWriter, read_metrics
from jaxtbpr.retrieval.evaluation.metrics import Metrics

EVALS = "evals.jsonl"
AHEAD = 2  # steps that may be queued on the device
EVAL_METRICS = ("R1", "R5", "R10", "mAP", "mINP")


class TrainLog:
    """metrics.jsonl, TensorBoard events and evals.jsonl of the run in `directory`.

    finished_steps: of the checkpoint that the run resumes from; rows of later steps, left by a
    killed run, are removed, since they will be written again. log_every: steps between rows.
    name_images: returns the ids of images by their indices, for the message about a loss that is
    not finite. Use as a context manager, which writes the last rows. Every process checks; the
    primary one writes.
    """

    def __init__(
        self,
        directory: epath.Path,
        *,
        finished_steps: int,
        log_every: int,
        name_images: Callable[[np.ndarray], list[str]],
    ):
        self._writer = None
        self._evals = directory / EVALS
        if meshes.is_primary_process():
            self._writer = MetricsWriter(directory, resume_step=finished_steps + 1)
            rows = [row for row in read_metrics(self._evals) if row["step"] <= finished_steps]
            files.write_text_atomic(self._evals, "".join(json.dumps(row) + "\n" for row in rows))
        self._log_every, self._name_images = log_every, name_images
        self._pending: collections.deque = collections.deque()
        self._clock = _Clock()

    def __enter__(self) -> "TrainLog":
        return self

    def __exit__(self, *exception) -> None:
        if self._writer:
            self._writer.close()

    def waited(self, seconds: float) -> None:
        """Adds time in which the device was idle while the host made a batch."""
        self._clock.waited += seconds

    def step(
        self,
        step: int,
        scalars: Mapping[str, jax.Array],
        host: Mapping[str, float],
        rows: np.ndarray,
    ) -> None:
        """Records a dispatched step, numbered from 1.

        scalars: its results, maybe still being computed; host: numbers known already; rows: the
        indices of the batch's images. The step of AHEAD steps ago is fetched, checked and written:
        so the device always has a next step queued, and the host is never further ahead. Raises
        UserError as `settle` does.
        """
        self._clock.rows += len(rows) * jax.process_count()
        if step % self._log_every == 0:
            host = {**host, **self._clock.lap()}
        self._pending.append((step, scalars, host, rows))
        self._settle(until=step - AHEAD)

    def settle(self) -> None:
        """Waits for every recorded step, checks it and writes its row.

        Raises UserError for a loss or gradient that is not a number, naming step and images.
        """
        self._settle(until=None)

    def evaluation(self, step: int, epoch: float, name: str, metrics: Metrics) -> None:
        """Appends a row to evals.jsonl; epoch: passes over the data so far."""
        row = {"step": step, "epoch": epoch, "set": name}
        row |= {key: getattr(metrics, key) for key in EVAL_METRICS}
        if self._writer:
            with self._evals.open("a") as file:
                file.write(json.dumps(row) + "\n")

    def leave_out(self, seconds: float) -> None:
        """Excludes time spent on evaluations and checkpoints from the throughput."""
        self._clock.began += seconds

    def _settle(self, until: int | None) -> None:
        while self._pending and (until is None or self._pending[0][0] <= until):
            step, scalars, host, rows = self._pending.popleft()
            values = {name: float(value) for name, value in scalars.items()}
            self._check(step, values, rows)
            if self._writer and step % self._log_every == 0:
                self._writer.write(step, {**values, **host})

    def _check(self, step: int, values: Mapping[str, float], rows: np.ndarray) -> None:
        bad = [name for name in ("loss", "gradient_norm") if not math.isfinite(values[name])]
        if bad:
            names = self._name_images(rows)
            raise UserError(
                f"training stopped at step {step}: {bad[0]} is {values[bad[0]]}; lower "
                f"config.train.learning_rate or check the batch's images: {', '.join(names)}."
            )


class _Clock:
    """Images per second and fraction of time spent waiting for the host, since the last row."""

    def __init__(self):
        self.rows, self.waited, self.began = 0, 0.0, time.monotonic()

    def lap(self) -> dict[str, float]:
        now = time.monotonic()
        seconds = max(now - self.began, 1e-9)
        rates = {"images_per_second": self.rows / seconds, "host_wait": self.waited / seconds}
        self.rows, self.waited, self.began = 0, 0.0, now
        return rates
