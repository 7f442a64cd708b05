"""Stage prompts: one record for each person to be generated, with the prompt for their image.

Engine `template` draws attributes that the renderer supports, and describes them; the others are
those of SynTBPR (arXiv:2503.22171): `plain`, `grammar` (rough to rich), `llm` (the same by a
language model) and `captions` (of a real set).
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from jaxtbpr.core import attributes, files, manifest
from jaxtbpr.core.balance import balance
from jaxtbpr.core.errors import UserError, of_key
from jaxtbpr.core.manifest import Manifest, Record, Shard
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.progress import say
from jaxtbpr.core.seeds import rng
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.prompts import captions, descriptors, drawing, grammar, llm, plain, template
from jaxtbpr.prompts.clauses import Clause, Ruler, tokenizer_digest
from jaxtbpr.prompts.drawing import Prompt
from jaxtbpr.workers import client as clients

_MAX_PROMPTS = template.MAX_IDENTITIES
_KINDS = (*descriptors.KINDS, "plain")

OPTIONS: Options = {
    "engine": Option(
        "template",
        "what writes the prompts",
        choices=("template", "plain", "grammar", "captions", "llm"),
    ),
    "train": Option(2000, "training prompts", low=1, high=_MAX_PROMPTS["train"]),
    "val": Option(100, "validation prompts, for model selection", low=0, high=_MAX_PROMPTS["val"]),
    "test": Option(200, "test prompts, unseen in training", low=0, high=_MAX_PROMPTS["test"]),
    "images_per_prompt": Option(
        1, "images of each prompt, each a new identity; the paper has 5", low=1, high=1000
    ),
    "kinds": Option(
        descriptors.KINDS,
        "kinds of prompts of engines grammar and llm, equally often",
        choices=_KINDS,
    ),
    "subject": Option("", "token of a fine-tuned generator's subject, such as sks; '' = none"),
    "subject_class": Option("person", "class of that subject, written after its token"),
    "captions": Option("", "file of captions for engine captions: .txt, .jsonl or .json"),
    "prefix": Option(
        "in the style of <s0><s1>", "text before such a caption; <..> are learned tokens"
    ),
    "vocabulary": Option("", "folder of descriptor files that replace packaged ones"),
    "tokenizer": Option("", "folder or file that counts a prompt's tokens; '' = estimate"),
    "max_tokens": Option(77, "most tokens of a prompt, start and end included", low=8, high=4096),
    "shard_size": Option(1000, "records in one manifest file", low=1),
    "llm": llm.OPTIONS,
}

Draw = Callable[[str, int], Iterator[Prompt]]  # of a split, so many


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the digests of the files that the stage reads."""
    options = config.prompts
    with of_key("prompts.tokenizer"):
        prints = {"tokenizer": tokenizer_digest(options.tokenizer)}
    if options.engine == "captions":
        with of_key("prompts.captions"):
            prints["captions"] = captions.digest(options.captions)
    elif options.engine != "template":
        with of_key("prompts.vocabulary"):
            paths = descriptors.paths(options.vocabulary)
        prints |= {name: files.sha256(path.read_bytes()) for name, path in paths.items()}
    if options.engine == "llm":
        prints |= clients.fingerprint(options.llm)
    return prints


def check(config: ConfigDict) -> None:
    """Raises UserError where the stage's models cannot be used."""
    if config.prompts.engine == "llm":
        clients.check(config.prompts.llm, "prompts.llm")


def run(config: ConfigDict, workdir: Workdir) -> dict:
    """Writes the records of all splits: train, then val, then test.

    Returns the counts of every stage, and "redrawn": prompts drawn again because an earlier one is
    the same; "shortened": prompts that lost a clause to fit; "duplicates": the fraction of
    prompts whose text another has; "evenness": {slot: {"values", "entropy" over that of equal
    shares, "min", "max"}} of what was drawn. A prompt that is too long is rejected, never cut.
    """
    options, directory = config.prompts, workdir.dir("prompts")
    counts = {split: options[split] for split in template.FIRST_IDENTITY}
    _check_room(counts, options.images_per_prompt)
    total = sum(counts.values()) * options.images_per_prompt
    records = _Records(_engine(config, workdir), counts, options.images_per_prompt, config.seed)
    manifest.map_records(
        _shards(records, options.shard_size),
        directory,
        lambda shard: ([record] for record in shard),
        label="prompts",
        shard_count=math.ceil(total / options.shard_size),
    )
    outputs = manifest.shard_digests(directory)
    made = Manifest(directory, outputs)
    survey = _survey(made)
    _print(survey)
    done = {"records_in": total, "redrawn": records.redrawn, "shortened": records.shortened}
    return {"outputs": outputs} | done | manifest.count_records(made) | survey


class _Records:
    """Iterates over the records of all splits; counts prompts drawn again and shortened ones."""

    def __init__(self, draw: Draw, counts: dict[str, int], images_per_prompt: int, seed: int):
        self._draw = draw
        self._counts = counts
        self._images_per_prompt = images_per_prompt
        self._seed = seed
        self.redrawn = 0
        self.shortened = 0

    def __iter__(self) -> Iterator[Record]:
        with of_key("prompts"):
            yield from self._every()

    def _every(self) -> Iterator[Record]:
        for split, count in self._counts.items():
            for number, prompt in enumerate(self._draw(split, count)):
                self.redrawn += prompt.redrawn
                self.shortened += bool(prompt.text.dropped)
                first = template.FIRST_IDENTITY[split] + number * self._images_per_prompt
                for k in range(self._images_per_prompt):
                    yield self._record(f"{first + k:08d}", split, number, prompt)

    def _record(self, name: str, split: str, number: int, prompt: Prompt) -> Record:
        text = prompt.text
        record: Record = {"id": name, "identity": name, "split": split, "prompt": text.text}
        if self._images_per_prompt > 1:
            record["prompt_number"] = number
        if text.tokens is not None:
            record["tokens"] = text.tokens
        if text.dropped:
            record["dropped_clauses"] = list(text.dropped)
        record |= prompt.fields | {"seed": self._seed}
        return manifest.reject(record, "prompts", text.problem) if text.problem else record


def _engine(config: ConfigDict, workdir: Workdir) -> Draw:
    """Returns what draws the prompts of a split. Raises UserError where an option is missing."""
    options, seed = config.prompts, config.seed
    subject = f"{options.subject} {options.subject_class}".strip() if options.subject else ""
    is_short = options.engine == "template" and not subject and options.max_tokens >= 77
    with of_key("prompts.tokenizer"):
        ruler = Ruler(options.tokenizer, options.max_tokens, is_short=is_short)
    if options.engine == "template":
        return lambda split, count: _drawn_people(ruler, seed, subject, split, count)
    if options.engine == "captions":
        with of_key("prompts.captions"):
            texts = captions.read(options.captions)
        return lambda split, count: captions.wrap(
            texts, ruler, options.prefix, options.captions, split, count
        )
    with of_key("prompts.vocabulary"):
        words = descriptors.load(options.vocabulary)
    writer = plain.writer(subject)
    if options.engine in ("grammar", "llm"):
        if not options.kinds:
            raise UserError(
                f"config.prompts.kinds is empty; name at least one of {', '.join(_KINDS)}."
            )
        words = grammar.with_choices(words, options.kinds, subject)
        writer = grammar.writer(subject)

    def drawn(split: str, count: int) -> Iterator[Prompt]:
        return drawing.draw_prompts(writer, words, ruler, seed, split, count)

    if options.engine != "llm":
        return drawn
    counts = {split: options[split] for split in template.FIRST_IDENTITY}
    client = clients.Client(workdir.root, "prompts.llm", options.llm, seed)
    return llm.expand(drawn, counts, client, ruler, options.llm, seed, subject)


def _drawn_people(
    ruler: Ruler, seed: int, subject: str, split: str, count: int
) -> Iterator[Prompt]:
    """Yields the prompts of engine `template`, each with its attributes."""
    for identity, person, repeats in template.draw_people(seed, split, count):
        looks = person | attributes.sample_scene(rng(seed, "scene", identity))
        text = ruler.fit([Clause(template.prompt(looks, subject))])
        fields = {"subject": subject} if subject else {}  # the edits of the person name it too
        yield Prompt(text, {"attributes": looks} | fields, repeats)


def _check_room(counts: dict[str, int], images_per_prompt: int) -> None:
    for split, count in counts.items():
        if count * images_per_prompt > _MAX_PROMPTS[split]:
            raise UserError(
                f"config.prompts.{split}={count} and images_per_prompt={images_per_prompt} make "
                f"{count * images_per_prompt} identities; there is room for {_MAX_PROMPTS[split]}."
            )


def _shards(records: _Records, size: int) -> Iterator[Shard]:
    stream = iter(records)
    while shard := list(itertools.islice(stream, size)):
        yield shard


def _survey(records: Manifest) -> dict[str, Any]:
    """Returns how even the descriptors are, and the fraction of prompts whose text is not new."""
    counts: dict[str, Counter[str]] = {}
    texts: set[bytes] = set()
    prompts, last = 0, None
    for record in records:
        key = (record["split"], record.get("prompt_number", record["id"]))
        if key == last:
            continue  # one more image of the same prompt
        last = key
        prompts += 1
        texts.add(bytes.fromhex(files.sha256(record["prompt"].encode())))
        kind_of_prompt = {"kind": record["prompt_kind"]} if "prompt_kind" in record else {}
        for slot, value in (kind_of_prompt | _drawn(record)).items():
            counts.setdefault(slot, Counter())[value] += 1
    duplicates = round(1 - len(texts) / prompts, 6) if prompts else 0.0
    return {"duplicates": duplicates, "evenness": balance(counts)}


def _drawn(record: Record) -> dict[str, str]:
    return record.get("attributes") or record.get("descriptors") or {}


def _print(survey: dict[str, Any]) -> None:
    words = f"prompts: {100 * survey['duplicates']:.2f} % duplicates"
    if entropies := {slot: numbers["entropy"] for slot, numbers in survey["evenness"].items()}:
        lowest = min(entropies, key=entropies.__getitem__)
        words += f"; evenness {entropies[lowest]:.2f} ({lowest}) to {max(entropies.values()):.2f}"
    say(words)


STAGE = Stage(
    "prompts", "describes people", OPTIONS, run, reads=(), fingerprint=fingerprint, check=check
)
