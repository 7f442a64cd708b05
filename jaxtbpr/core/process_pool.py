"""Worker processes for work on the host: ordered results, and no orphans after a kill."""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
Map = Callable[[Callable[[T], R], Iterable[T]], Iterator[R]]

_ITEMS_PER_MESSAGE = 32  # a message takes as long as the check of a small image


@contextlib.contextmanager
def process_map(processes: int) -> Iterator[Map]:
    """Gives a `map` whose calls run in worker processes, results in the order of the items.

    processes: 0 means one per core; with 1 the calls run here. The function and the items must
    be picklable; an exception in a worker is raised here. Workers import only what the function
    needs, and end by themselves when this process dies, however it dies.
    """
    count = processes or os.cpu_count() or 1
    if count == 1:
        yield map
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        count, mp_context=multiprocessing.get_context("spawn"), initializer=end_with_parent
    )
    with pool:
        yield functools.partial(_start_map, pool)


def _start_map(
    pool: concurrent.futures.ProcessPoolExecutor, function: Callable[[T], R], items: Iterable[T]
) -> Iterator[R]:
    # Workers start here, and are interrupted by Ctrl-C as well until `end_with_parent` has run in
    # them, long after their imports. So they inherit that it is blocked.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.map(function, items, chunksize=_ITEMS_PER_MESSAGE)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Makes this worker process end as soon as the process that started it has died.

    Ctrl-C, which a terminal sends to all of them, is left to that process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("a worker process was started without a parent")

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
