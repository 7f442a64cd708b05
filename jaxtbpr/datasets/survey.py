"""One pass over a data set that gathers all that `validate` reports."""

import collections
import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import (
    finding,
    formats,
    image_check,
    published,
    reid_sets,
)
from jaxtbpr.datasets.caption_checks import CaptionChecker, Flag
from jaxtbpr.datasets.entry import EMPTY, NO_CAPTION, ONLY_EMPTY, Entry, Notes, caption_problem
from jaxtbpr.datasets.formats import Format
from jaxtbpr.datasets.image_check import ImageReport, ImageResult
from jaxtbpr.datasets.leftover import Leftover
from jaxtbpr.datasets.published import Tally
from jaxtbpr.datasets.unlisted import Unlisted

EXAMPLES = 3
# Forms detected by the keys of their records: also a well-known file whose name is misspelled.
_UNNAMED = ("reid_json", "syntbpr_edit_input")
NAMES = 1000  # image names by which a published set is recognised


@dataclasses.dataclass
class Survey:
    """What was found in a folder.

    unusable: records rejected; usable: {split: images that a run takes}; broken: the sentence about
    a file that could not be read to its end, or "". known: the title of the published set, or None.
    """

    folder: epath.Path
    form: Format
    files: list[epath.Path]
    paths: formats.ImagePaths
    tally: Tally = dataclasses.field(default_factory=Tally)
    images: ImageReport = dataclasses.field(default_factory=ImageReport)
    unlisted: Unlisted = dataclasses.field(default_factory=Unlisted)
    caption_checker: CaptionChecker = dataclasses.field(default_factory=CaptionChecker)
    unusable: int = 0
    unusable_examples: list[str] = dataclasses.field(default_factory=list)
    split_rule: str = ""
    names: list[str] = dataclasses.field(default_factory=list)
    broken: str = ""
    leftovers: list[Leftover] = dataclasses.field(default_factory=list)
    usable: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    remarks: list[str] = dataclasses.field(default_factory=list)
    notes: Notes = dataclasses.field(default_factory=Notes)
    uncaptioned: Notes = dataclasses.field(default_factory=Notes)

    @property
    def known(self) -> str | None:
        return formats.published_title(self.form, self.names, self.folder)

    def loss(self) -> str:
        """Returns how many images of each split a run uses, "" where it uses all."""
        counts = {split: one.images for split, one in self.tally.counts().items()}
        if self.broken or not self.form.captioned or self.usable.total() == sum(counts.values()):
            return ""
        phrases = (f"{split} {self.usable[split]:,} of {n:,}" for split, n in counts.items())
        return f"images that a run uses (with a caption, not damaged): {', '.join(phrases)}."

    def problems(self) -> list[str]:
        """Returns what must be fixed, each with how to fix it."""
        sentences = [self.broken] if self.broken else []
        sentences += [one.reason for one in self.leftovers if one.loses or not one.may_stay]
        if not self.form.captioned:
            sentences.append(reid_sets.how_to_caption(self.folder))
        if not self.images.checked and not self.broken:
            sentences.append("there is no usable record in it.")
        if self.unusable:
            such = _such(self.unusable_examples, self.unusable)
            sentences.append(f"records that cannot be used and will be rejected: {such}.")
        return sentences + self.uncaptioned.lines() + self._image_problems() + self._leaks()

    def _image_problems(self) -> list[str]:
        images, sentences = self.images, []
        if images.missing:
            names = [name for name, _ in images.examples["missing"]]
            such = _such(names, images.missing, images.checked)
            hint = image_check.where_missing_images_are(self.paths, names)
            sentences.append(f"images missing: {such}" + (f"; {hint}" if hint else "."))
        if images.broken:
            broken = [f"{name} {fault}" for name, fault in images.examples["broken"]]
            such = _such(broken, images.broken, images.checked)
            sentences.append(f"images corrupt or truncated: {such}; unpack or copy them again.")
        return sentences

    def _leaks(self) -> list[str]:
        shared = self.tally.in_several_splits()
        such = _such(shared, len(shared))
        text = f"identities in several splits: {such}; the test would not be on unseen people."
        return [text] if shared else []

    def _doubts(self) -> list[str]:
        """Returns what is odd about the set as a whole, beyond single records."""
        sentences, alike = [], self.tally.alike()
        if alike:
            sentences.append(
                "identities that differ only by case or leading zeros, read as different: "
                f"{_such(alike, len(alike))}; spell each person one way."
            )
        count, names = self.unlisted.find(str(self.paths.root))
        # Where folders are the annotation, their reader has looked at each image in them.
        if count and not any(file.is_dir() for file in self.files):
            sentences.append(f"image files that no usable record names: {_such(names, count)}.")
        return sentences

    def notices(self) -> list[str]:
        """Returns how unclear records and special images are read."""
        return self.notes.lines() + self.images.notes.lines() + self._doubts()

    def warnings(self) -> list[str]:
        """Returns what the user should know but may be intended."""
        sentences, known = [], self.known
        sentences += [one.reason for one in self.leftovers if one.may_stay and not one.loses]
        sentences += [*self.remarks, *self.notices()]
        differ = bool(known and published.differences(known, self.tally.counts()))
        if self.split_rule:
            trust = "its counts are not the published ones, so check it" if differ else (
                "its counts are the published ones"
            )  # fmt: skip
            sentences.append(f"records have no split; {self.split_rule}; {trust}.")
        if differ:
            sentences.append(f"counts differ from the published ones of {known} (marked * above).")
        if self.form.name in _UNNAMED:
            sentences += [
                f"{file.name} is similar to {near}: rename it if it is that file."
                for file in self.files
                if (near := finding.near_name(file))
            ]
        flagged = sum(self.caption_checker.counts.values())
        return sentences + ([f"captions flagged: {flagged:,} (listed above)."] if flagged else [])


def _such(examples: list[str], number: int, total: int = 0) -> str:
    of = f" of {total:,}" if total else ""
    more = ", ..." if number > len(examples[:EXAMPLES]) else ""
    return f"{number:,}{of} ({', '.join(examples[:EXAMPLES])}{more})"


def survey(
    folder: epath.PathLike,
    *,
    form: str | None = None,
    images: epath.PathLike | None = None,
    decode: bool = True,
    flags: list[Flag] | None = None,
) -> Survey:
    """Reads a whole data set: records, images (decoded unless `decode` is False) and captions.

    flags: a list to which every flagged caption is added. Raises InputError where the folder is not
    recognised.
    """
    folder = epath.Path(folder)
    form_of_folder = formats.get(folder, form)
    files = formats.annotation_files(folder, form_of_folder)
    result = Survey(
        folder, form_of_folder, files, formats.image_paths(folder, form_of_folder, images)
    )
    result.leftovers = formats.leftovers(folder, form_of_folder)
    result.remarks = formats.remarks(folder, form_of_folder)
    try:
        entries = form_of_folder.reader(folder, files, result.paths)
        for entry, image in image_check.examine_all(entries, decode=decode):
            _add(result, entry, image, flags)
    except InputError as error:
        result.broken = str(error)
    return result


def survey_rows(
    folder: epath.Path,
    form: Format,
    images: epath.Path | None,
    rows: Iterable[Mapping[str, Any]],
    names: Iterable[str],
) -> Survey:
    """Returns the survey of a folder whose images stage build has checked.

    rows: see `rows.py`, those that were rejected included. names: of the first images of the
    annotation, `image_paths.PROBES` of them.
    """
    result = Survey(folder, form, formats.annotation_files(folder, form), formats.image_paths(
        folder, form, images
    ))  # fmt: skip
    result.paths.settle(names)
    for row in rows:
        captions = (*row["captions"], *[""] * row.get("empty_captions", 0))
        entry = Entry(
            row["path"], captions, row["identity"], row["split"], {"image_id": row["id"]},
            row["problem"], tuple(row["notes"]),
        )  # fmt: skip
        _add_records(result, entry, image_check.result_of_row(row))
    return result


def _add_records(result: Survey, entry: Entry, image: ImageResult) -> None:
    if entry.problem:
        result.unusable += 1
        if len(result.unusable_examples) < EXAMPLES:
            result.unusable_examples.append(entry.problem)
        return
    result.notes.add(entry.name, entry.notes)
    result.tally.add(entry)
    result.unlisted.add(entry)
    if result.form.captioned and caption_problem(entry.captions):
        result.uncaptioned.add(entry.name, [ONLY_EMPTY if entry.captions else NO_CAPTION])
        return
    result.notes.add(entry.name, [EMPTY for text in entry.captions if not text.strip()])
    result.images.add(entry.name, image)
    result.usable[entry.split] += not image.fault


def _add(result: Survey, entry: Entry, image: ImageResult, flags: list[Flag] | None) -> None:
    _add_records(result, entry, image)
    if entry.problem:
        return
    result.split_rule = entry.extra.get("split_rule", "")
    if len(result.names) < NAMES:
        result.names.append(str(entry.extra.get("image_id", "")))
    for flag in result.caption_checker.add(entry):
        if flags is not None:
            flags.append(flag)


def flag_lines(folder: epath.PathLike, flags: list[Flag]) -> Iterator[str]:
    """Yields one JSON line per flagged caption: folder, rule, detail, text, identity, file."""
    for flag in flags:
        line = {"folder": str(folder), "rule": flag.rule, "detail": flag.detail}
        line |= {"text": flag.text, "identity": flag.identity, "file": flag.image}
        yield json.dumps(line, ensure_ascii=False) + "\n"
