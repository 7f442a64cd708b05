"""JAX's persistent compilation cache: compiling dominates short runs, so it is on by default."""

import os
import pathlib

import jax


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
