"""What a sketch is made of: 0/1 masks with a joint law, and weights where a mask is one.

C_i = Diag(w_i * m_i), m_i in {0,1}^d random, w_i fixed. All that the exact first and second moments of a linear method
need of the law is the chance that a worker, or a pair of workers, holds up to four units; :class:`Masks` states it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.lab.arrays import Array


@dataclass(frozen=True, eq=False)
class Masks:
    """Joint inclusion probabilities of the masks up to fourth order; workers are exchangeable but for ``marginals``.

    Attributes:
        within: (p1, p2, p3, p4): chance that a worker holds m given different units, to be multiplied by those units'
            ``marginals``.
        between: (c11, c12, c22): chance that worker i holds a given and worker j another given units, all different;
            None when the workers' masks are independent.
        shared: chance that workers i and j both hold one given unit (0 for partitions; unused when independent).
        marginals: [n, d] of units held independently of each other (Bernoulli), or None for ones.
    """

    within: tuple[float, float, float, float]
    between: tuple[float, float, float] | None
    shared: float = 0.0
    marginals: Array | None = None

    @property
    def certain(self) -> bool:
        """Whether every worker always holds everything."""
        return self.within == (1.0, 1.0, 1.0, 1.0) and (self.marginals is None or bool((self.marginals == 1).all()))

    @property
    def single_unit(self) -> bool:
        """Whether a worker never holds two units: matrices then act by their diagonals only."""
        return self.within[1] == 0.0

    def held(self, worker: int) -> Array | float:
        """Chance that ``worker`` holds each unit: [d], or one number for all."""
        return self.within[0] if self.marginals is None else self.within[0] * self.marginals[worker]

    def second_moment(self, matrix: Array, worker: int) -> Array:
        """Return E[P M P] for the worker's mask P: p1 Diag(M) + p2 off(M), entries weighted by the marginals."""
        diagonal = self.within[0] * np.diagonal(matrix)
        result = self.within[1] * matrix
        if self.marginals is not None:
            p = self.marginals[worker]
            result *= p[:, None] * p
            diagonal = p * diagonal
        result[np.diag_indices(len(result))] = diagonal
        return result


@dataclass(frozen=True, eq=False)
class Support:
    """Every outcome of a sketch.

    Attributes:
        probabilities: [P], sum 1.
        diagonals: [P, n, d], the diagonals of all workers' C_i in each outcome.
    """

    probabilities: Array
    diagonals: Array


@dataclass(frozen=True, eq=False)
class Blocks:
    """Sampled sketches of many seeds, in the form a method works with.

    Attributes:
        members: [seeds, n, q] the units each worker holds; ``dim`` in unused places (their value is 0). None when a
            worker may hold any unit: ``values`` then has all d of them.
        values: [seeds, n, q] or [seeds, n, d]: the diagonal entries of C_i there.
    """

    members: NDArray[np.int64] | None
    values: Array
