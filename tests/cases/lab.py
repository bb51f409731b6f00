"""Problems and sketches that the lab's tests run through."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np

from isthmus.lab import Permutation, Quadratic
from isthmus.lab.arrays import Array

GRID = [(5, 5), (4, 2), (6, 3), (6, 2), (8, 4)]  # (d, n)


def random_quadratic(workers: int, dim: int, seed: int = 0, biased: bool = True) -> Quadratic:
    """Heterogeneous, well-conditioned on purpose: errors then show rounding, not conditioning."""
    random = np.random.default_rng([seed, workers, dim])
    A = random.standard_normal((workers, dim, dim))
    b = random.standard_normal((workers, dim)) * float(biased)
    return Quadratic(np.einsum("nka,nkb->nab", A, A) + 0.1 * np.eye(dim), b)


def partitions(workers: int, dim: int) -> list[Array]:
    """Every ordered partition of ``dim`` units into ``workers`` equal blocks as 0/1 masks [n, d], from the definition:
    all orders of the units, cut into blocks, each partition kept once."""
    size = dim // workers
    seen: dict[tuple[tuple[int, ...], ...], Array] = {}
    for order in itertools.permutations(range(dim)):
        blocks = tuple(tuple(sorted(order[i * size : (i + 1) * size])) for i in range(workers))
        if blocks not in seen:
            masks = np.zeros((workers, dim))
            for worker, block in enumerate(blocks):
                masks[worker, list(block)] = 1.0
            seen[blocks] = masks
    return list(seen.values())


SCALES: dict[str, Callable[[int], float | None]] = {"n": lambda n: None, "sqrt n": lambda n: n**0.5, "1": lambda n: 1.0}


def permutation(workers: int, dim: int, scale: str) -> Permutation:
    return Permutation(workers, dim, SCALES[scale](workers))
