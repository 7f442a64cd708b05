"""SIGTERM as a request to stop: clouds send it seconds before they take a machine away."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def watch() -> Iterator[Callable[[int], bool]]:
    """Keeps SIGTERM from killing the block; yields `reached(step)`, whether it has come.

    Every process calls it after each step with the number of finished steps; all processes get
    True after the same step. Signals reach only the main thread of a program;
    in another thread nothing is watched.
    """
    signalled = threading.Event()

    def reached(step: int) -> bool:
        if jax.process_count() > 1:  # JAX's own service agrees on the step
            return multihost_utils.reached_preemption_sync_point(step)
        return signalled.is_set()

    if threading.current_thread() is not threading.main_thread() or jax.process_count() > 1:
        yield reached
        return
    before = signal.signal(signal.SIGTERM, lambda *_: signalled.set())
    try:
        yield reached
    finally:
        signal.signal(signal.SIGTERM, before)
