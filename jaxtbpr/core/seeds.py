"""Randomness on the host: a generator of its own for every record and purpose.

A draw depends on (seed, names) alone, so that it is the same whatever the order of work, the
number of processes or a restart. On the device `jax.random.fold_in` plays this part.
"""

import hashlib

import numpy as np


def rng(seed: int, *names: str | int) -> np.random.Generator:
    """Returns the generator of one purpose, for example `rng(0, "prompts", record_id)`.

    seed: the run's seed; names: what the numbers are for. Names are length-prefixed before
    hashing, so that ("ab", "c") and ("a", "bc") differ.
    """
    key = int.from_bytes(_digest(seed, *names, size=16), "big")
    return np.random.Generator(np.random.Philox(key=key))


def words(*names: str | int) -> np.ndarray:
    """Returns the two numbers, uint32 [2], that a device folds into a key for `names`."""
    return np.frombuffer(_digest(*names, size=8), ">u4").astype(np.uint32)


def _digest(*names: str | int, size: int) -> bytes:
    parts = [str(part).encode() for part in names]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hashlib.blake2b(message, digest_size=size).digest()
