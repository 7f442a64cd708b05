"""Says what a data set's folder holds, what is wrong with it and how to fix it.

    jaxtbpr validate FOLDER [FOLDER ...] [--no-images] [--flags out.jsonl]

Exit status: 0 fine, 1 problems (missing or broken images, images without a caption, unusable
records, identities in several splits, a broken file), 2 a folder is not a known data set. Counts
that differ from the published ones, flagged captions and sets that may share people are warnings:
they may be intended.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Sequence

from etils import epath

from jaxtbpr.core import command, files
from jaxtbpr.core.errors import InputError
from jaxtbpr.datasets import finding, formats, own_outputs, published
from jaxtbpr.datasets.caption_checks import CaptionChecker, Flag
from jaxtbpr.datasets.published import Counts
from jaxtbpr.datasets.survey import Survey, flag_lines, survey

FINE, PROBLEMS, NOT_RECOGNISED = 0, 1, 2
_WIDTH = 100


def main(argv: Sequence[str] | None = None) -> int:
    """Validates the folders of the command line and returns the exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.flags:
        try:
            files.check_output(arguments.flags, "--flags")
        except InputError as error:
            parser.error(str(error))
    if arguments.images is not None and not epath.Path(arguments.images).expanduser().is_dir():
        parser.error(f"--images={arguments.images} is not a folder; check the path.")
    status, surveys, lines = FINE, [], []
    for folder in arguments.folders:
        flags: list[Flag] = []
        try:
            result = survey(
                folder,
                form=arguments.format,
                images=arguments.images,
                decode=not arguments.no_images,
                flags=flags if arguments.flags else None,
            )
        except InputError as error:
            if arguments.traceback:
                raise
            place = epath.Path(folder)
            known = (
                None
                if own_outputs.explain(place)
                else published.set_of_folder(place.absolute().name)
            )
            print(f"{error}\n{_ask(known)}")
            if isinstance(error, finding.Unknown):
                print(f"Forms that are read:\n{formats.list_known()}")
            status = NOT_RECOGNISED
            continue
        print(report(result), end="\n\n")
        status = max(status, PROBLEMS if result.problems() else FINE)
        surveys.append(result)
        lines += flag_lines(folder, flags)
    _end(surveys, arguments.flags, lines)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "jaxtbpr validate", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="the folder of a data set")
    command.add_traceback(parser)
    parser.add_argument(
        "--no-images",
        action="store_true",
        help="do not decode images, only check that the files exist",
    )
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="folder of the images, if not the usual one; in a run: --config.build.images.NAME=DIR",
    )
    parser.add_argument(
        "--format",
        metavar="NAME",
        help="the form, if the detected one is wrong; in a run: --config.build.formats.NAME=FORM",
    )
    parser.add_argument(
        "--flags", metavar="FILE", help="write every flagged caption to this JSON-lines file"
    )
    return parser  # fmt: skip


def _end(surveys: Sequence[Survey], flags: str | None, lines: Sequence[str]) -> None:
    for text in published.overlaps(filter(None, (s.known for s in surveys))):
        print(_wrap(f"WARNING  {text}", 9), end="\n\n")
    if flags:
        files.write_text_atomic(flags, "".join(lines))
        print(f"{len(lines):,} flags are written to {flags}.")


def report(result: Survey) -> str:
    """Returns the report on one folder as text."""
    problems, warnings = result.problems(), result.warnings()
    written = ", an export of this program" if own_outputs.is_export(result.folder) else ""
    blocks = [
        f"{result.folder}\n"
        f"  form    {result.form.title}: {_files(result)}{written}\n"
        f"  images  {result.paths.root}",
        count_table(result.tally.counts(), result.known),
        _wrap(result.loss(), 2, indent="  "),
        caption_table(result.caption_checker),
        "\n".join(_wrap(f"PROBLEM  {text}", 9) for text in problems),
        "\n".join(_wrap(f"WARNING  {text}", 9) for text in warnings),
        _ask(result.known),
        f"{_number(problems, 'problem')}, {_number(warnings, 'warning')}",
    ]
    return "\n\n".join(block for block in blocks if block)


def _files(result: Survey) -> str:
    names = [str(file.relative_to(result.folder)) for file in result.files]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _number(items: Sequence[str], word: str) -> str:
    return f"{len(items) or 'no'} {word}{'' if len(items) == 1 else 's'}"


def count_table(counts: dict[str, Counts], known: str | None) -> str:
    """Returns the table of counts per split, beside the published ones, differences marked *."""
    published_counts = published.KNOWN_SETS[known].counts if known else {}
    fields = ("identities", "images", "captions")
    rows = [
        ["split", *(cell for field in fields for cell in _header(field, bool(published_counts)))]
    ]
    for split in published.SPLIT_ORDER:
        if split in counts or split in published_counts:
            rows.append(
                [
                    split,
                    *_cells(
                        fields,
                        counts.get(split),
                        published_counts.get(split),
                        bool(published_counts),
                    ),
                ]
            )
    return _columns(rows)


def _header(field: str, has_published: bool) -> list[str]:
    return [field, "published", " "] if has_published else [field]


def _cells(
    fields: Iterable[str], counted: Counts | None, published_counts: Counts | None, both: bool
) -> list:
    cells = []
    for field in fields:
        here, there = (
            getattr(counts, field) if counts else 0 for counts in (counted, published_counts)
        )
        cells.append(f"{here:,}")
        if both:
            cells += [f"{there:,}" if published_counts else "-", "*" if here != there else " "]
    return cells


def caption_table(caption_checker: CaptionChecker) -> str:
    """Returns the counts of flagged captions by rule, each with its first examples."""
    lines = [
        f"  captions that look wrong{'' if any(caption_checker.counts.values()) else ': none'}"
    ]
    for rule, number in caption_checker.counts.items():
        if number:
            lines.append(f"  {number:>9,}  {rule}")
            for flag in caption_checker.examples[rule]:
                text = textwrap.shorten(_printable(flag.text), 60) or _printable(flag.text[:60])
                lines.append(f"{'':13}{flag.image}: {text!r} ({_printable(flag.detail)})")
    return "\n".join(lines)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def _columns(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  " + "  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def _ask(known: str | None) -> str:
    if known is None:
        return ""
    text = f"How to get {known}: {published.KNOWN_SETS[known].ask}"
    return _wrap(text, 2, indent="  ")


def _wrap(text: str, hanging: int, indent: str = "") -> str:
    """Returns the lines of `text` in the width of the page; a command stays on its own line."""
    lines = [
        (" " * hanging if number else indent, one) for number, one in enumerate(text.split("\n"))
    ]
    return "\n".join(
        before + one if one.startswith("python ") else _fill(one, before, hanging)
        for before, one in lines
    )


def _fill(text: str, indent: str, hanging: int) -> str:
    return textwrap.fill(
        text, _WIDTH, initial_indent=indent, subsequent_indent=" " * hanging,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


COMMAND = "validate", "check a folder of data: what it has, what is missing, how to fix it"

if __name__ == "__main__":
    with command.exit_on_error():
        sys.exit(main())
