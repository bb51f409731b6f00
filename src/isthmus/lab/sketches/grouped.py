"""Coordinates that are dealt together: those of one output, of one input, of one layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array
from isthmus.lab.sketches.base import Sketch, as_sketch
from isthmus.lab.sketches.law import Support


class Grouped(Sketch):
    """C_i = Diag of what another sketch draws for the group of each coordinate.

    Where that sketch can be enumerated all moments are exact, else they are Monte Carlo.

    Args:
        sketch: of the groups: its ``dim`` is their number.
        groups: [d] whole numbers, the group of every coordinate.

    Raises:
        InvalidInput: a group that the sketch does not have, or no coordinates.

    >>> from isthmus.lab.sketches import Permutation
    >>> Grouped(Permutation(2, 2, 1.0), [0, 0, 1]).support().diagonals.tolist()
    [[[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]]]
    """

    def __init__(self, sketch: Sketch, groups: ArrayLike) -> None:
        self.sketch = as_sketch(sketch)
        self.groups = np.asarray(groups)
        outside = self.groups.ndim != 1 or not np.issubdtype(self.groups.dtype, np.integer) or self.groups.size == 0
        if outside or not 0 <= self.groups.min() <= self.groups.max() < self.sketch.dim:
            most, got = self.sketch.dim - 1, self.groups.tolist()
            raise InvalidInput(f"`groups` must be whole numbers 0..{most}, one a coordinate, got {got}")
        self.workers, self.dim = self.sketch.workers, len(self.groups)

    @property
    def weights(self) -> Array | float:
        """Those of the groups: a number, [d] or [n, d]."""
        weights = self.sketch.weights
        return np.asarray(weights)[..., self.groups] if np.ndim(weights) else weights

    def sample(self, random: np.random.Generator) -> Array:
        """Draw all workers' diagonals at once, [n, d]."""
        return self.sketch.sample(random)[:, self.groups]

    def sample_many(self, random: np.random.Generator, count: int) -> Array:
        """Draw ``count`` outcomes, [count, n, d]."""
        return self.sketch.sample_many(random, count)[:, :, self.groups]

    def support(self, limit: int = 100_000) -> Support:
        """Return all outcomes of the groups' sketch.

        Raises:
            InvalidInput: more than ``limit`` of them, or a law that cannot be enumerated.
        """
        found = self.sketch.support(limit)
        return Support(found.probabilities, found.diagonals[:, :, self.groups])
