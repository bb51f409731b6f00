"""Where a method settles: the stationary mean and covariance, if there are any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.sparse.linalg import LinearOperator, gmres

from isthmus.lab.arrays import Array, overflowing
from isthmus.lab.definite import is_definite
from isthmus.lab.methods import IST, GradientDescent, LinearMethod, Method
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.theory.dynamics import EXACT, RoundMoments, covariance_step
from isthmus.lab.theory.estimates import estimated_moments
from isthmus.lab.theory.fixed_points import fixed_point_of
from isthmus.lab.theory.lifted import known_round
from isthmus.lab.theory.rate import spectral_radius
from isthmus.lab.theory.spectrum import Radius, positive_radius
from isthmus.lab.theory.stable_steps import stable_stepsizes
from isthmus.lab.theory.symmetric import matrix_on_svec, smat, svec

_DENSE_UP_TO = 16
_SOLVED, _POOR = 1e-14, 1e-9  # relative residuals of the covariance: as good as rounding allows; to be told
_REFINEMENTS = 6
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


def _solve_covariance(moments: RoundMoments, source: Array) -> tuple[Array, float]:
    """The solution and its residual relative to ``source``."""
    unit = float(np.abs(source).max()) or 1.0  # norms of very small and very large numbers overflow
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
        matrix = matrix_on_svec(lambda S: -covariance_step(moments, S, less=1.0), dim)
        S = smat(np.asarray(np.linalg.solve(matrix, svec(source))))
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
    return float(np.linalg.norm(rest)) / (size or 1.0)


def _no_law(problem: Quadratic, radius: float) -> str:
    flat = ": Lbar is singular, the limit depends on the start" if problem.singular else ""
    return f"no stationary law: mean-square radius {radius:.6g} is not below 1{flat}"


def _none(problem: Quadratic, why: str, radius: Radius, how: str) -> Stationary:
    d = problem.dim
    return Stationary(False, why, radius, np.full(d, np.nan), np.full((d, d), np.nan), np.nan, np.nan, how)
