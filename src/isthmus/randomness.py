"""Counter-based random generators keyed by (seed, purpose, round, worker).

Nothing in isthmus draws from a global generator. A draw depends only on its key, never on what was
drawn before it or by whom, so every worker derives the same partition without a message and the
serial executor draws the same bits as real processes.
"""

from __future__ import annotations

import hashlib

import numpy as np

from isthmus.errors import InvalidInput, check_integer

_SEED_LIMIT = 2**64 - 1


def generator(seed: int, purpose: str, round: int = 0, worker: int = 0) -> np.random.Generator:
    """Return the generator of one (seed, purpose, round, worker).

    Philox-4x64: the 128-bit key is the head of SHA-256(seed, purpose); round and worker are the two
    upper words of the 256-bit counter, so each stream has 2**128 blocks of its own and no two streams overlap.

    Args:
        seed: 0 .. 2**64 - 1.
        purpose: what the numbers are for ("partition", "init", ...); different purposes are independent.
        round: 0 .. 2**64 - 1.
        worker: 0 .. 2**64 - 1.

    Raises:
        InvalidInput: a key out of range, or an empty purpose.

    Reference:
        Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

    >>> int(generator(7, "doctest", round=3).integers(10**6)) == int(generator(7, "doctest", round=3).integers(10**6))
    True
    """
    seed = check_integer("seed", seed, at_least=0, at_most=_SEED_LIMIT)
    round = check_integer("round", round, at_least=0, at_most=_SEED_LIMIT)
    worker = check_integer("worker", worker, at_least=0, at_most=_SEED_LIMIT)
    if not purpose:
        raise InvalidInput("`purpose` must be a non-empty string, got ''")
    digest = hashlib.sha256(seed.to_bytes(8, "little") + purpose.encode()).digest()
    key = np.frombuffer(digest[:16], dtype="<u8").astype(np.uint64)
    counter = np.array([0, 0, round, worker], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def derived_seed(seed: int, purpose: str, round: int = 0, worker: int = 0) -> int:
    """Return a 63-bit seed for a library that keeps its own generator (torch), from the same key.

    >>> derived_seed(0, "dropout", 1, 2) == derived_seed(0, "dropout", 1, 2)
    True
    """
    return int(generator(seed, purpose, round, worker).integers(2**63))
