"""Stage build: TFDS sets out of the manifest before it and of folders of real data.

The records of each set are read once. *Check* decodes every image once and rejects what cannot
be used; a killed run resumes at the record where it stopped. The results are then counted,
and *write* copies the encoded images into array_record shards and makes the index, both in one
pass; a killed run resumes at the shards (1,024 images) where it stopped.

    WORKDIR/build/NAME/BUILDER/1.0.0/   the TFDS set
    WORKDIR/build/NAME/train.jsonl ...  image id, identity and captions of each image, in order
    WORKDIR/build/NAME/done.json        counts and digests; written last
    WORKDIR/build/rejected.jsonl       what cannot be used, and why
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from jaxtbpr.core import files, seeds
from jaxtbpr.core import record as records
from jaxtbpr.core.errors import InputError, UserError, of_key
from jaxtbpr.core.manifest import Manifest, Record, is_kept, map_records, shard_digests
from jaxtbpr.core.options import Option, Options
from jaxtbpr.core.process_pool import process_map
from jaxtbpr.core.progress import progress, say
from jaxtbpr.core.stage import Stage
from jaxtbpr.core.workdir import Workdir
from jaxtbpr.datasets import (
    builder,
    formats,
    image_paths,
    leakage,
    own_outputs,
    published,
    reid_sets,
    rows,
    survey,
)
from jaxtbpr.datasets.fingerprint import changes as fingerprint_changes
from jaxtbpr.datasets.fingerprint import folder_fingerprint
from jaxtbpr.datasets.leftover import Leftover
from jaxtbpr.datasets.source import SPLITS, index_path

SYNTHETIC = "synthetic"
_CHUNK = 4096  # rows per shard of the check pass

OPTIONS: Options = {
    "folders": Option({}, 'folders of real data: set name -> folder, "" for none'),
    "images": Option({}, "set name -> folder of its images, where that is not the usual one"),
    "formats": Option({}, "set name -> its form (see validate), where the detected one is wrong"),
    "val_fraction": Option(
        0.1,
        "fraction of the train identities that become val in a set without a val split",
        low=0,
        high=0.5,
    ),
    "exif": rows.EXIF,
    "processes": Option(0, "worker processes; 0 = one per core", low=0, runtime=True),
}


@dataclasses.dataclass(frozen=True)
class _Input:
    """One set to build.

    rows: starts reading its rows. title: the published set, or "". remarks: how the
    annotation is read where that is not plain. survey_rows: makes the survey of `validate` from
    checked rows and the names of the first images.
    """

    name: str
    rows: Callable[[], Iterator[Record]]
    title: str = ""
    remarks: tuple[str, ...] = ()
    survey_rows: Callable[[Iterable[Record], Iterable[str]], survey.Survey] | None = None


def fingerprint(config: ConfigDict) -> dict[str, Any]:
    """Returns the state of the folders: their annotation files and their images (see
    `fingerprint.py`).

    Raises UserError where a folder is not a data set, or would be read without a part of it.
    """
    prints = {}
    for name, folder in _folders(config).items():
        form, images = _form(config, name, folder), _images(config, name)
        annotations = formats.annotation_files(folder, form)
        _refuse_loss(name, folder, formats.leftovers(folder, form))
        prints[name] = folder_fingerprint(annotations, formats.read(folder, form, images=images))
    return prints


def run(config: ConfigDict, workdir: Workdir) -> dict[str, Any]:
    """Builds the set "synthetic" from the manifest before it, if any, and one per folder.

    Raises UserError where there is nothing to build, or nothing usable in a set.
    """
    directory = workdir.dir("build")
    inputs = _inputs(config, workdir)
    if not inputs:
        raise UserError(
            f"stage 'build' has nothing to build in {workdir.root}: add an earlier stage to "
            "config.stages, or name a folder in config.build.folders."
        )
    overlaps = _overlaps(inputs)
    for text in overlaps.values():
        say(f"build: warning: {text}")
    sets = {one.name: _finish_set(one, directory / one.name, config, workdir) for one in inputs}
    rejected = b"".join((directory / name / "rejected.jsonl").read_bytes() for name in sets)
    files.write_bytes_atomic(directory / "rejected.jsonl", rejected, durable=True)
    outputs = {f"{name}/{file}": d for name in sets for file, d in sets[name]["outputs"].items()}
    keys = ("records_in", "records_out", "rejected")
    counts = {key: sum(result[key] for result in sets.values()) for key in keys}
    splits = {name: result["splits"] for name, result in sets.items()}
    numbers = {key: {name: sets[name][key] for name in sets} for key in ("seen", "remarks")}
    numbers["overlaps"] = overlaps
    return {"outputs": outputs, **counts, "sets": splits} | numbers


def _overlaps(inputs: Iterable[_Input]) -> dict[str, str]:
    """Returns {names of two sets that may share people: a sentence about them}."""
    pairs = itertools.combinations([one for one in inputs if one.title], 2)
    return {
        f"{one.name} {other.name}": text
        for one, other in pairs
        for text in published.overlaps((one.title, other.title))
    }


def set_names(config: ConfigDict, workdir: Workdir) -> list[str]:
    """Returns the names of the sets that the stage will make. Raises UserError for a bad name."""
    made = [SYNTHETIC] if workdir.name_before("build") else []
    return [*made, *_folders(config)]


def count_train_pairs(config: ConfigDict, name: str, limit: int) -> int:
    """Returns how many train pairs set `name` of config.build.folders can have, at most `limit`.

    Read from its annotation, before any image is looked at: those of bad images still count.
    """
    folder = _folders(config)[name]
    entries = formats.read(folder, _form(config, name, folder), images=_images(config, name))
    usable = (entry for entry in entries if entry.split == "train" and not entry.problem)
    captions = (caption for entry in usable for caption in entry.captions if caption.strip())
    return sum(1 for _ in itertools.islice(captions, limit))


def _folders(config: ConfigDict) -> dict[str, epath.Path]:
    folders = {name: folder for name, folder in config.build.folders.items() if folder}
    for name, folder in folders.items():
        if not isinstance(folder, str):
            raise UserError(f"config.build.folders.{name}={folder!r} must be the path of a folder.")
        if name == SYNTHETIC or not re.fullmatch(r"\w[\w.-]*", name):
            raise UserError(
                f"config.build.folders has the set name {name!r}; use letters, digits, _ . and -, "
                f"and not {SYNTHETIC!r}, which is the set of the manifest."
            )
    for key in ("images", "formats"):
        for name, value in config.build[key].items():
            if value and not (isinstance(value, str) and name in folders):
                raise UserError(
                    f"config.build.{key}.{name}={value!r} must be a string, for a set of "
                    f"config.build.folders ({', '.join(folders) or 'which is empty'})."
                )
    return {name: epath.Path(f).expanduser().absolute() for name, f in folders.items()}


def _form(config: ConfigDict, name: str, folder: epath.Path) -> formats.Format:
    asked_form = config.build.formats.get(name)
    with of_key(f"build.formats.{name}" if asked_form else f"build.folders.{name}"):
        form = formats.get(folder, asked_form or None)
        if not form.captioned:
            raise InputError(f"{folder}: {reid_sets.how_to_caption(folder)}")
        return form


def _images(config: ConfigDict, name: str) -> epath.Path | None:
    """Returns the folder that the config names for the images of a set, if any."""
    path = config.build.images.get(name)
    if not path:
        return None
    images = epath.Path(path).expanduser().absolute()
    if not images.is_dir():
        raise UserError(f"config.build.images.{name}={path} is not a folder; check the path.")
    return images


def _refuse_loss(name: str, folder: epath.Path, unread: Iterable[Leftover]) -> None:
    """Raises UserError where a damaged annotation, or that of a split, would not be read."""
    if lost := [one.reason for one in unread if one.loses]:
        raise UserError(
            f"config.build.folders.{name}={folder} would be read incompletely: " + " ".join(lost)
        )


def _inputs(config: ConfigDict, workdir: Workdir) -> list[_Input]:
    inputs = []
    if workdir.name_before("build"):
        manifest = workdir.before("build")
        inputs.append(_Input(SYNTHETIC, lambda: map(rows.from_record, manifest)))
    for name, folder in _folders(config).items():
        form, images = _form(config, name, folder), _images(config, name)
        unread = formats.leftovers(folder, form)
        _refuse_loss(name, folder, unread)
        remarks = (*(one.reason for one in unread), *formats.remarks(folder, form))
        for text in remarks:
            say(f"build {name}: warning: {text}")
        known = None if own_outputs.is_export(folder) else form.known
        read = functools.partial(_read, folder, form, images)
        survey_rows = functools.partial(survey.survey_rows, folder, form, images)
        inputs.append(_Input(name, read, known or "", remarks, survey_rows))
    return inputs


def _read(folder: epath.Path, form: formats.Format, images: epath.Path | None) -> Iterator[Record]:
    return (
        rows.from_entry(entry, form.title) for entry in formats.read(folder, form, images=images)
    )


def _finish_set(
    one: _Input, directory: epath.Path, config: ConfigDict, workdir: Workdir
) -> dict[str, Any]:
    done, checked = directory / "done.json", directory / "checked"
    if not done.exists():
        root = str(workdir.root)
        manifest = _check(one, checked, root, config.build)
        checked_set, remarks = _survey_checked(one, manifest)
        made = _write(one, manifest, checked_set, directory, root, config)
        files.write_json_atomic(done, made | {"remarks": remarks})
    checked.rmtree(missing_ok=True)
    return files.read_json(done)


@dataclasses.dataclass
class _CheckedSet:
    """The people and rejected rows of a set whose images have all been checked.

    people: {split: {identity, in the order of their first image: (images, captions)}}; rejected:
    the rows that were rejected; is_weighted: whether the captions have weights, all or none.
    """

    people: dict[str, dict[str, tuple[int, int]]] = dataclasses.field(default_factory=dict)
    rejected: list[Record] = dataclasses.field(default_factory=list)
    is_weighted: bool = False

    def add(self, row: Record) -> None:
        split = self.people.setdefault(row["split"], {})
        images, captions = split.get(row["identity"], (0, 0))
        split[row["identity"]] = images + 1, captions + len(row["captions"])
        self.is_weighted = "caption_weights" in row


def _survey_checked(one: _Input, checked: Manifest) -> tuple[_CheckedSet, list[str]]:
    """Returns the checked set, and what `validate` says of its folder, which is printed."""
    checked_set = _CheckedSet()

    def usable_first() -> Iterator[Record]:
        for row in checked.all_records():
            if is_kept(row):
                checked_set.add(row)
                yield row
            else:
                checked_set.rejected.append(row)
        yield from checked_set.rejected

    if one.survey_rows is None:
        collections.deque(usable_first(), maxlen=0)
        return checked_set, []
    first = itertools.islice(checked.all_records(), image_paths.PROBES)
    names = [row["id"] for row in first if not row["problem"]]
    return checked_set, _report_problems(one, one.survey_rows(usable_first(), names))


def _report_problems(one: _Input, result: survey.Survey) -> list[str]:
    """Prints what `validate` says of a folder; returns that with the earlier remarks."""
    problems, notices = result.problems(), result.notices()
    for text in [*(f"PROBLEM {text}" for text in problems), *(f"warning: {t}" for t in notices)]:
        say(f"build {one.name}: {text}")
    if loss := result.loss():
        say(f"build {one.name}: {loss}")
    return [*problems, *one.remarks, *notices]


def _check(one: _Input, directory: epath.Path, root: str, options: ConfigDict) -> Manifest:
    """Decodes every image; returns the rows with the bad ones rejected."""
    stream = one.rows()
    chunks = iter(lambda: list(itertools.islice(stream, _CHUNK)), [])
    check = functools.partial(rows.check, root=root, exif=options.exif)
    with process_map(options.processes) as mapped:

        def work(some: Iterator[Record]) -> Iterator[list[Record]]:
            whole = list(some)
            # Workers are sent, and send, no more of a row than they look at.
            parts = ({key: row[key] for key in rows.CHECKED if key in row} for row in whole)
            checked = zip(whole, mapped(check, parts), strict=True)
            return ([row | part] for row, part in checked)

        label = f"build {one.name}: check"
        map_records(chunks, directory, work, label=label, shard_count=None)
    return Manifest(directory, shard_digests(directory))


def _write(
    one: _Input,
    checked: Manifest,
    checked_set: _CheckedSet,
    directory: epath.Path,
    root: str,
    config: ConfigDict,
) -> dict[str, Any]:
    """Writes the TFDS set, its index and what was rejected; returns what done.json holds."""
    people = checked_set.people
    rejected = [_rejected_line(one.name, row) for row in checked_set.rejected]
    if not people:
        first = f", the first is {rejected[0]['path']}: {rejected[0]['reason']}" if rejected else ""
        raise UserError(
            f"set {one.name!r} has no usable image ({len(rejected)} were rejected{first}); "
            "run python -m jaxtbpr.datasets.validate on its folder."
        )
    val_names = _draw_val_identities(people, config.build.val_fraction, config.seed, one.name)
    splits = _counts(people, val_names)
    kept = sum(counts["images"] for counts in splits.values())
    numbered = progress(
        _numbered(checked, val_names, _numbers(people, val_names)),
        total=kept,
        label=f"build {one.name}",
    )
    indexed = _index(numbered, directory, splits)
    counts = {split: numbers["images"] for split, numbers in splits.items()}
    read = functools.partial(rows.read_image, root=root)
    builder_class = builder.BUILDERS.get(one.title, builder.PersonSet)
    builder_class(counts, indexed, read, directory, is_weighted=checked_set.is_weighted).build()
    collections.deque(indexed, maxlen=0)  # all rows, where the TFDS set was whole
    _write_lines(directory / "rejected.jsonl", rejected)
    return {
        "records_in": kept + len(rejected),
        "records_out": kept,
        "rejected": len(rejected),
        "splits": splits,
        "seen": leakage.seen_people(people),
        "outputs": _digests(directory),
    }


def _draw_val_identities(people: dict, fraction: float, seed: int, name: str) -> set[str]:
    """Draws the train identities that become the val split of a set that has none."""
    train = sorted(people.get("train", ()))
    if "val" in people or fraction == 0 or len(train) < 2:
        return set()
    count = max(1, round(fraction * len(train)))
    chosen = seeds.rng(seed, "build", "val", name).choice(len(train), count, replace=False)
    return {train[i] for i in chosen}


def _numbers(people: dict, val_names: set[str]) -> dict[str, int]:
    """Numbers the identities from 0: those of train first, then of val, then of test."""
    train = [name for name in people.get("train", ()) if name not in val_names]
    order = dict.fromkeys(
        [*train, *sorted(val_names), *people.get("val", ()), *people.get("test", ())]
    )
    return {name: number for number, name in enumerate(order)}


def _numbered(checked: Manifest, val_names: set[str], numbers: dict[str, int]) -> Iterator[Record]:
    """Yields the usable rows, with `identity` a number and `identity_name` its original name."""
    for row in checked:
        name = row["identity"]
        split = "val" if row["split"] == "train" and name in val_names else row["split"]
        yield row | {"split": split, "identity": numbers[name], "identity_name": name}


def _counts(people: dict, val_names: set[str]) -> dict[str, dict[str, int]]:
    """Returns {split: counts of identities, images and captions}; `val_names` count as val."""
    parts = {split: dict(people.get(split, {})) for split in SPLITS}
    parts["val"] |= {name: parts["train"].pop(name) for name in val_names}
    return {
        split: {
            "identities": len(part),
            "images": sum(images for images, _ in part.values()),
            "captions": sum(captions for _, captions in part.values()),
        }
        for split, part in parts.items()
        if part
    }


def _index(
    numbered: Iterable[Record], directory: epath.Path, splits: Iterable[str]
) -> Iterator[Record]:
    """Yields the rows unchanged; the index of each split is there when all have gone through."""
    paths = {split: index_path(directory, split) for split in splits}
    unfinished = {split: path.parent / f".{path.name}.tmp" for split, path in paths.items()}
    with contextlib.ExitStack() as stack:
        opened = {split: stack.enter_context(path.open("wb")) for split, path in unfinished.items()}
        for row in numbered:
            opened[row["split"]].write(_line(_index_line(row)))
            yield row
    for split, path in paths.items():
        unfinished[split].replace(path)


def _rejected_line(name: str, row: Record) -> dict[str, Any]:
    return {"set": name, "id": row["id"], "split": row["split"], "path": row["path"]} | row[
        "rejected"
    ]


def _index_line(row: Record) -> dict[str, Any]:
    keys = {"image_id": "id", "identity": "identity", "identity_name": "identity_name"}
    line = {key: row[field] for key, field in keys.items()} | {"captions": row["captions"]}
    return line | records.set_fields(row)


def _write_lines(path: epath.Path, lines: Iterable[Any]) -> None:
    # Not through `files`, since the captions of a large set need not fit into memory.
    temporary = path.parent / f".{path.name}.tmp"
    with temporary.open("wb") as file:
        for line in lines:
            file.write(_line(line))
    temporary.replace(path)


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


def _digests(directory: epath.Path) -> dict[str, str]:
    """Returns {path below `directory`: SHA-256} of a set's files."""
    paths = files.matches(directory, "*.jsonl", "*/*/*")
    names = sorted(str(path.relative_to(directory)) for path in paths if path.is_file())
    return {
        name: files.sha256((directory / name).read_bytes())
        for name in names
        if not name.startswith("checked/")
    }


STAGE = Stage(
    "build", "packs the data sets", OPTIONS, run,
    fingerprint=fingerprint, fingerprint_changes=fingerprint_changes,
)  # fmt: skip
