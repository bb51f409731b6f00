"""Theorem 1: IST in the interpolation regime (all b_i = 0)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from isthmus.lab.arrays import Array
from isthmus.lab.bounds import Assumption
from isthmus.lab.definite import RANK, largest_relative, smallest_relative
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Sketch, as_sketch
from isthmus.lab.theory.estimates import sampled_matrix_moments
from isthmus.lab.theory.moments import Moments
from isthmus.lab.theory.update import sketched_matrix_update


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
    return sampled_matrix_moments(problem, as_sketch(sketch))[0] if update is None else Moments(update).mean_matrix


def theorem1(problem: Quadratic, sketch: Sketch) -> Theorem1:
    """Return E[B], W, the smallest theta, the rate, and which assumptions of Theorem 1 hold.

    Signs and ranks of W are those of D^{-1/2} W D^{-1/2}, D = Diag(W): they do not depend on the coordinates' units.
    """
    sketch = as_sketch(sketch)
    small, c = problem.in_unit_scale  # E[B Lbar B] has three factors of f
    update = sketched_matrix_update(small, sketch)
    if update is None:
        mean, square = sampled_matrix_moments(small, sketch)
    else:
        moments = Moments(update)
        mean, square = moments.mean_matrix, moments.sandwich(small.mean_matrix)
    product = small.mean_matrix @ mean
    W = 0.5 * (product + product.T)
    relative = smallest_relative(W, np.einsum("ab,ab->a", np.abs(small.mean_matrix), np.abs(mean)))
    psd = relative >= -RANK * problem.dim
    theta = c * largest_relative(square, W) if psd else np.inf
    slowest = largest_relative(small.mean_matrix, W) if psd else 0.0
    rate = c / slowest if slowest > 0 else np.nan
    assumptions = (
        _interpolation(problem),
        _semidefinite(relative, psd),
        _finite_theta(theta, psd),
        _definite(problem),
    )
    smallest = float(linalg.eigvalsh(W)[0]) * c * c
    with np.errstate(over="ignore"):
        return Theorem1(mean * c, square * c * c * c, W * c * c, smallest, theta, rate, assumptions, update is not None)


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
    why = f"{kind}: smallest eigenvalue {smallest:.4g} in units of its diagonal"
    return Assumption("W >= 0", holds, smallest, why)


def _finite_theta(theta: float, psd: bool) -> Assumption:
    if np.isfinite(theta):
        return Assumption("theta", True, theta, f"E[B Lbar B] <= theta W with theta = {theta:.4g}")
    reason = "W is singular where E[B Lbar B] is not" if psd else "W is indefinite"
    return Assumption("theta", False, theta, f"no theta has E[B Lbar B] <= theta W: {reason}")
