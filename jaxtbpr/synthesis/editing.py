"""Engine `edit` of stage augment: inversion and control of attention with a Stable Diffusion.

All edits of an image that share an inversion are made together (`edit_plans.groups`). The images of
a batch go through the groups one after the other while threads write the batch before.
"""

import concurrent.futures
import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core.errors import of_key
from jaxtbpr.core.images import ImageError
from jaxtbpr.core.manifest import Record, reject
from jaxtbpr.core.record import require
from jaxtbpr.diffusion import checkpoint as checkpoints
from jaxtbpr.diffusion.editing.editor import Editing, Editor, Edits
from jaxtbpr.diffusion.editing.prompts import Target
from jaxtbpr.diffusion.generator import Images, Sampling
from jaxtbpr.synthesis import edit_plans
from jaxtbpr.synthesis.diffusion import fingerprint
from jaxtbpr.synthesis.edit_plans import Planned
from jaxtbpr.synthesis.images import read_image, resized, unreadable, write_image

_UNITS = 16  # a multiple of the images of every unit, so that batches of all groups are as large


@dataclasses.dataclass(frozen=True)
class _Group:
    """Kinds that share an inversion. generation: their settings, for the records."""

    kinds: tuple[str, ...]
    editor: Editor
    generation: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class _Item:
    """A record and its edits by slot. pixels: its image of the editors' size; None: unreadable."""

    record: Record
    planned: Mapping[str, list[Planned]]
    pixels: np.ndarray | None


class Engine:
    """Makes the edits of records, see the module. config: the whole; root: of the workdir."""

    def __init__(self, root: epath.PathLike, config: ConfigDict):
        self._root, self._seed = root, config.seed
        self._options, self._shared = config.augment, config.generate
        kinds = config.augment.kinds.to_dict()
        self._kinds = {slot: kinds[slot] for slot in edit_plans.KINDS}
        sha256 = fingerprint(config.generate.model)
        with of_key("generate.model"):
            checkpoint = checkpoints.open_checkpoint(
                config.generate.model, config.generate.dtype, config.generate.prediction_type
            )
        shared = edit_plans.groups(self._kinds, config.augment.source)
        self._groups = [self._group(checkpoint, sha256, kinds) for kinds in shared.values()]

    def _group(self, checkpoint, sha256, kinds: Sequence[str]) -> _Group:
        options, table = self._shared, self._kinds[kinds[0]]
        steps = self._options.edit.steps
        sampling = Sampling(
            steps=steps,
            guidance_scale=table["guidance_scale"],
            negative_prompt=options.negative_prompt,
            height=options.height,
            width=options.width,
            dtype=options.dtype,
        )
        settings = {name: table[name] for name in edit_plans.SHARED if name != "first_block"}
        settings |= {
            name: self._options.edit[name]
            for name in ("distance", "inversion_rule", "match", "tail", "sample_latents")
        }
        names = {field.name for field in dataclasses.fields(Editing)}
        blocks = range(table["first_block"], 1000) if table["method"] == "masactrl" else ()
        editing = Editing(
            **{name: value for name, value in settings.items() if name in names},
            blend=any(self._kinds[slot]["blend"] for slot in kinds),
            blocks=tuple(blocks),
            blend_from=self._options.edit.blend_from,
            thresholds=(self._options.edit.blend_threshold,) * 2,
        )
        with of_key(f"augment.kinds.{kinds[0]}"):
            editor = Editor(
                checkpoint, sampling, editing,
                targets=sum(self._kinds[slot]["count"] for slot in kinds), seed=self._seed,
                batch_size=-(-options.batch_size // _UNITS) * _UNITS, label="augment",
            )  # fmt: skip
        generation = settings | {
            "sampler": "ddim", "steps": steps, "guidance_scale": table["guidance_scale"],
            "prediction_type": editor.schedule.prediction, "dtype": options.dtype,
            "negative_prompt": options.negative_prompt, "seed": self._seed, "checkpoint": sha256,
        }  # fmt: skip
        return _Group(tuple(kinds), editor, generation)

    def __call__(self, records: Iterator[Record], done: int = 0) -> Iterator[list[Record]]:
        """Yields each record with its edits, in order, their images written.

        records: all of a shard; done: how many of them an earlier run finished, for which nothing
        is yielded; see `synthesis.diffusion.Engine`.
        """
        size = self._groups[0].editor.batch if self._groups else _UNITS
        with concurrent.futures.ThreadPoolExecutor(self._shared.writer_threads) as threads:
            waiting: list[tuple[int, list[_Item], list[Images | None]]] = []
            first = 0
            while batch := list(itertools.islice(records, size)):
                if first + len(batch) > done:
                    items = [self._item(record) for record in batch]
                    waiting.append((first, items, [self._start(g, items) for g in self._groups]))
                    if len(waiting) > 1:
                        yield from self._finish(threads, done, *waiting.pop(0))
                first += len(batch)
            while waiting:
                yield from self._finish(threads, done, *waiting.pop(0))

    def _item(self, record: Record) -> _Item:
        require(record, "image", "stage 'augment'")
        try:
            pixels = read_image(self._root, record)
        except ImageError as error:
            reason = f"{record['image']['path']} {unreadable(error)}"
            return _Item(reject(record, "augment", reason), {}, None)
        planned = edit_plans.plan(record, self._kinds, self._options.source, self._seed)
        for group in self._groups:
            pixels = resized(pixels, group.editor.size)  # the same for all of them
            for slot in group.kinds:
                planned[slot] = [self._checked(group.editor, one) for one in planned[slot]]
        return _Item(record, planned, pixels)

    def _checked(self, editor: Editor, planned: Planned) -> Planned:
        """An edit, rejected if the editor cannot make it as it is meant."""
        if planned.target is None:
            return planned
        edits = Edits(planned.source, [planned.target], planned.source_words, [planned.words])
        problem = editor.problem(edits)
        return Planned(reject(planned.record, "augment", problem)) if problem else planned

    def _start(self, group: _Group, items: Sequence[_Item]) -> Images | None:
        """Starts the edits of a batch; where an image has fewer, another is made and left out."""
        edits, ids, pixels = [], [], []
        for item in items:
            if item.pixels is not None:
                planned = (one for slot in group.kinds for one in item.planned[slot])
                edits.append(self._edits(list(planned)))
                ids.append(item.record["id"])
                pixels.append(item.pixels)
        return group.editor.apply(edits, ids, np.stack(pixels)) if ids else None

    def _edits(self, planned: Sequence[Planned]) -> Edits:
        source = next((one.source for one in planned if one.target is not None), "")
        targets = [one.target or Target(source, "reweight") for one in planned]
        words = tuple(dict.fromkeys(word for one in planned for word in one.source_words))
        return Edits(source, targets, words, [one.words for one in planned])

    def _finish(self, threads, done, first, items, started) -> Iterator[list[Record]]:
        results = [
            iter(zip(*images.wait(), strict=True)) if images else iter(()) for images in started
        ]
        for k, item in enumerate(items, start=first):
            edited = {} if item.pixels is None else self._edited(item, results)
            if k >= done:
                jobs = [job for slot in self._kinds for job in edited.get(slot, ())]
                yield [item.record, *threads.map(lambda job: self._write(*job), jobs)]

    def _edited(self, item: _Item, results: Sequence[Iterator]) -> dict[str, list[tuple]]:
        """The arguments of `_write` for the edits of the next image of all groups, by slot."""
        edited = {}
        for group, result in zip(self._groups, results, strict=True):
            made = iter(zip(*next(result), strict=True))
            for slot in group.kinds:
                edited[slot] = [(group, one, next(made)) for one in item.planned[slot]]
        return edited

    def _write(self, group: _Group, planned: Planned, made: tuple[np.ndarray, bool]) -> Record:
        record, (pixels, finite) = planned.record, made
        if planned.target is None:
            return record
        if not finite:
            return reject(
                record, "augment", f"the edit is not finite with dtype {self._shared.dtype}"
            )
        image = write_image(self._root, "augment", record, pixels, self._shared.jpeg_quality)
        generation = {**group.generation, "source_prompt": planned.source}
        generation["target_prompt"] = planned.target.prompt
        if generation["method"] == "prompt_to_prompt":
            generation["cross_replace"] = planned.target.cross
            generation["self_replace"] = planned.target.self_replace
            generation["weights"] = dict(planned.target.weights)
        return record | {"source": "diffusion", "image": image, "generation": generation}
