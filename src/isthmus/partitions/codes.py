"""Codes of classes: every class has a symbol in each of many tables, and a worker learns to tell the symbols of some.

With B symbols a table is a hash of the classes into B buckets; with two it is a bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from isthmus.errors import InvalidInput
from isthmus.partitions.partition import Indices
from isthmus.randomness import generator


@dataclass(frozen=True)
class Code:
    """The symbols of all classes.

    Every symbol of a table has as many classes as any other, up to one: which, is drawn by (seed, table).

    Attributes:
        classes: V.
        symbols: B, of a table.
        tables: of each worker.
        workers: n.
        seed: of the run.
        pinned: whether the score of the first symbol is 0, as one of B may be: then B - 1 units score a table.

    Raises:
        InvalidInput: more symbols than classes.

    >>> code = Code(classes=5, symbols=2, tables=1, workers=3, seed=0)
    >>> [np.bincount(code.of(worker)[0]).tolist() for worker in range(3)], code.units
    ([[3, 2], [3, 2], [3, 2]], 2)
    """

    classes: int
    symbols: int
    tables: int
    workers: int
    seed: int
    pinned: bool = False

    def __post_init__(self) -> None:
        if self.symbols > self.classes:
            raise InvalidInput(
                f"`buckets` must be at most the number of classes, {self.classes}, got {self.symbols}"
            )

    @property
    def units(self) -> int:
        """How many units score all tables of a worker."""
        return self.tables * (self.symbols - self.pinned)

    def of(self, worker: int) -> Indices:
        """Return [tables, V] the symbol of every class in each of a worker's tables."""
        return self._all[worker * self.tables : (worker + 1) * self.tables]

    @cached_property
    def alike(self) -> int:
        """How many classes have the code of another one: they can never be told apart."""
        _, counts = np.unique(self._all, axis=1, return_counts=True)
        return int(counts[counts > 1].sum())

    @cached_property
    def _all(self) -> Indices:
        orders = [
            generator(self.seed, "classes/tables", worker=table).permutation(self.classes)
            for table in range(self.workers * self.tables)
        ]
        return np.stack(orders) % self.symbols
