"""Captions by multimodal models: the requests for each image, and the fields of its record."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxtbpr.captioning import instructions
from jaxtbpr.core import manifest
from jaxtbpr.core.manifest import Manifest, Record
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.seeds import rng
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.workers import answers
from jaxtbpr.workers import client as clients
from jaxtbpr.workers.answers import Limits, Refusal
from jaxtbpr.workers.client import Request, Result

OPTIONS: Options = {
    **clients.options("Qwen/Qwen2.5-VL-7B-Instruct", max_tokens=160),
    "instruction": Option(
        "variable",
        "constant, with a sentence pattern drawn for each caption, or both in turn",
        choices=(*instructions.KINDS, "both"),
    ),
    "min_words": Option(8, "fewest words of a model's caption", low=1, high=1000),
    "max_words": Option(80, "most words of a model's caption", low=1, high=10000),
}


def run(config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
    """Adds "captions" and "caption_source" to each record of the manifest before it.

    caption_source: for each caption {"model", "instruction", "pattern" if there is one,
    "rejected_answers": kinds of the answers before it}. Captions without a valid answer are
    in "rejected_captions" ({"model", "reason", "rejected_answers"}); a record without
    any caption is rejected. Returns the usual counts and "answers", statistics of the
     captions.
    """
    options = config.caption.to_dict()
    shards = list(workdir.before("caption").shards())
    directory = workdir.dir("caption")
    names = [f"records-{k:05d}-of-{len(shards):05d}.jsonl" for k in range(len(shards))]
    todo = [k for k, name in enumerate(names) if not (directory / name).exists()]
    requests = ((k, lambda k=k: _requests(shards[k], config.seed, options)) for k in todo)
    client = clients.Client(workdir.root, "caption", options, config.seed)
    for number, results in client.ask(requests, _judge(options)):

        def work(records: Iterator[Record], results=results) -> Iterator[list[Record]]:
            return ([_finished(record, config.seed, options, results)] for record in records)

        manifest.map_records(
            shards, directory, work, label="caption", shard_count=len(shards),
            part=number, parts=len(shards),
        )  # fmt: skip
    outputs = manifest.shard_digests(directory)
    made = Manifest(directory, outputs)
    counts = {"records_in": sum(map(len, shards))} | manifest.count_records(made)
    return {"outputs": outputs} | counts | {"answers": survey(made)}


def survey(made: Manifest) -> dict[str, Any]:
    """Returns statistics of the captions: lengths, vocabulary, models, rejected answers by kind."""
    lengths: Counter[int] = Counter()
    vocabulary: Counter[str] = Counter()
    models: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    lost = 0
    for record in itertools.chain(made, made.rejected()):
        for caption, source in zip(
            record.get("captions", ()), record.get("caption_source", ()), strict=True
        ):
            lengths[len(caption.split())] += 1
            vocabulary.update(answers.words(caption))
            models[source["model"]] += 1
            rejected.update(source["rejected_answers"])
        for source in record.get("rejected_captions", ()):
            rejected.update(source["rejected_answers"])
            lost += 1
    total = max(lengths.total(), 1)
    return {
        "captions": lengths.total(),
        "mean_words": round(sum(length * n for length, n in lengths.items()) / total, 2),
        "min_words": min(lengths, default=0),
        "max_words": max(lengths, default=0),
        "vocabulary": len(vocabulary),
        "said_once": sum(count == 1 for count in vocabulary.values()),
        "models": dict(sorted(models.items())),
        "rejected": dict(rejected.most_common()),
        "given_up": lost,
    }


def _requests(records: list[Record], seed: int, options: Mapping[str, Any]) -> list[Request]:
    return [
        _request(record, number, seed, options)
        for record in records
        if _problem(record) is None
        for number in range(options["per_image"][record["split"]])
    ]


def _request(record: Record, number: int, seed: int, options: Mapping[str, Any]) -> Request:
    """The request for caption `number` of a record; it depends on no other request."""
    name = record["id"]
    models = tuple(dict.fromkeys(options["models"]))
    # Models in turn, in random order, so that the captions of an image come from several.
    turn = rng(seed, "caption", "models", name).permutation(len(models))
    return Request(
        key=f"{name}/{number}",
        group=name,
        model=models[turn[number % len(models)]],
        image=record["image"]["path"],
        instruction=lambda attempt: _instruction(name, number, attempt, seed, options)[0],
    )


def _instruction(
    name: str, number: int, attempt: int, seed: int, options: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Returns an instruction, and the fields of the record about it."""
    instruction = options["instruction"]
    if instruction == "both":
        first = int(rng(seed, "caption", "kinds", name).integers(2))
        instruction = instructions.KINDS[(first + number) % 2]
    text, pattern = instructions.draw(
        instruction, rng(seed, "caption", "pattern", name, number, attempt)
    )
    return text, {"instruction": instruction} | ({} if pattern is None else {"pattern": pattern})


def _judge(options: Mapping[str, Any]) -> clients.Judge:
    limits = Limits(options["min_words"], options["max_words"])

    def judge(
        request: Request, instruction: str, text: str, finish: str, earlier: list[str]
    ) -> Refusal | None:
        return answers.check(text, limits, instruction=instruction, finish=finish, earlier=earlier)

    return judge


def _problem(record: Record) -> str | None:
    if "image" not in record:
        return "a model needs an image, and the record has none: add stage generate"
    if record.get("split") not in ("train", "val", "test"):
        return f"its split is {record.get('split')!r}; it must be train, val or test"
    return None


def _finished(
    record: Record, seed: int, options: Mapping[str, Any], results: Mapping[str, Result]
) -> Record:
    """Returns `record` with its captions, or rejected."""
    if problem := _problem(record):
        return manifest.reject(record, "caption", problem)
    captions, sources, lost = [], [], []
    for number in range(options["per_image"][record["split"]]):
        request = _request(record, number, seed, options)
        done = results[request.key]
        source = {"model": request.model, "rejected_answers": list(done.rejected)}
        if done.text is None:
            assert done.last is not None
            lost.append(source | {"reason": done.last.reason})
            continue
        _, notes = _instruction(record["id"], number, done.attempt, seed, options)
        captions.append(done.text)
        sources.append(source | notes)
    record = record | {"captions": captions, "caption_source": sources}
    if lost:
        record["rejected_captions"] = lost
    if not captions:
        reason = (
            f"no usable caption after {len(lost[0]['rejected_answers'])} attempts: "
            f"{lost[0]['reason']}"
        )
        return manifest.reject(record, "caption", reason)
    return record
