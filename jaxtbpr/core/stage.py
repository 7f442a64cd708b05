"""What a stage of the pipeline declares, in one place."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxtbpr.core.options import Options
from jaxtbpr.core.workdir import Workdir

Fingerprint = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of the pipeline.

    Its module makes one, and `jaxtbpr/stages.py` puts it in its place among the others.

    name: its folder in the workdir and its section of the config.
    does: what it does, for people, as a verb phrase ("makes their images").
    options: its section of the config.
    run: does the work; returns {"outputs": {file: digest}, "records_in", "records_out",
      "rejected"} and what else goes into its commit file.
    reads: the stages whose outputs it reads; None means the nearest record stage before it.
    sections: the config sections that it reads besides its own and `seed`.
    is_usual: whether it runs where `config.stages` is not given.
    fingerprint: returns the state of what the stage reads from outside the workdir (models,
      folders), which a later run compares; None where it reads nothing there.
    fingerprint_changes: returns phrases on what differs between two such fingerprints.
    check: raises UserError, before any stage runs, for what would stop this one later.
    need_attributes: the engines that draw or describe the attributes of a record.
    """

    name: str
    does: str
    options: Options
    run: Callable[[ConfigDict, Workdir], dict[str, Any]]
    reads: tuple[str, ...] | None = None
    sections: tuple[str, ...] = ()
    is_usual: bool = True
    fingerprint: Callable[[ConfigDict], Fingerprint] | None = None
    fingerprint_changes: Callable[[Mapping, Mapping], list[str]] | None = None
    check: Callable[[ConfigDict], None] | None = None
    need_attributes: tuple[str, ...] = ()
