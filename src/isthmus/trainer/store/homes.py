"""Which worker is home to which rows of every tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Homes:
    """Every tensor lives as contiguous shards of its first dimension, one a worker, as ``Shard(0)`` of DTensor cuts it.

    The first shards have ceil(rows / workers) rows, those after them what is left, maybe nothing. A tensor without
    dimensions is one row, and worker 0 its home.

    Attributes:
        workers: number of workers.
        shapes: of the tensors, by name.

    >>> homes = Homes(4, {"weight": (10, 3), "step": ()})
    >>> [homes.rows("weight", worker) for worker in range(4)]
    [(0, 3), (3, 6), (6, 9), (9, 10)]
    >>> [homes.rows("step", worker) for worker in range(4)]
    [(0, 1), (1, 1), (1, 1), (1, 1)]
    """

    workers: int
    shapes: Mapping[str, tuple[int, ...]]

    def count(self, name: str) -> int:
        """Return how many rows a tensor has."""
        return self.shapes[name][0] if self.shapes[name] else 1

    def rows(self, name: str, worker: int) -> tuple[int, int]:
        """Return first row and end of the shard of a tensor that a worker is home to; equal where it has none."""
        rows = self.count(name)
        size = -(-rows // self.workers)
        return min(worker * size, rows), min((worker + 1) * size, rows)

    def shard(self, name: str, worker: int) -> tuple[int, ...] | None:
        """Return the shape of the shard of a tensor that a worker is home to; None where it has none."""
        start, stop = self.rows(name, worker)
        if start == stop:
            return None
        return (stop - start, *self.shapes[name][1:]) if self.shapes[name] else ()

    def most_numbers(self, name: str) -> int:
        """Return how many numbers of a tensor the first worker is home to: no other has more."""
        return -(-self.count(name) // self.workers) * math.prod(self.shapes[name][1:])


@dataclass(frozen=True)
class Owned(Homes):
    """Every tensor lives whole with one worker.

    Attributes:
        owners: of the tensors, by name.
    """

    owners: Mapping[str, int]

    def rows(self, name: str, worker: int) -> tuple[int, int]:
        """Return all rows for the owner, none for the others."""
        return (0, self.count(name)) if self.owners[name] == worker else (0, 0)

    def most_numbers(self, name: str) -> int:
        """Return how many numbers the owner is home to."""
        return math.prod(self.shapes[name])
