"""The constants that theorems speak of, computed from the problem."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array
from isthmus.lab.definite import inverse
from isthmus.lab.problems.base import Problem
from isthmus.lab.problems.logistic import Logistic
from isthmus.lab.problems.minibatch import exact
from isthmus.lab.quadratics import Quadratic


@dataclass(frozen=True)
class Constants:
    """Smoothness, convexity and heterogeneity of n functions and their mean.

    Exact for quadratics. For logistic regression upper bounds of smoothness (curvature at most 1/4 of the Gram
    matrices') and a lower bound of convexity.

    Attributes:
        workers: n.
        mu: strong convexity of f; 0 where there is none.
        L: smoothness of f.
        mu_min: the smallest strong convexity of an f_i.
        L_max: the largest smoothness L_i of an f_i.
        L_tilde: sqrt(mean L_i^2).
        L_plus: mean |grad f_i(x) - grad f_i(y)|^2 <= L_plus^2 |x - y|^2.
        L_pm: the Hessian variance: the same, of grad f_i - grad f.
        zeta: sqrt(mean |grad f_i(x*)|^2); nan where there is no one minimiser.
        norm: |x*|; likewise.
    """

    workers: int
    mu: float
    L: float
    mu_min: float
    L_max: float
    L_tilde: float
    L_plus: float
    L_pm: float
    zeta: float
    norm: float

    @property
    def zeta2(self) -> float:
        """mean |grad f_i(x*)|^2."""
        return self.zeta * self.zeta

    @property
    def norm2(self) -> float:
        """|x*|^2."""
        return self.norm * self.norm

    @property
    def condition_number(self) -> float:
        """L/mu; inf where f is not strongly convex."""
        return self.L / self.mu if self.mu > 0 else np.inf


def constants(problem: Problem) -> Constants:
    """Return the constants of a quadratic or a logistic problem (or minibatches of one).

    Raises:
        InvalidInput: another kind of problem.

    >>> found = constants(Quadratic([[[1.0]], [[3.0]]], [[1.0], [3.0]]))
    >>> found.L, found.L_max, found.L_pm
    (2.0, 3.0, 1.0)
    """
    plain = exact(problem)
    if isinstance(plain, Quadratic):
        return _of_quadratic(plain)
    if isinstance(plain, Logistic):
        return _of_logistic(plain)
    raise InvalidInput(f"`problem` must be a quadratic or logistic regression, got {type(plain).__name__}")


def _of_quadratic(problem: Quadratic) -> Constants:
    problem, c = problem.in_unit_scale  # squares of L and of gradients over- and underflow
    spectra = np.stack([linalg.eigvalsh(matrix) for matrix in problem.L])
    squares = np.mean(problem.L @ problem.L, axis=0)
    variance = squares - problem.mean_matrix @ problem.mean_matrix
    x = problem.minimizer
    return Constants(
        workers=problem.workers,
        mu=c * _convexity(problem),
        L=c * float(problem.spectrum[-1]),
        mu_min=c * max(float(spectra[:, 0].min()), 0.0),
        L_max=c * float(spectra[:, -1].max()),
        L_tilde=c * float(np.sqrt((spectra[:, -1] ** 2).mean())),
        L_plus=c * _root_of_largest(squares),
        L_pm=c * _root_of_largest(variance),
        zeta=c * _root_of_mean_square(problem, x),
        norm=float(linalg.norm(x)),
    )


def _root_of_mean_square(problem: Quadratic | Logistic, x: Array) -> float:
    """sqrt(mean |grad f_i(x)|^2)."""
    return float(linalg.norm(problem.worker_gradients(x[None])[0])) / problem.workers**0.5


def _convexity(problem: Quadratic) -> float:
    """lambda_min(Lbar) as 1/lambda_max of the inverse, accurate where it is far below lambda_max(Lbar)."""
    return 0.0 if problem.singular else 1.0 / float(linalg.eigvalsh(inverse(problem.mean_matrix))[-1])


def _of_logistic(problem: Logistic) -> Constants:
    grams = problem.samples.grams
    penalty = problem.ridge if problem.convex else 2.0 * problem.ridge
    each = np.array([float(linalg.eigvalsh(gram)[-1]) for gram in grams]) / 4.0 + penalty
    mu = problem.ridge if problem.convex else 0.0
    x = problem.minimizer
    together = float(np.sqrt((each**2).mean()))
    return Constants(
        workers=problem.workers,
        mu=mu,
        L=float(linalg.eigvalsh(grams.mean(axis=0))[-1]) / 4.0 + penalty,
        mu_min=mu,
        L_max=float(each.max()),
        L_tilde=together,
        L_plus=together,
        L_pm=together,
        zeta=float("nan") if x is None else _root_of_mean_square(problem, x),
        norm=float("nan") if x is None else float(linalg.norm(x)),
    )


def _root_of_largest(matrix: Array) -> float:
    last = len(matrix) - 1
    return float(np.sqrt(max(float(linalg.eigvalsh(matrix, subset_by_index=[last, last])[0]), 0.0)))
