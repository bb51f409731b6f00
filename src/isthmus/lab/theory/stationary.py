"""Where a method settles: the stationary mean and covariance, and the step sizes for which there are any."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import LinearOperator, gmres

from isthmus.lab.arrays import Array, overflowing
from isthmus.lab.definite import is_definite
from isthmus.lab.methods import IST, GradientDescent, LinearMethod, Method
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Identity
from isthmus.lab.theory.dynamics import EXACT, RoundMoments, covariance_step, known_moments
from isthmus.lab.theory.estimates import estimated_moments
from isthmus.lab.theory.fixed_points import fixed_point_of
from isthmus.lab.theory.lifted import known_round
from isthmus.lab.theory.moments import Moments
from isthmus.lab.theory.rate import RateSearch, second_moment_map
from isthmus.lab.theory.spectrum import Radius, positive_radius
from isthmus.lab.theory.update import sketched_matrix_update

_DENSE_UP_TO = 16
_SOLVED, _POOR = 1e-14, 1e-9  # relative residuals of the covariance: as good as rounding allows; to be told
_REFINEMENTS = 6
_GRID = 40
_POWERS = 2.0 ** np.arange(-10.0, 4.1, 0.5)  # steps to try, in units of 1/lambda_max(Lbar)
_FAR = 1e6
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Stationary:
    """The stationary law's first two moments, or why there is none.

    Attributes:
        exists: whether mean and covariance converge from every start.
        why: one line.
        radius: spectral radius of the covariance map S -> E[J S J']; the covariance converges iff it is below 1.
        mean: [d], nan without one.
        covariance: [d, d], nan without one.
        bias: |mean - x*|^2_Lbar / 2.
        variance: tr(Lbar covariance) / 2.
        how: "exact", or "Monte Carlo, N draws" for a sketch known by its samples only.
    """

    exists: bool
    why: str
    radius: Radius
    mean: Array
    covariance: Array
    bias: float
    variance: float
    how: str = EXACT

    @property
    def gap(self) -> float:
        """Stationary E f - f* = bias + variance."""
        return self.bias + self.variance


@overflowing
def stationary(problem: Quadratic, method: Method) -> Stationary:
    """Return the stationary mean and covariance of ``method``, or that none exists and why.

    The covariance solves S = E[J S J'] + Cov(round at the fixed point), J = keep I + H, by GMRES preconditioned with
    the same equation for E[J] (directly for few coordinates).

    Raises:
        InvalidInput: the moments of a round are known neither in closed form nor by enumeration.

    >>> from isthmus.lab import IST, Permutation
    >>> problem = Quadratic([[[2.0]], [[4.0]]], [[2.0], [4.0]])  # one coordinate, held by one of two workers
    >>> settled = stationary(problem, IST(Permutation(2, 1), 0.1))
    >>> settled.mean.round(12), abs(settled.gap) < 1e-12
    (array([1.]), True)
    """
    if isinstance(method, LinearMethod) and not isinstance(method, GradientDescent):
        return _lifted_stationary(problem, method)
    moments, how = estimated_moments(problem, method)
    radius = spectral_radius(moments, problem.dim)
    if not _is_stable(problem, method, moments, radius):
        return _none(problem, _no_law(problem, radius), radius, how)
    mean = fixed_point_of(moments)
    step = moments.mean_matrix @ mean + moments.mean_vector
    drift = moments.drift(mean)
    source = moments.sandwich(np.outer(mean, mean)) + drift + drift.T + moments.noise() - np.outer(step, step)
    covariance, left = _solve_covariance(moments, source)
    variance = max(0.5 * float(np.vdot(problem.mean_matrix, covariance)), 0.0)
    why = f"stationary: mean-square radius {radius:.6g}"
    if left > _POOR:
        why += f"; its equation is solved only to a relative residual of {left:.1g}"
    return Stationary(True, why, radius, mean, covariance, float(problem.gap(mean)), variance, how)


def _lifted_stationary(problem: Quadratic, method: LinearMethod) -> Stationary:
    """The same on the lifted state, S = E[J S J'] + Cov(round at the fixed point)."""
    lifted = known_round(problem, method)
    radius = positive_radius(lifted.transport, lifted.size)
    if not radius < 1.0 - radius.error:
        return _none(problem, _no_law(problem, radius), radius, EXACT)
    m = lifted.fixed_point
    S = lifted.stationary_covariance(m)
    mean, covariance = lifted.readout @ m, lifted.readout @ S @ lifted.readout.T
    variance = max(0.5 * float(np.vdot(problem.mean_matrix, covariance)), 0.0)
    why = f"stationary: mean-square radius {radius:.6g}"
    return Stationary(True, why, radius, mean, covariance, float(problem.gap(mean)), variance, EXACT)


def _is_stable(problem: Quadratic, method: Method, moments: RoundMoments, radius: Radius) -> bool:
    """Whether the radius is below 1; where rounding hides that, the closed form of the stable steps may still tell."""
    if abs(radius - 1.0) > radius.error:
        return radius < 1.0
    if not (isinstance(method, IST | GradientDescent) and is_definite(-moments.mean_matrix)):
        return False
    steps = stable_stepsizes(problem, method)
    return steps.how == "closed form" and method.stepsize < (1.0 - _ROUNDING) * steps.largest


def spectral_radius(moments: RoundMoments, dim: int) -> Radius:
    """Return the spectral radius of S -> E[J S J'] on symmetric matrices, with the accuracy reached.

    The iterates' covariance converges, whatever the start, iff it is below 1.
    """
    return positive_radius(lambda S: covariance_step(moments, S), dim)


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
        return _search_rates(problem, method)
    if method.local_steps == 1 and method.merge == "gradient":
        small, c = problem.in_unit_scale
        update = sketched_matrix_update(small, method.sketch)
        if update is not None:
            return StableSteps(((0.0, _largest_step(Moments(update), problem.dim) / c),), "closed form")
    return _search(problem, method)


def _largest_step(moments: Moments, dim: int) -> float:
    values, vectors = linalg.eigh(moments.mean_matrix)
    kept = values > dim * np.finfo(np.float64).eps * max(values[-1], 0.0)
    if not kept.any():
        return math.inf
    basis, sums = vectors[:, kept], values[kept][:, None] + values[kept]

    def forward(S: Array) -> Array:
        return np.asarray(basis.T @ moments.sandwich(basis @ S @ basis.T) @ basis / sums)

    return 1.0 / positive_radius(forward, int(kept.sum()))


def _search(problem: Quadratic, method: IST) -> StableSteps:
    scale = float(np.max(method.sketch.weights)) ** 2 / problem.workers if method.merge == "gradient" else 1.0
    top = 4.0 / (scale * float(np.max(np.linalg.eigvalsh(problem.L))))

    def excess(share: float) -> float:
        moments = known_moments(problem, replace(method, stepsize=share * top))
        if not np.isfinite(moments.mean_matrix).all():
            return math.inf
        return spectral_radius(moments, problem.dim) - 1.0

    grid = np.concatenate([np.geomspace(1e-6, 0.02, 12), np.linspace(0.03, 1.0, _GRID)])
    values = [excess(float(step)) for step in grid]
    while values[-1] < 0 and grid[-1] < 1e3:
        grid = np.append(grid, 1.5 * grid[-1])
        values.append(excess(float(grid[-1])))
    found = _intervals(excess, grid, values)
    return StableSteps(tuple((low * top, high * top) for low, high in found), "search")


def _search_rates(problem: Quadratic, method: Method) -> StableSteps:
    """Crossings of 1 by the asymptotic rate, for methods with a lifted state."""
    steepest = float(problem.spectrum[-1])
    if steepest <= 0.0:  # nothing moves
        return StableSteps(((0.0, math.inf),), "search")
    second_moment_map(method, problem)  # says what is wrong, before a step is put in
    search = RateSearch(problem)

    def excess(stepsize: float) -> float:
        return search.rate(replace(method, stepsize=stepsize / steepest)) - 1.0  # type: ignore[type-var]

    grid = _POWERS
    values = [excess(float(step)) for step in grid]
    while values[-1] < 0 and grid[-1] < _FAR:
        grid = np.append(grid, 2.0 * grid[-1])
        values.append(excess(float(grid[-1])))
    found = _intervals(excess, grid, values)
    return StableSteps(tuple((low / steepest, high / steepest) for low, high in found), "search")


def _intervals(excess: Callable[[float], float], grid: Array, values: list[float]) -> tuple[tuple[float, float], ...]:
    from scipy import optimize  # a fifth of the time that importing the lab takes, for a search that few ask for

    ends: list[float] = [0.0] if values[0] < 0 else []
    for low, high, before, after in zip(grid[:-1], grid[1:], values[:-1], values[1:], strict=True):
        if (before < 0) != (after < 0):
            if math.isfinite(before) and math.isfinite(after):
                ends.append(float(optimize.brentq(excess, low, high, xtol=1e-14, rtol=1e-12)))
            else:
                ends.append(_bisect(excess, float(low), float(high)))
    if len(ends) % 2:
        ends.append(math.inf)
    return tuple(zip(ends[::2], ends[1::2], strict=True))


def _bisect(excess: Callable[[float], float], low: float, high: float) -> float:
    """Find where the sign changes when one side is infinite."""
    negative_below = excess(low) < 0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if (excess(middle) < 0) == negative_below else (low, middle)
    return 0.5 * (low + high)


def _solve_covariance(moments: RoundMoments, source: Array) -> tuple[Array, float]:
    """The solution and its residual relative to ``source``."""
    unit = float(np.abs(source).max(initial=0.0)) or 1.0  # norms of very small and very large numbers overflow
    source = 0.5 * (source / unit + source.T / unit)  # a skew part is rounding, and no symmetric answer has it
    dim, size = len(source), float(np.linalg.norm(source))
    moved, vectors = linalg.eigh(moments.mean_matrix)
    k, sums = moments.keep, moved[:, None] + moved
    denominators = 1.0 - k * k - k * sums - moved[:, None] * moved  # 1 - (k + a)(k + b), with no digit lost at k = 1

    def residual(flat: Array) -> Array:
        S = flat.reshape(dim, dim)
        S = 0.5 * (S + S.T)
        return -covariance_step(moments, S, less=1.0).ravel()

    def precondition(flat: Array) -> Array:
        rotated = vectors.T @ flat.reshape(dim, dim) @ vectors / denominators
        return np.asarray(vectors @ rotated @ vectors.T).ravel()

    if dim <= _DENSE_UP_TO:
        matrix = _on_symmetric(lambda S: -covariance_step(moments, S, less=1.0), dim)
        S = np.zeros((dim, dim))
        S[np.triu_indices(dim)] = np.linalg.solve(matrix, source[np.triu_indices(dim)])
        S += np.triu(S, 1).T
        return unit * S, _share(source.ravel() - residual(S), size)
    shape = (dim * dim, dim * dim)
    operator = LinearOperator(shape, matvec=residual, dtype=np.float64)
    preconditioner = LinearOperator(shape, matvec=precondition, dtype=np.float64)
    S, left = np.zeros((dim, dim)), np.inf
    for _ in range(_REFINEMENTS):  # each solve starts from the last one's residual
        rest = source.ravel() - residual(S)
        left, before = _share(rest, size), left
        if left <= _SOLVED or left > 0.5 * before:
            break
        # no solve is asked for more than rounding leaves: it would go on for a thousand rounds
        change, _ = gmres(operator, rest, M=preconditioner, rtol=1e-8, atol=_SOLVED * size, restart=60, maxiter=20)
        S = S + 0.5 * (change.reshape(dim, dim) + change.reshape(dim, dim).T)
    return unit * S, _share(source.ravel() - residual(S), size)


def _share(rest: Array, size: float) -> float:
    return float(np.linalg.norm(rest)) / size if size > 0 else 0.0


def _on_symmetric(forward: Callable[[Array], Array], dim: int) -> Array:
    """The matrix of a map of symmetric matrices, in their upper entries, [d(d+1)/2, d(d+1)/2]."""
    upper = np.triu_indices(dim)
    columns = []
    for a, b in zip(*upper, strict=True):
        S = np.zeros((dim, dim))
        S[a, b] = S[b, a] = 1.0
        columns.append(forward(S)[upper])
    return np.stack(columns, axis=1)


def _no_law(problem: Quadratic, radius: float) -> str:
    flat = ": Lbar is singular, the limit depends on the start" if problem.singular else ""
    return f"no stationary law: mean-square radius {radius:.6g} is not below 1{flat}"


def _none(problem: Quadratic, why: str, radius: Radius, how: str) -> Stationary:
    d = problem.dim
    return Stationary(False, why, radius, np.full(d, np.nan), np.full((d, d), np.nan), np.nan, np.nan, how)
