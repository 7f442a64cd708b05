"""Checkpoints of a training run, written by Orbax in the background.

Each one, named by its number of finished steps, holds parameters (their moving average where a run
keeps one), optimizer state, random key and the position in the data, and is visible only when it
is complete. Two are kept: the last, from which a killed run resumes, and the selected one, the
best on the validation sets so far.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from jaxtbpr.core import files
from jaxtbpr.core.errors import InputError
from jaxtbpr.retrieval.training.step import TrainState

WHICH = ("selected", "last")


class Checkpoints:
    """The checkpoints in `directory`; use as a context manager, which waits for unfinished writes.

    The one of the best score is selected: tuples such as (R1, mAP), compared in that order.
    """

    def __init__(self, directory: epath.PathLike):
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_LastAndSelected(),
            best_fn=lambda metrics: tuple(metrics["score"]),  # without it no score is written
            enable_async_checkpointing=True,
        )
        self._manager = ocp.CheckpointManager(
            files.LiteralPath(directory).resolve(), options=options
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *exception) -> None:
        self._manager.close()

    def save(
        self, step: int, state: TrainState, data: Mapping, score: Sequence[float] | None
    ) -> None:
        """Starts writing a checkpoint; `state` may be donated as soon as this returns.

        data: the loader's state, plain JSON; score: of the validation sets, larger is better, or
        None where this step was not evaluated.
        """
        items = ocp.args.Composite(
            params=ocp.args.StandardSave(state.weights),
            training=ocp.args.StandardSave(_training(state)),
            data=ocp.args.JsonSave(dict(data)),
        )
        metrics = {"score": [float(value) for value in score or ()]}
        self._manager.save(step, args=items, metrics=metrics, force=True)

    def last_step(self) -> int | None:
        """Returns the step of the last complete checkpoint, or None."""
        return self._manager.latest_step()

    def selected_step(self) -> int | None:
        """Returns the step of the best checkpoint; without any score, of the last one."""
        steps = self._manager.all_steps()
        return max(steps, key=lambda step: _rank(self._manager.metrics(step), step), default=None)

    def restore(self, step: int, shapes: TrainState) -> tuple[TrainState, dict]:
        """Returns the state and the loader's state of a checkpoint.

        shapes: jax.ShapeDtypeStructs with the shardings of the arrays. Raises InputError where
        the checkpoint is damaged or of other shapes.
        """
        items = ocp.args.Composite(
            params=ocp.args.StandardRestore(shapes.weights),
            training=ocp.args.StandardRestore(_training(shapes)),
            data=ocp.args.JsonRestore(),
        )
        restored = self._restore(step, items)
        weights, training = restored["params"], restored["training"]
        ema = None if shapes.ema is None else weights
        params = training.pop("params", weights)
        return TrainState(params=params, ema=ema, **training), restored["data"]

    def restore_params(self, step: int, shapes: Any) -> Any:
        """Returns the parameters alone; shapes: as in `restore`, of the parameters."""
        items = ocp.args.Composite(params=ocp.args.StandardRestore(shapes))
        return self._restore(step, items)["params"]

    def step_of(self, which: str) -> int:
        """Returns the step of the checkpoint called `which`, one of WHICH.

        Raises InputError where there is no checkpoint.
        """
        step = self.selected_step() if which == "selected" else self.last_step()
        if step is None:
            raise InputError(
                f"{self._manager.directory} has no checkpoint; run stage 'train' first, or name "
                "the WORKDIR/train of a run that has trained."
            )
        return step

    def _restore(self, step: int, items: ocp.args.Composite) -> Mapping:
        try:
            return self._manager.restore(step, args=items)
        except (ValueError, KeyError, OSError) as error:  # by Orbax, for missing or other files
            message = str(error).split("\n")[0][:200]
            raise InputError(
                f"checkpoint {step} in {self._manager.directory} cannot be read ({message}): it is "
                "damaged, or model.json belongs to another model; restore them, or train again "
                "with --rerun."
            ) from error

    def wait(self) -> None:
        """Waits until everything that was saved is on disk."""
        self._manager.wait_until_finished()


class _LastAndSelected(checkpoint_managers.PreservationPolicy):
    """Keeps the last checkpoint and the one of the best score; of equal ones, the later."""

    def should_preserve(self, checkpoints, *, context):
        ranks = [_rank(info.metrics, info.step) for info in checkpoints]
        last = max((info.step for info in checkpoints), default=None)
        return [
            info.step == last or rank == max(ranks)
            for info, rank in zip(checkpoints, ranks, strict=True)
        ]


def _rank(metrics: Mapping | None, step: int) -> tuple:
    score = tuple((metrics or {}).get("score", ()))
    return bool(score), *score, step


def _training(state: TrainState) -> dict[str, Any]:
    """What only training needs; also its parameters, where the saved weights are others."""
    is_same = state.ema is None and not {"heads", "lora"} & state.params.keys()
    params = {} if is_same else {"params": state.params}
    return {"step": state.step, "opt_state": state.opt_state, "key": state.key} | params


def digest(tree: Any) -> str:
    """Returns the SHA-256 of all arrays of `tree`, names, shapes and bytes."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
