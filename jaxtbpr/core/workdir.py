"""A run's folder: which stage wrote what, from which inputs and config, and who may write now."""

import contextlib
import datetime
import fcntl
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from jaxtbpr.core import files
from jaxtbpr.core.errors import UserError
from jaxtbpr.core.manifest import Manifest, Work, count_records, map_records, shard_digests

COMMIT = "commit.json"


class Workdir:
    """The folder of one run; a stage `name` owns the folder `root/name`.

    root: local or remote (gs://) path. order: the record stages in the order of the pipeline;
    chosen: those that this run's config names.
    """

    def __init__(self, root: epath.PathLike, order: Sequence[str], chosen: Sequence[str]):
        self.root = epath.Path(root)
        self.order = tuple(order)
        self._chosen = tuple(chosen)

    def dir(self, stage: str) -> epath.Path:
        """Returns the folder of `stage`, which may not exist yet."""
        return self.root / stage

    def commit(self, stage: str) -> dict[str, Any] | None:
        """Returns the commit file of `stage`, None where it is not finished."""
        path = self.dir(stage) / COMMIT
        return files.read_json(path) if path.exists() else None

    def commits(self, stages: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
        """Returns {stage: its commit file} of the finished ones of `stages`, in their order.

        stages: None means all that have a folder here. Raises UserError where the folder
        does not exist.
        """
        if stages is None:
            if not self.root.is_dir():
                raise UserError(f"{self.root} does not exist; give the WORKDIR of a run.")
            stages = sorted(path.name for path in self.root.iterdir())
        by_stage = {name: self.commit(name) for name in stages}
        return {name: commit for name, commit in by_stage.items() if commit}

    def manifest(self, stage: str) -> Manifest:
        """Returns the records of a finished stage.

        Raises UserError where the stage is not finished.
        """
        commit = self.commit(stage)
        if commit is None:
            raise UserError(
                f"{self.dir(stage)} has no finished stage {stage!r}; add it to config.stages."
            )
        return Manifest(self.dir(stage), commit["outputs"])

    def name_before(self, stage: str) -> str | None:
        """Returns the stage whose manifest `stage` reads, None where there is none.

        It is the nearest earlier one in config.stages; if that names none, the nearest earlier
        one that is finished in this folder.
        """
        order = self.order
        earlier = order[: order.index(stage)] if stage in order else order
        # The config before the disk: a stage that only an earlier run had must not slip in between.
        chosen = [name for name in earlier if name in self._chosen]
        finished = [name for name in earlier if self.commit(name)]
        return (chosen or finished or [None])[-1]

    def before(self, stage: str) -> Manifest:
        """Returns the manifest that `stage` reads.

        Raises UserError where no earlier stage is finished.
        """
        name = self.name_before(stage)
        if name is None:
            raise UserError(
                f"stage {stage!r} has nothing to read in {self.root}; "
                "add an earlier stage to config.stages."
            )
        return self.manifest(name)

    def map_stage(
        self, stage: str, work: Work, *, whole: bool = False, shared: bool = False
    ) -> dict[str, Any]:
        """Runs `work` over the manifest before `stage`.

        work, whole: see `map_records`. shared: the processes of jax.distributed share the shards,
        and each waits for all. Returns the stage's part of its commit file: digests of its
        shards and counts of records.
        """
        shards = list(self.before(stage).shards())
        part, parts, wait = _processes() if shared else (0, 1, None)
        map_records(
            shards,
            self.dir(stage),
            work,
            label=stage,
            shard_count=len(shards),
            whole=whole,
            part=part,
            parts=parts,
        )
        if wait:
            wait(stage)
        outputs = shard_digests(self.dir(stage))
        return {"outputs": outputs, "records_in": sum(map(len, shards))} | count_records(
            Manifest(self.dir(stage), outputs)
        )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other runs out of this folder until the block ends or the process dies.

        Raises UserError naming the other run. Object stores (gs://) have no such lock: there the
        block runs without one.
        """
        if not files.is_local(self.root):
            yield
            return
        self.root.mkdir(parents=True, exist_ok=True)
        with open(os.fspath(self.root / ".lock"), "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise UserError(
                    f"{self.root} is in use by another run ({file.read().strip()}); "
                    "wait for it, stop it, or choose another --workdir."
                ) from error
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()} since {_now()}\n")
            file.flush()
            yield


def _processes() -> tuple[int, int, Callable[[str], None]]:
    """(index of this process, how many there are, the barrier for all)."""
    import jax  # here, since some stages do not need it

    from jaxtbpr.core.mesh import wait_for_all

    return jax.process_index(), jax.process_count(), wait_for_all


def _now() -> str:
    return datetime.datetime.now().isoformat(sep=" ", timespec="seconds")
