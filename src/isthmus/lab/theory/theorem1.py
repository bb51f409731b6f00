"""Theorem 1: IST in the interpolation regime (all b_i = 0)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from isthmus.lab.arrays import Array
from isthmus.lab.bounds import Assumption
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Sketch, as_sketch
from isthmus.lab.theory.estimates import sampled_matrix_moments
from isthmus.lab.theory.moments import Moments
from isthmus.lab.theory.update import sketched_matrix_update

_ROUNDING = 1e-10


@dataclass(frozen=True, eq=False)
class Theorem1:
    """What Theorem 1 needs and gives for one problem and sketch.

    For b_i = 0, W = (Lbar E[B] + E[B] Lbar)/2 >= 0 and E[B Lbar B] <= theta W, any gamma <= 1/theta has

        E|x^k - x*|^2_Lbar <= (1 - gamma rate)^k |x^0 - x*|^2_Lbar,   rate = lambda_min(Lbar^{-1/2} W Lbar^{-1/2}).

    Attributes:
        mean: E[B], [d, d].
        square: E[B Lbar B], [d, d].
        W: [d, d].
        smallest_eigenvalue: of W.
        theta: the smallest one; inf where there is none.
        rate: on the range of Lbar.
        assumptions: on the problem and sketch, each with its verdict.
        exact: whether E[B] and E[B Lbar B] are exact, or Monte Carlo estimates.

    Reference:
        Shulgin, Richtarik (arXiv 2306.16484), Theorem 1.
    """

    mean: Array
    square: Array
    W: Array
    smallest_eigenvalue: float
    theta: float
    rate: float
    assumptions: tuple[Assumption, ...]
    exact: bool

    @property
    def stepsize(self) -> float:
        """1/theta, the largest step the theorem admits; 0 where it admits none."""
        return 0.0 if np.isinf(self.theta) else 1.0 / self.theta if self.theta > 0 else np.inf

    @property
    def applies(self) -> bool:
        """Whether every assumption on problem and sketch holds."""
        return all(assumption.holds is not False for assumption in self.assumptions)

    def verdict(self, stepsize: float) -> Assumption:
        """Return the verdict for one step size, in one line."""
        number = self.smallest_eigenvalue
        for assumption in self.assumptions:
            if assumption.holds is False:
                return Assumption("theorem 1", False, assumption.number, f"theorem 1 applies: no, {assumption.why}")
        if stepsize > self.stepsize * (1 + 1e-12):
            why = f"theorem 1 applies: no, the step {stepsize:.4g} is above 1/theta = {self.stepsize:.4g}"
            return Assumption("theorem 1", False, self.stepsize, why)
        why = f"theorem 1 applies: yes, a round multiplies the expected gap by at most {1 - stepsize * self.rate:.4g}"
        return Assumption("theorem 1", True, number, why)


def expected_matrix(problem: Quadratic, sketch: Sketch) -> Array:
    """Return E[B], B = (1/n) sum_i C_i L_i C_i, [d, d]; a Monte Carlo estimate for a sketch known by samples only.

    >>> from isthmus.lab import Permutation
    >>> expected_matrix(Quadratic([[[2.0, 1.0], [1.0, 2.0]]] * 2, [[0.0, 0.0]] * 2), Permutation(2, 2))
    array([[4., 0.],
           [0., 4.]])
    """
    update = sketched_matrix_update(problem, as_sketch(sketch))
    return sampled_matrix_moments(problem, as_sketch(sketch)).mean if update is None else Moments(update).mean_matrix


def theorem1(problem: Quadratic, sketch: Sketch) -> Theorem1:
    """Return E[B], W, the smallest theta, the rate, and which assumptions of Theorem 1 hold."""
    sketch = as_sketch(sketch)
    Lbar = problem.mean_matrix
    update = sketched_matrix_update(problem, sketch)
    if update is None:
        sampled = sampled_matrix_moments(problem, sketch)
        mean, square = sampled.mean, sampled.square
    else:
        moments = Moments(update)
        mean, square = moments.mean_matrix, moments.sandwich(Lbar)
    product = Lbar @ mean
    W = 0.5 * (product + product.T)
    values = linalg.eigvalsh(W)
    scale = max(float(np.abs(values).max()), 1e-300)
    psd = bool(values[0] >= -_ROUNDING * scale)
    theta = largest_relative(square, W) if psd else np.inf
    rate = _smallest_relative(W, Lbar) if psd else np.nan
    assumptions = (
        _interpolation(problem),
        _semidefinite(float(values[0]), psd),
        _finite_theta(theta, psd),
        _definite(problem),
    )
    return Theorem1(mean, square, W, float(values[0]), theta, rate, assumptions, update is not None)


def _interpolation(problem: Quadratic) -> Assumption:
    largest = float(np.abs(problem.b).max())
    why = "all b_i are 0" if largest == 0 else f"b is not 0 (largest entry {largest:.4g}): the fixed point is biased"
    return Assumption("interpolation", largest == 0, largest, why)


def _definite(problem: Quadratic) -> Assumption:
    smallest = float(problem.spectrum[0])
    singular = "Lbar is singular: the rate holds for the part of x - x* in its range"
    why = singular if problem.singular else f"Lbar is positive definite: smallest eigenvalue {smallest:.4g}"
    return Assumption("Lbar > 0", not problem.singular, smallest, why)


def _semidefinite(smallest: float, holds: bool) -> Assumption:
    kind = "W is positive semi-definite" if holds else "W is indefinite"
    return Assumption("W >= 0", holds, smallest, f"{kind}: smallest eigenvalue {smallest:.4g}")


def _finite_theta(theta: float, psd: bool) -> Assumption:
    if np.isfinite(theta):
        return Assumption("theta", True, theta, f"E[B Lbar B] <= theta W with theta = {theta:.4g}")
    reason = "W is singular where E[B Lbar B] is not" if psd else "W is indefinite"
    return Assumption("theta", False, theta, f"no theta has E[B Lbar B] <= theta W: {reason}")


def largest_relative(matrix: Array, base: Array) -> float:
    """Return the smallest theta with matrix <= theta base, both positive semi-definite; inf where there is none.

    >>> largest_relative(np.diag([8.0, 0.0]), np.diag([4.0, 0.0])), largest_relative(np.eye(2), np.diag([4.0, 0.0]))
    (2.0, inf)
    """
    values, vectors = linalg.eigh(base)
    kept = values > _ROUNDING * max(values[-1], 0.0)
    rotated = vectors.T @ matrix @ vectors
    outside = float(np.abs(np.diagonal(rotated)[~kept]).max(initial=0.0))
    if outside > 1e-8 * float(np.abs(rotated).max()):
        return np.inf
    root = 1.0 / np.sqrt(values[kept])
    inner = root[:, None] * rotated[np.ix_(kept, kept)] * root
    return float(linalg.eigvalsh(inner)[-1]) if kept.any() else 0.0


def _smallest_relative(W: Array, Lbar: Array) -> float:
    """lambda_min(Lbar^{-1/2} W Lbar^{-1/2}) on the range of Lbar."""
    values, vectors = linalg.eigh(Lbar)
    kept = values > 1e-12 * len(values) * values[-1]
    root = vectors[:, kept] / np.sqrt(values[kept])
    return float(linalg.eigvalsh(root.T @ W @ root)[0])
