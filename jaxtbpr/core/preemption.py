"""SIGTERM as a request: clouds send it some seconds before they take a machine away."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils


@contextlib.contextmanager
def watch() -> Iterator[Callable[[int], bool]]:
    """Until the end of the block SIGTERM does not kill; yields what tells whether it has come.

    That is a function of the number of finished steps, which every process calls after each step;
    all processes get True after the same step. Signals reach only the main thread of a program;
    in another thread nothing is watched.
    """
    asked = threading.Event()

    def reached(step: int) -> bool:
        if jax.process_count() > 1:  # JAX's own service agrees on the step
            return multihost_utils.reached_preemption_sync_point(step)
        return asked.is_set()

    if threading.current_thread() is not threading.main_thread() or jax.process_count() > 1:
        yield reached
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield reached
    finally:
        signal.signal(signal.SIGTERM, before)
