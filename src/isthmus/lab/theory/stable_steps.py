"""The step sizes for which a method settles: where its asymptotic rate is below 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg

from isthmus.lab.arrays import Array, overflowing
from isthmus.lab.methods import IST, GradientDescent, Method
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Identity
from isthmus.lab.theory.moments import Moments
from isthmus.lab.theory.rate import RateSearch, second_moment_map
from isthmus.lab.theory.spectrum import positive_radius
from isthmus.lab.theory.update import sketched_matrix_update

_POWERS = 2.0 ** np.arange(-10.0, 4.1, 0.5)  # steps to try, in units of 1/lambda_max(Lbar)
_SHARES = np.concatenate([np.geomspace(1e-6, 0.02, 12), np.linspace(0.03, 1.0, 40)])  # of 4/lambda_max(a worker's own)
_FAR = 1e6


@dataclass(frozen=True)
class StableSteps:
    """The step sizes that are stable in mean square.

    Attributes:
        intervals: open intervals (low, high), ascending.
        how: "closed form" (one eigenvalue problem, exact) or "search" (crossings found on a grid and refined).
    """

    intervals: tuple[tuple[float, float], ...]
    how: str

    @property
    def largest(self) -> float:
        """Supremum of the set; 0 if it is empty."""
        return self.intervals[-1][1] if self.intervals else 0.0

    def __contains__(self, stepsize: float) -> bool:
        return any(low < stepsize < high for low, high in self.intervals)


@overflowing
def stable_stepsizes(problem: Quadratic, method: Method) -> StableSteps:
    """Return the set of step sizes for which the covariance converges; ``method.stepsize`` itself does not matter.

    For one local step merged by gradients the set is (0, gamma*): with T(S) = E[B] S + S E[B] and Q(S) = E[B S B],
    S -> S - gamma T(S) + gamma^2 Q(S) is stable iff gamma times the spectral radius of T^{-1} Q is below 1. Directions
    that no worker's function sees (Lbar singular) are left out: nothing moves along them. Elsewhere, and for every
    other method that :func:`asymptotic_rate` takes, the radius is searched over a grid of steps and its crossings of 1
    are refined.

    Raises:
        InvalidInput: the moments of a round are not known.

    Reference:
        Damm, "Rational matrix equations in stochastic control" (2004), on resolvent positive operators.

    >>> from isthmus.lab import GradientDescent
    >>> steps = stable_stepsizes(Quadratic([[[4.0, 0.0], [0.0, 1.0]]], [[0.0, 0.0]]), GradientDescent(1.0))
    >>> [tuple(round(float(end), 9) for end in ends) for ends in steps.intervals]
    [(0.0, 0.5)]
    """
    if isinstance(method, GradientDescent):
        method = IST(Identity(problem.workers, problem.dim), method.stepsize)
    if not isinstance(method, IST):
        return _search(problem, method, 1.0 / float(problem.spectrum[-1] or np.inf), _POWERS)
    if method.local_steps == 1 and method.merge == "gradient":
        small, c = problem.in_unit_scale
        update = sketched_matrix_update(small, method.sketch)
        if update is not None:
            return StableSteps(((0.0, _largest_step(Moments(update), problem.dim) / c),), "closed form")
    scale = float(np.max(method.sketch.weights)) ** 2 / problem.workers if method.merge == "gradient" else 1.0
    steepest = scale * float(np.max(np.linalg.eigvalsh(problem.L)))
    return _search(problem, method, 4.0 / (steepest or np.inf), _SHARES)


def _largest_step(moments: Moments, dim: int) -> float:
    values, vectors = linalg.eigh(moments.mean_matrix)
    kept = values > dim * np.finfo(np.float64).eps * max(values[-1], 0.0)
    if not kept.any():
        return math.inf
    basis, sums = vectors[:, kept], values[kept][:, None] + values[kept]

    def forward(S: Array) -> Array:
        return np.asarray(basis.T @ moments.sandwich(basis @ S @ basis.T) @ basis / sums)

    return 1.0 / positive_radius(forward, int(kept.sum()))


def _search(problem: Quadratic, method: Method, unit: float, grid: Array) -> StableSteps:
    """Crossings of 1 by the asymptotic rate, looked for at ``grid`` times ``unit``."""
    second_moment_map(method, problem)  # says what is wrong, before a step is put in
    if unit == 0.0:  # f is flat: nothing moves
        return StableSteps(((0.0, math.inf),), "search")
    search = RateSearch(problem)

    def excess(share: float) -> float:
        return search.rate(replace(method, stepsize=share * unit)) - 1.0  # type: ignore[type-var]

    return StableSteps(tuple((low * unit, high * unit) for low, high in _intervals(excess, grid)), "search")


def _intervals(excess: Callable[[float], float], grid: Array) -> tuple[tuple[float, float], ...]:
    """Where it is below 0, by its sign at the grid's places and, as long as that is negative there, beyond its end."""
    from scipy import optimize  # a fifth of the time that importing the lab takes, for a search that few ask for

    values = [excess(float(place)) for place in grid]
    while values[-1] < 0 and grid[-1] < _FAR:
        grid = np.append(grid, 2.0 * grid[-1])
        values.append(excess(float(grid[-1])))
    ends: list[float] = [0.0] if values[0] < 0 else []
    for low, high, before, after in zip(grid[:-1], grid[1:], values[:-1], values[1:], strict=True):
        if (before < 0) != (after < 0):
            ends.append(float(optimize.brentq(excess, low, high, xtol=1e-14, rtol=1e-12)))  # by halves at infinity
    if len(ends) % 2:
        ends.append(math.inf)
    return tuple(zip(ends[::2], ends[1::2], strict=True))
