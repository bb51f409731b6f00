"""No sketch at all: every worker holds everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import check_integer
from isthmus.lab.arrays import Array
from isthmus.lab.sketches.base import Sketch
from isthmus.lab.sketches.law import Masks, Support


@dataclass(frozen=True)
class Identity(Sketch):
    """C_i = I: IST becomes gradient descent.

    Raises:
        InvalidInput: fewer than one worker or coordinate.
    """

    workers: int
    dim: int

    def __post_init__(self) -> None:
        check_integer("workers", self.workers, at_least=1)
        check_integer("dim", self.dim, at_least=1)

    @property
    def masks(self) -> Masks:
        """All ones, always."""
        return Masks(within=(1.0, 1.0, 1.0, 1.0), between=None)

    def sample(self, random: np.random.Generator) -> Array:
        """Return ones, [n, d]."""
        return np.ones((self.workers, self.dim))

    def sample_many(self, random: np.random.Generator, count: int) -> Array:
        """Return ones, [count, n, d]."""
        return np.ones((count, self.workers, self.dim))

    def support(self, limit: int = 100_000) -> Support:
        """Return the one outcome."""
        return Support(np.ones(1), np.ones((1, self.workers, self.dim)))
