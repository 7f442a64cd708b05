"""Engines of a Stable Diffusion: text-to-image, image-to-image, edits by instructions."""

import concurrent.futures
import dataclasses
import itertools
import operator
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core.errors import UserError, of_key
from jaxtbpr.core.manifest import Record, reject
from jaxtbpr.diffusion import checkpoint as checkpoints
from jaxtbpr.diffusion import weights
from jaxtbpr.diffusion.generator import Generator, Images, Sampling, refuse_other_unets
from jaxtbpr.synthesis.images import Job, resized, write_image

Plan = Callable[[Record], list[Job]]  # the jobs of a record


def fingerprint(model: str, section: str = "generate", kind: str = "a Stable Diffusion") -> str:
    """Returns the SHA-256 of the model of a config's section. Raises UserError for none."""
    if not model:
        raise UserError(
            f"this engine needs config.{section}.model: the folder, file or hub id of {kind}."
        )
    with of_key(f"{section}.model"):
        return checkpoints.fingerprint(model)


def check(model: str, section: str = "generate", generator: type[Generator] = Generator) -> None:
    """Raises UserError for a model of another purpose than that of `generator`."""
    with of_key(f"{section}.model"):
        refuse_other_unets(weights.read_sizes(model), images=generator.images_beside)


class Engine:
    """Makes the images of the jobs that `plan` has for each record.

    While the devices make one batch, threads write the one before it. A prompt that is too long
    for the text encoder, or whose image is not finite, is rejected. root: the workdir; stage: that
    the images belong to; options: the settings, with the keys of stage generate; seed: of the run;
    generator: makes the images; section: of the config, that errors name; told: what the records'
    `generation` tells besides; strength: of image-to-image.
    """

    def __init__(
        self,
        root: epath.PathLike,
        stage: str,
        options: ConfigDict,
        seed: int,
        plan: Plan,
        *,
        generator: type[Generator] = Generator,
        section: str = "generate",
        told: Mapping[str, Any] | None = None,
        strength: float = 1.0,
    ):
        self._root, self._stage, self._plan = root, stage, plan
        self._options = options
        sha256 = fingerprint(options.model, section=section)
        names = [field.name for field in dataclasses.fields(Sampling) if field.name in options]
        sampling = Sampling(**{name: options[name] for name in names}, strength=strength)
        with of_key(f"{section}.model"):
            checkpoint = checkpoints.open_checkpoint(
                options.model, sampling.dtype, options.prediction_type
            )
        with of_key(section):
            self._generator = generator(
                checkpoint, sampling, seed=seed, batch_size=options.batch_size, label=stage
            )
        self._made = {
            "negative_prompt": options.negative_prompt,
            "seed": seed,
            "sampler": self._generator.schedule.sampler,
            "prediction_type": self._generator.schedule.prediction,
            "steps": options.steps,
            "guidance_scale": options.guidance_scale,
            "guidance_rescale": options.guidance_rescale,
            "eta": self._generator.schedule.eta,
            "dtype": options.dtype,
            "checkpoint": sha256,
            **(told or {}),
        } | ({"strength": strength} if strength < 1 else {})

    def __call__(self, records: Iterator[Record], done: int = 0) -> Iterator[list[Record]]:
        """Yields the finished records of each record's jobs, in order, with their images written.

        records: all of a shard; done: how many of them an earlier run finished, for which nothing
        is yielded. Batches are the same as in that run, so some finished images of the first batch
        are made again: the last bits of an image depend on its place in a batch.
        """
        jobs = ((k, job) for k, record in enumerate(records) for job in self._plan(record))
        for _, some in itertools.groupby(self._do(jobs, done), key=operator.itemgetter(0)):
            yield [record for _, record in some]

    def _do(self, jobs: Iterator[tuple[int, Job]], done: int) -> Iterator[tuple[int, Record]]:
        with concurrent.futures.ThreadPoolExecutor(self._options.writer_threads) as threads:
            started: deque[tuple[list[tuple[int, Job]], Images | None]] = deque()
            for batch in self._batches(jobs):
                if batch[-1][0] < done:
                    continue
                started.append((batch, self._start([job for _, job in batch])))
                if len(started) > 1:
                    yield from self._finish(threads, done, *started.popleft())
            while started:
                yield from self._finish(threads, done, *started.popleft())

    def _batches(self, jobs: Iterator[tuple[int, Job]]) -> Iterator[list[tuple[int, Job]]]:
        """Yields batches with as many images to make as the devices take at once."""
        batch: list[tuple[int, Job]] = []
        for k, job in jobs:
            batch.append((k, self._checked(job)))
            if sum(one.is_made for _, one in batch) == self._generator.batch:
                yield batch
                batch = []
        if batch:
            yield batch

    def _checked(self, job: Job) -> Job:
        if not job.is_made:
            return job
        prompt_tokenizer, prompt = self._generator.prompt_tokenizer, _prompt(job)
        problem = prompt_tokenizer.problem(prompt)
        if not problem:
            return job
        if job.prompt:
            advice = f" (augment.change): {prompt}"
        elif prompt_tokenizer.unlearned(prompt):
            advice = " (prompts.prefix)"
        else:
            advice = (
                f"; to limit prompts to that, set prompts.tokenizer={self._options.model}, "
                f"prompts.max_tokens={prompt_tokenizer.length}"
            )
        reason = f"the prompt {problem}{advice}"
        return Job(reject(job.record, self._stage, reason), is_made=False)

    def _start(self, jobs: Sequence[Job]) -> Images | None:
        made = [job for job in jobs if job.is_made]
        if not made:
            return None
        prompts, ids = list(map(_prompt, made)), [job.record["id"] for job in made]
        sources = [job.source for job in made if job.source is not None]
        if not sources:  # all have one, or none has
            return self._generator(prompts, ids)
        images = np.stack([resized(source, self._generator.size) for source in sources])
        return self._generator.edit(prompts, ids, images)

    def _finish(self, threads, done, batch, images: Images | None) -> Iterator[tuple[int, Record]]:
        made = zip(*images.wait(), strict=True) if images else iter(())
        results = [(k, job, next(made) if job.is_made else None) for k, job in batch]
        left = [result for result in results if result[0] >= done]
        yield from threads.map(lambda result: (result[0], self._write(*result[1:])), left)

    def _write(self, job: Job, result: tuple[np.ndarray, bool] | None) -> Record:
        record = job.record
        if result is None:
            return record
        pixels, finite = result
        if not finite:
            advice = ": try float32" if self._options.dtype == "bfloat16" else ""
            reason = f"the image is not finite with dtype {self._options.dtype}{advice}"
            return reject(record, self._stage, reason)
        image = write_image(self._root, self._stage, record, pixels, self._options.jpeg_quality)
        edits = record.get("edits", [])
        return record | {
            "source": "diffusion",
            "edits": edits,
            "image": image,
            "generation": {**self._made, **job.told},
        }


def _prompt(job: Job) -> str:
    return job.prompt or job.record["prompt"]
