"""What is published about the known sets: counts, origin of the images, how to ask for them."""

import collections
import dataclasses
import itertools
import re
from collections.abc import Iterable, Mapping

from jaxtbpr.datasets.entry import Entry

SPLIT_ORDER = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Counts:
    """Identities, images and captions of one split."""

    identities: int
    images: int
    captions: int


@dataclasses.dataclass(frozen=True)
class KnownSet:
    """A published set. counts: per split; origins: what its images were cropped from."""

    title: str
    counts: Mapping[str, Counts]
    origins: frozenset[str]
    ask: str
    image_names: str = "(?!)"  # matches no name: not recognised by its file names


_MSMT17 = frozenset({"MSMT17"})
_LUPERSON = frozenset({"LUPerson's videos"})

KNOWN_SETS = {
    known.title: known
    for known in (
        KnownSet(
            "CUHK-PEDES",
            {
                "train": Counts(11003, 34054, 68126),
                "val": Counts(1000, 3078, 6158),
                "test": Counts(1000, 3074, 6156),
            },
            frozenset({"CUHK01", "CUHK03", "Market-1501", "SSM", "VIPeR"}),
            "write to the authors of 'Person Search with Natural Language Description' (CVPR 2017) "
            "from a university address; for academic use only.",
            r"(cam_a|cam_b|CUHK01|CUHK03|Market|train_query|test_query)/",
        ),
        KnownSet(
            "ICFG-PEDES",
            {"train": Counts(3102, 34674, 34674), "test": Counts(1000, 19848, 19848)},
            _MSMT17,
            "write to the authors of SSAN ('Semantically Self-Aligned Network', 2021); its images "
            "are MSMT17's, which need a signed request of their own.",
            r"(train|test)/\d{4}/\d{4}_\d{3}_\d{2}_\d{4}(morning|noon|afternoon)",
        ),
        KnownSet(
            "RSTPReid",
            {
                "train": Counts(3701, 18505, 37010),
                "val": Counts(200, 1000, 2000),
                "test": Counts(200, 1000, 2000),
            },
            _MSMT17,
            "the project page of its authors (DSSL, ACM MM 2021) offers it; its images are "
            "MSMT17's, which are for research only.",
            r"\d{4}_c\d+_\d{4}\.jpg$",
        ),
        KnownSet(
            "MALS",
            {"train": Counts(1510330, 1510330, 1510330)},
            frozenset({"MALS"}),
            "the authors of APTM (ACM MM 2023) offer it on their project page; research only.",
        ),
        KnownSet(
            "LUPerson-MLLM",
            {},
            _LUPERSON,
            "ask the authors of LUPerson (CVPR 2021) for the images; the captions come from the "
            "authors of MLLM4Text-ReID (CVPR 2024).",
        ),
        KnownSet(
            "SYNTH-PEDES",
            {"train": Counts(312321, 4791711, 12138157)},  # quoted, not checked
            _LUPERSON | {"LPW"},
            "the authors of PLIP (NeurIPS 2024) offer it on their project page; research only.",
        ),
        KnownSet(
            "UFine6926",
            {},
            frozenset({"UFine6926"}),
            "send the signed licence to the authors of UFineBench (CVPR 2024); a supervisor signs "
            "for students.",
        ),
        KnownSet(
            "SDA",
            {"train": Counts(1217750, 1217750, 1217750)},
            frozenset({"SDA"}),
            "the authors of MRA (2025) offer it on their project page; research only.",
        ),
    )
}  # fmt: skip


class Tally:
    """Counts usable entries per split as they come."""

    def __init__(self) -> None:
        self.people: dict[str, set[str]] = {split: set() for split in SPLIT_ORDER}
        self._images: collections.Counter[str] = collections.Counter()
        self._captions: collections.Counter[str] = collections.Counter()

    def add(self, entry: Entry) -> None:
        if not entry.problem:
            self.people[entry.split].add(entry.identity)
            self._images[entry.split] += 1
            self._captions[entry.split] += sum(bool(text.strip()) for text in entry.captions)

    def counts(self) -> dict[str, Counts]:
        """Returns the counts of the splits that have images, in the order train, val, test."""
        return {
            split: Counts(len(self.people[split]), self._images[split], self._captions[split])
            for split in SPLIT_ORDER
            if self._images[split]
        }

    def alike(self) -> list[str]:
        """Returns the identities that differ only by case or leading zeros."""
        people = set().union(*self.people.values())
        written: dict[str, list[str]] = collections.defaultdict(list)
        for who in people:
            plain = _plain_identity(who)
            if plain != who:
                written[plain].append(who)
        groups = (sorted({*some, plain} & people) for plain, some in written.items())
        return sorted(" and ".join(group) for group in groups if len(group) > 1)

    def in_several_splits(self) -> list[str]:
        """Returns the identities that occur in more than one split."""
        splits = collections.Counter(who for people in self.people.values() for who in people)
        return sorted(who for who, number in splits.items() if number > 1)


def _plain_identity(who: str) -> str:
    if who.startswith("image:"):  # one of an unknown person
        return who
    return who.lstrip("0") or "0" if who.isdecimal() else who.casefold()


def count(entries: Iterable[Entry]) -> dict[str, Counts]:
    """Counts the usable entries per split."""
    tally = Tally()
    for one in entries:
        tally.add(one)
    return tally.counts()


def differences(title: str, counts: Mapping[str, Counts]) -> list[str]:
    """Returns one phrase per count that is not the published one of the set `title`."""
    none = Counts(0, 0, 0)
    known = KNOWN_SETS[title].counts
    return [
        f"{split} {field} {actual:,}, published {published:,}"
        for split in SPLIT_ORDER
        if split in known or (known and split in counts)
        for field, actual, published in zip(
            ("identities", "images", "captions"),
            dataclasses.astuple(counts.get(split, none)),
            dataclasses.astuple(known.get(split, none)),
            strict=True,
        )
        if actual != published
    ]


def set_of_names(names: Iterable[str]) -> str | None:
    """Returns the set whose pattern of file names most of `names` match, or None.

    It identifies the set in a form that several share, as RaSa's or APTM's files.
    """
    names = list(names)
    for title, known in KNOWN_SETS.items():
        pattern = re.compile(rf"(?:.*/)?{known.image_names}")
        if names and sum(bool(pattern.match(name)) for name in names) > len(names) / 2:
            return title
    return None


def set_of_folder(name: str) -> str | None:
    """Returns the set that a folder is named after ("cuhk_pedes_2017": CUHK-PEDES), or None."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    titles = (title for title in KNOWN_SETS if re.sub(r"[^a-z0-9]", "", title.lower()) in plain)
    return next(titles, None)


def overlaps(titles: Iterable[str]) -> list[str]:
    """Returns a sentence for each two of these sets that may show the same people."""
    known = [KNOWN_SETS[title] for title in sorted(set(titles))]
    return [
        f"{one.title} and {other.title} both come from {' and '.join(sorted(origins))} under "
        "different names, so the same person may be in both and nobody publishes which: results "
        "from one to the other look better than they are."
        for one, other in itertools.combinations(known, 2)
        if (origins := one.origins & other.origins)
    ]
