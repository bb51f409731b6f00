"""Exact moments of one round by going through every outcome of the sketch: any local steps, small supports."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array
from isthmus.lab.methods import IST, Method
from isthmus.lab.methods.ist import check_fits
from isthmus.lab.methods.local_steps import local_map
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Support

MOST_NUMBERS = 20_000_000


@dataclass(frozen=True, eq=False)
class Enumeration:
    """Every outcome of a round, x+ = J x + j, with its probability.

    Attributes:
        probabilities: [P].
        matrices: J, [P, d, d].
        vectors: j, [P, d].
    """

    probabilities: Array
    matrices: Array
    vectors: Array

    @property
    def keep(self) -> float:
        """0: the matrices J are the whole round."""
        return 0.0

    @cached_property
    def mean_matrix(self) -> Array:
        """E[J], [d, d]."""
        return np.einsum("p,pab->ab", self.probabilities, self.matrices)

    @cached_property
    def mean_vector(self) -> Array:
        """E[j], [d]."""
        return np.asarray(self.probabilities @ self.vectors)

    def mean_times(self, S: Array) -> Array:
        """Return E[J] S."""
        return self.mean_matrix @ S

    def sandwich(self, X: Array) -> Array:
        """Return E[J X J'], [d, d]."""
        weighted = self.probabilities[:, None, None] * self.matrices @ X
        return np.einsum("pab,pcb->ac", weighted, self.matrices, optimize=True)

    def drift(self, m: Array) -> Array:
        """Return E[J m j'], [d, d]."""
        return np.asarray((self.probabilities[:, None] * (self.matrices @ m)).T @ self.vectors)

    def noise(self) -> Array:
        """Return E[j j'], [d, d]."""
        return np.asarray((self.probabilities[:, None] * self.vectors).T @ self.vectors)


def enumerate_round(problem: Quadratic, method: Method, limit: int = 20_000) -> Enumeration | None:
    """Return every outcome of one round of IST, or None where there are more than ``limit`` or they are not known."""
    if not isinstance(method, IST):
        return None
    check_fits(problem, method.sketch)
    try:
        support = method.sketch.support(limit)
    except InvalidInput:
        return None
    if len(support.probabilities) * problem.dim**2 > MOST_NUMBERS:
        return None
    return outcomes_of(problem, method, support)


def outcomes_of(problem: Quadratic, method: IST, support: Support) -> Enumeration:
    """Return one round of IST for every outcome of its sketch in ``support``."""
    n, d = problem.workers, problem.dim
    keep = 1.0 if method.merge == "gradient" else 0.0
    outcomes = len(support.probabilities)
    J = np.broadcast_to(keep * np.eye(d), (outcomes, d, d)).copy()
    j = np.zeros((outcomes, d))
    for worker in range(n):
        laws, which = np.unique(support.diagonals[:, worker], axis=0, return_inverse=True)
        for law, diagonal in enumerate(laws):
            held = np.flatnonzero(diagonal)
            if len(held) == 0:
                continue
            G, g = _local(problem, worker, held, diagonal[held], method)
            G = G - keep * np.diag(diagonal[held])
            chosen = np.flatnonzero(which.ravel() == law)
            J[np.ix_(chosen, held, held)] += G / n
            j[np.ix_(chosen, held)] += g / n
    return Enumeration(support.probabilities, J, j)


def _local(problem: Quadratic, worker: int, held: NDArray[np.intp], values: Array, method: IST) -> tuple[Array, Array]:
    matrix, vector = problem.L[worker][np.ix_(held, held)], problem.b[worker, held]
    if method.local_steps == 1:
        weighted = values[:, None] * matrix * values
        return np.diag(values) - method.stepsize * weighted, method.stepsize * values * vector
    return local_map(matrix, vector, values, method.stepsize, method.local_steps)
