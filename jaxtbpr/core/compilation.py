"""How JAX is set up before anything is computed: a cache of compiled programs, and float32."""

import contextlib
import os
import pathlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxtbpr.core.errors import UserError
from jaxtbpr.core.progress import say

# Settings of JAX on which results depend, and the values that the programs need.
SETTLED = {
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
}

_SILENT = 5.0  # seconds of compiling before it is announced


def set_up() -> None:
    """Sets JAX up for a command: `use_cache`, and `SETTLED` whatever the environment says.

    Each setting that is put back is reported in one line.
    """
    use_cache()
    for name, value in SETTLED.items():
        setting = getattr(jax.config, name)
        if setting != value:
            jax.config.update(name, value)
            say(f"{name.upper()}={setting} is not supported; jaxtbpr uses {value} (unset it)")


@contextlib.contextmanager
def explain_backend_error() -> Iterator[None]:
    """Raises UserError in place of JAX's error where a requested device is not found."""
    try:
        yield
    except RuntimeError as error:
        if "Unable to initialize backend" not in str(error):
            raise
        platforms = os.environ.get("JAX_PLATFORMS", "")
        fault = str(error).partition(" (set JAX_PLATFORMS")[0]
        raise UserError(
            f"JAX_PLATFORMS={platforms}: {fault}; unset it, or install jax for that device."
        ) from error


@contextlib.contextmanager
def announce(label: str) -> Iterator[None]:
    """Prints one line if the block, which compiles, takes longer than some seconds."""
    line = f"{label}: compiling, which takes minutes the first time"
    timer = threading.Timer(_SILENT, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def announced(program: Callable[..., Any], label: str) -> Callable[..., Any]:
    """Returns a jitted `program` whose first call, which compiles it, runs in `announce`."""
    is_compiled = False

    def call(*args: Any) -> Any:
        nonlocal is_compiled
        with contextlib.nullcontext() if is_compiled else announce(label):
            result = program(*args)
        is_compiled = True
        return result

    return call


def use_cache(directory: str | None = None) -> None:
    """Keeps compiled programs in `directory` between runs.

    directory: by default `jaxtbpr/xla` under the user's cache folder. `JAX_COMPILATION_CACHE_DIR`
    in the environment wins over both.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    directory = directory or str(pathlib.Path(home) / "jaxtbpr" / "xla")
    jax.config.update("jax_compilation_cache_dir", directory)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
