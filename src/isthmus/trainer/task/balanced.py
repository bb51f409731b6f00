"""Batches in which all classes are as frequent, whatever they are in the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from isthmus.errors import InvalidInput
from isthmus.randomness import generator
from isthmus.trainer.task.examples import Positions
from isthmus.trainer.task.shares import Shares


@dataclass(frozen=True, eq=False)
class Balanced:
    """The order in which a worker takes its samples: one of every class that it has, in turn, then the next of each.

    Attributes:
        targets: [m] class numbers of its samples.
        batch_size: samples of a step.
        seed, worker: what the orders are drawn from.

    Raises:
        InvalidInput: several targets a sample.
    """

    targets: np.ndarray
    batch_size: int
    seed: int
    worker: int

    def __post_init__(self) -> None:
        if self.targets.ndim != 1 or self.targets.dtype.kind not in "iu":
            raise InvalidInput("`balanced` needs one class number a sample")

    @cached_property
    def _pools(self) -> tuple[Positions, Positions, Positions]:
        """Return the samples by class, in a drawn order within each; where each class begins, and how many it has."""
        drawn = generator(self.seed, "train/balanced", worker=self.worker).permutation(len(self.targets))
        found = drawn[np.argsort(self.targets[drawn], kind="stable")]
        _, starts, counts = np.unique(self.targets[found], return_index=True, return_counts=True)
        return found, starts, counts

    def at(self, step: int) -> Positions:
        """Return the positions of a step's samples."""
        pool, starts, counts = self._pools
        turns, places = np.divmod(np.arange(step * self.batch_size, (step + 1) * self.batch_size), len(counts))
        orders = {turn: _order(self.seed, turn, self.worker, len(counts)) for turn in np.unique(turns).tolist()}
        classes = np.array([orders[turn][place] for turn, place in zip(turns.tolist(), places.tolist(), strict=True)])
        return pool[starts[classes] + turns % counts[classes]]


def balanced_of(shares: Shares, worker: int, batch_size: int, seed: int) -> Balanced:
    """Return the balanced order of a worker of a run in its own share.

    Raises:
        InvalidInput: data without class numbers.
    """
    return Balanced(shares.targets(shares.parts[worker]), batch_size, seed, worker)


@lru_cache(maxsize=64)
def _order(seed: int, turn: int, worker: int, classes: int) -> Positions:
    return generator(seed, "train/balanced/classes", turn, worker).permutation(classes)
