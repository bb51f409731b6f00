"""Permutation sketches with weights of their own: preconditioning inside the sketch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array, check_array
from isthmus.lab.sketches.base import Sketch
from isthmus.lab.sketches.law import Blocks, Masks, Support
from isthmus.lab.sketches.permutation import Permutation

if TYPE_CHECKING:
    from isthmus.lab.quadratics import Quadratic


class WeightedPermutation(Sketch):
    """C_i = Diag(w_i) P_i with permutation masks P_i and any positive weights.

    Args:
        weights: [n, d].

    Raises:
        InvalidInput: wrong shape, or a weight that is not positive.
    """

    def __init__(self, weights: ArrayLike) -> None:
        w = check_array("weights", weights, "n", "d")
        if w.size == 0 or not (w > 0).all():
            raise InvalidInput(f"`weights` must be positive, got {w.min(initial=np.inf):g}")
        self.workers, self.dim = w.shape
        self.permutation = Permutation(self.workers, self.dim, 1.0)
        self._weights = w

    @property
    def masks(self) -> Masks:
        """Those of the permutation."""
        return self.permutation.masks

    @property
    def weights(self) -> Array:
        """w, [n, d]."""
        return self._weights

    def sample(self, random: np.random.Generator) -> Array:
        """Draw all workers' diagonals at once, [n, d]."""
        return self.permutation.sample(random) * self._weights

    def sample_many(self, random: np.random.Generator, count: int) -> Array:
        """Draw ``count`` outcomes, [count, n, d]."""
        return self.permutation.sample_many(random, count) * self._weights

    def sample_blocks(self, random: np.random.Generator, count: int) -> Blocks:
        """Draw ``count`` outcomes as units and values."""
        blocks = self.permutation.sample_blocks(random, count)
        assert blocks.members is not None
        units = np.minimum(blocks.members, self.dim - 1)
        rows = np.arange(self.workers)[:, None]
        return Blocks(blocks.members, blocks.values * self._weights[rows, units])

    def support(self, limit: int = 100_000) -> Support:
        """Return all outcomes, equally likely."""
        plain = self.permutation.support(limit)
        return Support(plain.probabilities, plain.diagonals * self._weights)


class ScaledPermutation(WeightedPermutation):
    """C_i = sqrt(n) Diag(L_i)^{-1/2} P_i with permutation masks.

    Heterogeneous form (n = d): C_i = sqrt(n) (L_i)_{aa}^{-1/2} e_a e_a', a = pi_i. Then B = I in every realisation and
    theta = 1. The paper prints [L_i^{-1/2}]_{aa} instead of (L_{i,aa})^{-1/2}, for which this is false.
    Homogeneous form (any n <= d): Diag(Lbar) for all workers; for n = d and equal L_i it is the same sketch.

    Args:
        problem: whose diagonals precondition.
        homogeneous: use Diag(Lbar) for all workers.

    Raises:
        InvalidInput: a diagonal entry that is 0, n != d in the heterogeneous form, n > d in the homogeneous one.

    Reference:
        Shulgin, Richtarik (arXiv 2306.16484), eq. (23).

    >>> from isthmus.lab import Quadratic, theory
    >>> problem = Quadratic([[[4.0, 1.0], [1.0, 2.0]], [[1.0, 0.0], [0.0, 9.0]]], [[0.0, 0.0]] * 2)
    >>> theory.expected_matrix(problem, ScaledPermutation(problem)).round(12) + 0.0
    array([[1., 0.],
           [0., 1.]])
    """

    def __init__(self, problem: Quadratic, homogeneous: bool = False) -> None:
        n, d = problem.workers, problem.dim
        if homogeneous and n > d:
            raise InvalidInput(f"`problem` must have at most as many workers as coordinates, got {n} for {d}")
        if not homogeneous and n != d:
            raise InvalidInput(
                f"`problem` must have as many workers as coordinates for the scaled sketch, got {n} for {d}; "
                "`homogeneous=True` takes any n <= d"
            )
        diagonal = np.diagonal(problem.mean_matrix) if homogeneous else problem.diagonals
        if not (diagonal > 0).all():
            place = ", ".join(str(index) for index in np.argwhere(~(diagonal > 0))[0])
            raise InvalidInput(f"`problem` must have positive diagonals, got 0 at [{place}]")
        super().__init__(np.broadcast_to(np.sqrt(n / diagonal), (n, d)) if homogeneous else np.sqrt(n / diagonal))
