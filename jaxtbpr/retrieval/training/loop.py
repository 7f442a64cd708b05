"""The training loop: steps, evaluations, checkpoints, early stopping.

A killed run resumes from its last checkpoint to the same bits. The order matters:

1. restore the state (parameters, optimizer, step, random key) of the last whole checkpoint, or
   make a new one (`start_or_resume`);
2. put the loader back to the batch after that step, before it makes any;
3. restore the weights of the pairs of the epoch that this step is in;
4. stop at once if the run had already finished or stalled: nothing is compiled for that;
5. compile the step;
6. cut the logs after that step (`TrainLog`), and train on.

At the end of a step (`finish_step`) the order is: pair weights, evaluation, checkpoint. So a
checkpoint is written only when everything that resuming needs is on disk.
"""

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
from jaxtbpr.retrieval.training.step import Step, StepConfig, TrainState, compile_step


@dataclasses.dataclass(frozen=True)
class Sets:
    """The splits that a run reads; val: those of the train sets that have one."""

    train: list[RetrievalSet]
    val: list[RetrievalSet]
    test: list[RetrievalSet]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The schedule of a run; all numbers in steps.

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
    """Everything that stays constant during a run.

    create: makes the first state; shapes: its arrays as jax.ShapeDtypeStruct with shardings;
    pair_weights: weights the pairs by their losses, or None.
    """

    plan: Plan
    sets: Sets
    batches: loader.TrainLoader
    step_config: StepConfig
    create: Callable[[jax.Array], TrainState]
    shapes: TrainState
    embedder: Embedder
    pair_weights: PairWeights | None = None

    def weights(self, pairs: np.ndarray) -> np.ndarray:
        """Returns the current weights of the pairs with these indices, float32 [B].

        The weight of the built set times the one from their losses.
        """
        weight = self.batches.pairs.weight_of_pair[pairs]
        return weight * self.pair_weights.of(pairs) if self.pair_weights else weight


def train(
    trainer: Trainer, checkpoints: Checkpoints, directory: epath.Path, *, seed: int, log_every: int
) -> None:
    """Makes or restores the state, compiles the step and runs the remaining steps of the plan."""
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
                    say(
                        f"train: stops early, since the last {trainer.plan.patience} evaluations "
                        "were no better (config.train.patience)"
                    )
                    return


def start_or_resume(
    trainer: Trainer, checkpoints: Checkpoints, seed: int
) -> tuple[TrainState, int]:
    """Returns the state to start from and its number of finished steps."""
    last = checkpoints.last_step()
    if last is None:
        return trainer.create(jax.random.key(seed)), 0
    state, data = checkpoints.restore(last, trainer.shapes)
    trainer.batches.set_state(data)
    if trainer.pair_weights:
        trainer.pair_weights.restore(last // trainer.plan.steps_per_epoch)
    say(f"train: resumes after step {last} of {trainer.plan.steps}")
    return state, last


def compile_and_say(trainer: Trainer):
    """Compiles the step and prints how long that took."""
    began = time.monotonic()
    size = trainer.plan.batch_size
    with compilation.announce("train"):
        step = compile_step(trainer.step_config, shapes=trainer.shapes, batch_size=size)
    meshes.wait_for_all("compiled")
    parameters = sum(x.size for x in jax.tree.leaves(trainer.shapes.params))
    say(
        f"train: {parameters / 1e6:.2f} million parameters on {trainer.step_config.mesh.size} "
        f"device(s), step compiled in {time.monotonic() - began:.1f} s"
    )
    return step


def steps(
    trainer: Trainer, step: Step, state: TrainState, start: int, log: TrainLog
) -> Iterator[tuple[int, TrainState]]:
    """Yields (n, state after step n) for the steps after `start`; the next step donates that state.

    The host makes batch n+1 while the devices compute step n.
    """
    plan = trainer.plan
    numbers = range(start + 1, plan.steps + 1)
    for n in progress(numbers, total=plan.steps, label="train", start=start, unit="steps"):
        began = time.monotonic()
        batch = next(trainer.batches)
        if state.step.is_ready():  # pyright: ignore[reportAttributeAccessIssue] # not in JAX's stubs
            log.waited(time.monotonic() - began)
        rows, pairs = batch.pop("index"), batch.pop("pair")
        batch["weight"] = trainer.weights(pairs)
        state, scalars = step(state, meshes.put_batch(batch, trainer.step_config.mesh))
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
    """Evaluates and saves according to the plan; if `preempted`, saves and raises UserError."""
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

    It reads evals.jsonl, so that a resumed run decides the same.
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


def evaluate(trainer: Trainer, params: Any, step: int, log: TrainLog) -> tuple[float, float] | None:
    """Evaluates all val and test sets; returns (R1, mAP), means over the val sets if any."""
    epoch = round(step / trainer.plan.steps_per_epoch, 3)
    scores = []
    for one in trainer.sets.val + trainer.sets.test:
        metrics = trainer.embedder.features(params, one).metrics(one.identities)
        log.evaluation(step, epoch, one.name, metrics)
        if one in trainer.sets.val:
            scores.append((metrics.R1, metrics.mAP))
        say(f"train: epoch {epoch:g}, {one.name}: R@1 {metrics.R1:.1%}, mAP {metrics.mAP:.1%}")
    meshes.wait_for_all("evaluation")  # the primary process wrote what `stalled` reads in all
    if not scores:
        return None
    rank_1, mean_precision = np.mean(scores, axis=0)
    return rank_1, mean_precision


def name_images(train: list[RetrievalSet], rows: np.ndarray) -> list[str]:
    """Returns the ids of images by their indices over all train sets, each once."""
    ids = [image_id for one in train for image_id in one.image_ids]
    return sorted({ids[row] for row in rows})
