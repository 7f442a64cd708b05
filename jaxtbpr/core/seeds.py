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
    parts = [str(part).encode() for part in (seed, *names)]
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    key = int.from_bytes(hashlib.blake2b(message, digest_size=16).digest(), "big")
    return np.random.Generator(np.random.Philox(key=key))
