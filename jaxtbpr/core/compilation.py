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

# Settings of JAX that would change what is computed, or refuse it, and how the programs need them.
SETTLED = {
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
}

_SILENT = 5.0  # seconds of compiling of which nothing is said


def set_up() -> None:
    """Sets JAX up for a command: `use_cache`, and `SETTLED` whatever the environment says.

    A setting that is put back is told in one line.
    """
    use_cache()
    for name, value in SETTLED.items():
        setting = getattr(jax.config, name)
        if setting != value:
            jax.config.update(name, value)
            say(
                f"{name.upper()}={setting} is not for jaxtbpr, which goes on with {value}; unset it"
            )


@contextlib.contextmanager
def backend_told() -> Iterator[None]:
    """Raises UserError in place of JAX's error where it finds none of the devices asked for."""
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
def told(label: str) -> Iterator[None]:
    """Says that the block compiles, once it has taken so long that somebody may wonder."""
    words = f"{label}: compiling, which takes minutes the first time"
    timer = threading.Timer(_SILENT, say, [words])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def telling(program: Callable[..., Any], label: str) -> Callable[..., Any]:
    """Returns a jitted `program` whose first call, which compiles it, is `told`."""
    is_compiled = False

    def call(*args: Any) -> Any:
        nonlocal is_compiled
        with contextlib.nullcontext() if is_compiled else told(label):
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
