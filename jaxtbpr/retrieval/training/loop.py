"""The loop of a training run: steps, evaluations, checkpoints, and when it ends."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import optax
from etils import epath

from jaxtbpr.core import compilation, preemption
from jaxtbpr.core import mesh as meshes
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.metrics_writer import read_metrics
from jaxtbpr.core.progress import progress, say
from jaxtbpr.datasets import loader
from jaxtbpr.datasets.source import RetrievalSet
from jaxtbpr.retrieval.evaluation.embed import Embedder
from jaxtbpr.retrieval.training.checkpoint import Checkpoints
from jaxtbpr.retrieval.training.log import EVALS, TrainLog
from jaxtbpr.retrieval.training.pair_weights import PairWeights
from jaxtbpr.retrieval.training.step import Recipe, Step, TrainState, compile_step


@dataclasses.dataclass(frozen=True)
class Sets:
    """The splits that a run reads; val: those of the train sets that have one."""

    train: list[RetrievalSet]
    val: list[RetrievalSet]
    test: list[RetrievalSet]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many steps a run has and when it does what; all counted in steps.

    schedule: the learning rate of each step, from 0.
    """

    batch_size: int
    steps: int
    steps_per_epoch: int
    eval_every: int
    checkpoint_every: int
    patience: int
    schedule: optax.Schedule

    def evaluates(self, step: int) -> bool:
        return step % self.eval_every == 0 or step == self.steps

    def saves(self, step: int) -> bool:
        return step % self.checkpoint_every == 0 or self.evaluates(step)


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Everything that stays the same during a run.

    create: makes the first state; shapes: its arrays as jax.ShapeDtypeStruct with shardings;
    pair_weights: what weighs the pairs by their losses, or None.
    """

    plan: Plan
    sets: Sets
    batches: loader.TrainLoader
    recipe: Recipe
    create: Callable[[jax.Array], TrainState]
    shapes: TrainState
    embedder: Embedder
    pair_weights: PairWeights | None = None

    def weights(self, pairs: np.ndarray) -> np.ndarray:
        """Returns how much the pairs with these numbers count now, float32 [B].

        It is what the built sets say of them, times what their losses do.
        """
        weight = self.batches.pairs.weight_of_pair[pairs]
        return weight * self.pair_weights.of(pairs) if self.pair_weights else weight


def train(
    trainer: Trainer, checkpoints: Checkpoints, directory: epath.Path, *, seed: int, log_every: int
) -> None:
    """Makes or restores the state, compiles the step and runs what is left of the plan."""
    state, start = start_or_resume(trainer, checkpoints, seed)
    if start == trainer.plan.steps or stalled(trainer, directory, start):
        return
    step = compile_and_say(trainer)
    names = functools.partial(name_images, trainer.sets.train)
    with TrainLog(directory, finished_steps=start, log_every=log_every, name_images=names) as log:
        with preemption.watch() as preempted:
            for n, new in steps(trainer, step, state, start, log):
                finish_step(trainer, n, new, checkpoints, log, preempted(n))
                if trainer.plan.evaluates(n) and stalled(trainer, directory, n):
                    say(f"train: no better evaluation since {trainer.plan.patience}, so it ends")
                    return


def start_or_resume(
    trainer: Trainer, checkpoints: Checkpoints, seed: int
) -> tuple[TrainState, int]:
    """Returns the state to go on from and its number of finished steps."""
    last = checkpoints.last_step()
    if last is None:
        return trainer.create(jax.random.key(seed)), 0
    state, data = checkpoints.restore(last, trainer.shapes)
    trainer.batches.set_state(data)
    if trainer.pair_weights:
        trainer.pair_weights.restore(last // trainer.plan.steps_per_epoch)
    say(f"train: goes on after step {last} of {trainer.plan.steps}")
    return state, last


def compile_and_say(trainer: Trainer):
    """Compiles the step and tells how long that took."""
    began = time.monotonic()
    size = trainer.plan.batch_size
    with compilation.announce("train"):
        step = compile_step(trainer.recipe, shapes=trainer.shapes, batch_size=size)
    parameters = sum(x.size for x in jax.tree.leaves(trainer.shapes.params))
    say(
        f"train: {parameters / 1e6:.2f} million parameters on {trainer.recipe.mesh.size} "
        f"device(s), step compiled in {time.monotonic() - began:.1f} s"
    )
    return step


def steps(
    trainer: Trainer, step: Step, state: TrainState, start: int, log: TrainLog
) -> Iterator[tuple[int, TrainState]]:
    """Yields (n, state after step n) for the steps after `start`; the next donates that state.

    The host makes batch n+1 while the devices compute step n.
    """
    plan = trainer.plan
    numbers = range(start + 1, plan.steps + 1)
    for n in progress(numbers, total=plan.steps, label="train", start=start, unit="steps"):
        began = time.monotonic()
        batch = next(trainer.batches)
        if state.step.is_ready():
            log.waited(time.monotonic() - began)
        rows, pairs = batch.pop("index"), batch.pop("pair")
        batch["weight"] = trainer.weights(pairs)
        state, scalars = step(state, meshes.put_batch(batch, trainer.recipe.mesh))
        log.step(n, scalars, {"learning_rate": plan.schedule(n - 1)}, rows)
        yield n, state


def finish_step(
    trainer: Trainer,
    n: int,
    state: TrainState,
    checkpoints: Checkpoints,
    log: TrainLog,
    preempted: bool,
) -> None:
    """Evaluates and saves where the plan says so. Raises UserError after saving if `preempted`."""
    epoch, rest = divmod(n, trainer.plan.steps_per_epoch)
    if trainer.pair_weights and rest == 0:
        began = time.monotonic()
        log.settle()
        trainer.pair_weights.update(state.weights, epoch)
        log.leave_out(time.monotonic() - began)
    if not trainer.plan.saves(n) and not preempted:
        return
    began = time.monotonic()
    log.settle()
    score = evaluate(trainer, state.weights, n, log) if trainer.plan.evaluates(n) else None
    checkpoints.save(n, state, trainer.batches.get_state(), score)
    log.leave_out(time.monotonic() - began)
    if preempted and n < trainer.plan.steps:
        checkpoints.wait()
        raise UserError(f"stopped by SIGTERM after step {n}; rerun the same command to resume.")


def stalled(trainer: Trainer, directory: epath.Path, step: int) -> bool:
    """Whether the last `patience` evaluations up to `step` were no better than one before them.

    It is read from evals.jsonl, so a later process decides the same.
    """
    names = {one.name for one in trainer.sets.val}
    if not trainer.plan.patience or not names:
        return False
    scores: dict[int, list] = {}
    for row in read_metrics(directory / EVALS):
        if row["set"] in names and row["step"] <= step:
            scores.setdefault(row["step"], []).append((row["R1"], row["mAP"]))
    means = [tuple(np.mean(scores[n], axis=0)) for n in sorted(scores)]
    return bool(means) and len(means) - 1 - means.index(max(means)) >= trainer.plan.patience


def evaluate(trainer: Trainer, params: Any, step: int, log: TrainLog) -> tuple[float, float]:
    """Evaluates all val and test sets; returns (R1, mAP), means over the val sets."""
    epoch = round(step / trainer.plan.steps_per_epoch, 3)
    scores = []
    for one in trainer.sets.val + trainer.sets.test:
        metrics = trainer.embedder.features(params, one).metrics(one.identities)
        log.evaluation(step, epoch, one.name, metrics)
        if one in trainer.sets.val:
            scores.append((metrics.R1, metrics.mAP))
        say(f"train: epoch {epoch:g}, {one.name}: R@1 {metrics.R1:.1%}, mAP {metrics.mAP:.1%}")
    meshes.wait_for_all("evaluation")  # what one process has written, `stalled` reads in all
    return tuple(np.mean(scores, axis=0)) if scores else None


def name_images(train: list[RetrievalSet], rows: np.ndarray) -> list[str]:
    """Returns the ids of images by their numbers over all train sets, each once."""
    ids = [image_id for one in train for image_id in one.image_ids]
    return sorted({ids[row] for row in rows})
