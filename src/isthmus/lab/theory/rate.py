"""How fast a method forgets its start: the exact asymptotic rate, and the step for which it is best.

The second moments of (the lifted state of) a linear method obey S+ = E[J S J'] + noise. The radius of S -> E[J S J'] is
the factor by which E|z - z'|^2 of two runs with the same draws shrinks a round: the rate of E f - f* where the method
ends at the minimiser, else of the distance to its stationary law.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Any

import numpy as np
from scipy.sparse.linalg import ArpackError, LinearOperator, eigs

from isthmus.errors import check_number
from isthmus.lab.arrays import Array, overflowing
from isthmus.lab.methods import IST, LinearMethod
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.theory.dynamics import RoundMoments, covariance_step, known_moments
from isthmus.lab.theory.lifted import known_round, moving_round
from isthmus.lab.theory.spectrum import Radius, matrix_radius, positive_radius

_DENSE_UP_TO = 7  # dimension up to which all eigenvalues are found as fast as one
_DOUBLINGS = 60
_STILL = 1e-9
_NEAR, _WINDOW = 1e-6, 3e-6
_COARSE = 0.01  # of the logarithm of a step, while the other parameter is far from its best
_NEAREST = 0.02  # of an end of the other parameter's range, where the walk starts


@dataclass(frozen=True)
class SecondMomentMap:
    """S -> E[J S J'] over some rounds.

    Attributes:
        apply: the map of symmetric matrices.
        dim: their size N.
        rounds: how many rounds it is.
        J: where it is no random matrix, [N, N].
    """

    apply: Callable[[Array], Array]
    dim: int
    rounds: int = 1
    J: Array | None = None

    @property
    def whole_radius(self) -> Radius:
        """The factor over these rounds."""
        return positive_radius(self.apply, self.dim) if self.J is None else matrix_radius(self.J).squared

    @property
    def radius(self) -> Radius:
        """The factor per round."""
        return self.whole_radius.root(self.rounds)


@singledispatch
def second_moment_map(method: Any, problem: Quadratic) -> SecondMomentMap:
    """Return the map of second moments that decides the rate; other rooms register their methods.

    Raises:
        InvalidInput: the moments of a round are not known.
    """
    known_round(problem, method)  # says what is wrong
    raise NotImplementedError


@second_moment_map.register
def _(method: LinearMethod, problem: Quadratic) -> SecondMomentMap:
    found = moving_round(problem, method)
    return SecondMomentMap(found.transport, found.size, J=found.mean_matrix if found.certain else None)


@second_moment_map.register
def _(method: IST, problem: Quadratic) -> SecondMomentMap:
    moments = known_moments(problem, method)
    return SecondMomentMap(lambda S: covariance_step(moments, S), problem.dim)


@overflowing
def asymptotic_rate(problem: Quadratic, method: Any) -> Radius:
    """Return the factor by which E f - f* shrinks a round in the long run, exact; at least 1 where it does not.

    It is the spectral radius of S -> E[J S J'], S the second moments of the method's whole state: its slowest part,
    which a start that has none of it (workers all alike, and no noise) does not see. A method that does not end at the
    minimiser (compressed gradients that disagree there, compressed models, IST) approaches its stationary law at this
    rate; the gap that is left then is :func:`stationary`'s.

    Raises:
        InvalidInput: a method whose moments do not close: Top-K, natural compression, dithering.

    >>> from isthmus.lab import GradientDescent
    >>> asymptotic_rate(Quadratic([[[4.0, 0.0], [0.0, 1.0]]], [[0.0, 0.0]]), GradientDescent(0.25))
    0.5625
    """
    return second_moment_map(method, problem).radius


def spectral_radius(moments: RoundMoments, dim: int) -> Radius:
    """Return the spectral radius of S -> E[J S J'] on symmetric matrices, with the accuracy reached.

    The iterates' covariance converges, whatever the start, iff it is below 1.
    """
    return positive_radius(lambda S: covariance_step(moments, S), dim)


@dataclass(frozen=True)
class BestStep:
    """The step, and the other parameter where there is one, of the best asymptotic rate.

    Attributes:
        method: the method with them.
        rate: its asymptotic rate; at least 1 where no step converges.
        others: the other parameters that were chosen, by name.
    """

    method: Any
    rate: Radius
    others: dict[str, float]

    @property
    def stepsize(self) -> float:
        """gamma."""
        return float(self.method.stepsize)


@overflowing
def best_stepsize(
    problem: Quadratic, method: Any, accuracy: float = 1e-9, step_only: bool = False
) -> BestStep:
    """Return ``method`` with the step that minimises its exact asymptotic rate; and the momentum, or the shift rate.

    The method's own step plays no part. From 1/lambda_max(Lbar) the step is doubled or halved as long as that helps,
    and refined by Brent's method on its logarithm; the other parameter of ``method.tunable``, if any, is chosen around
    that in the same way, from the value the method has. So no step near the one found betters it; that none at all does
    was checked on grids, not proved.

    Args:
        problem: the quadratic.
        method: any whose moments close; all its other fields stay.
        accuracy: relative, of the step and of the other parameter's odds.
        step_only: leave the other parameter as it is.

    Raises:
        InvalidInput: a method whose moments do not close, or an accuracy outside (0, 1).

    >>> from isthmus.lab import GradientDescent
    >>> found = best_stepsize(Quadratic([[[4.0, 0.0], [0.0, 1.0]]], [[0.0, 0.0]]), GradientDescent(1.0))
    >>> round(found.stepsize, 6), round(found.rate, 6)  # 2/(L + mu), ((L - mu)/(L + mu))^2
    (0.4, 0.36)
    """
    check_number("accuracy", accuracy, above=0.0, below=1.0)
    second_moment_map(method, problem)  # says what is wrong, before a step is put in
    search = RateSearch(problem, accuracy)
    name = None if step_only else getattr(method, "tunable", None)
    if name is None:
        best = search.over_steps(method, accuracy)
        return BestStep(best, asymptotic_rate(problem, best), {})

    def within(logit: float) -> float:
        return 1.0 / (1.0 + math.exp(-logit))

    def least(logit: float, fine: float = accuracy) -> float:
        return search.rate(search.over_steps(replace(method, **{name: within(logit)}), fine))

    first = min(max(getattr(method, name), _NEAREST), 1.0 - _NEAREST)
    middle = math.log(first / (1.0 - first))
    left, right = _bracket(lambda away: least(middle + away, max(accuracy, _COARSE)), 1.0)
    chosen = within(_refined(least, middle + left, middle + right, accuracy))
    best = search.over_steps(replace(method, **{name: chosen}), accuracy)
    return BestStep(best, asymptotic_rate(problem, best), {name: chosen})


def _refined(function: Callable[[float], float], low: float, high: float, accuracy: float) -> float:
    """A minimum between the ends. Brent's method stops at eight digits of x: the last are those of a distance."""
    from scipy.optimize import minimize_scalar  # slow to import, for a search that few ask for

    def least(middle: float, reach: tuple[float, float], within: float) -> float:
        options = {"xatol": within}
        found = minimize_scalar(lambda x: function(middle + x), bounds=reach, method="bounded", options=options)
        return middle + float(found.x)

    near = least(0.0, (low, high), max(accuracy, _NEAR))
    return near if accuracy >= _NEAR else least(near, (max(low - near, -_WINDOW), min(high - near, _WINDOW)), accuracy)


class RateSearch:
    """Rates of one method for many parameters; each eigenmatrix is a start for the next, which differs little."""

    def __init__(self, problem: Quadratic, accuracy: float = 1e-9) -> None:
        self.tolerance = min(max(1e-6 * accuracy, 1e-12), 1e-9)  # what counts is the distance of a rate to 1
        steepest = float(problem.spectrum[-1])
        self.problem, self.step = problem, 1.0 / steepest if steepest > 0 else 1.0
        self.reach = 1.0  # where the next step may lie, in powers of two: twice as far as the last one did
        self.eigenmatrix: Array | None = None

    def rate(self, method: Any) -> float:
        """The asymptotic rate; infinite where a map overflows."""
        found = second_moment_map(method, self.problem)
        value = self._radius(found)
        return value ** (1.0 / found.rounds) if math.isfinite(value) else math.inf

    def over_steps(self, method: Any, accuracy: float) -> Any:
        """The method with its best step."""

        def rate(power: float) -> float:
            return self.rate(replace(method, stepsize=self.step * 2.0**power))

        low, high = _bracket(rate, self.reach)
        power = _refined(rate, low, high, accuracy / math.log(2.0))
        step = self.step * 2.0**power
        if rate(power) < 1.0 - _STILL:  # where no step converges the walk ends anywhere: no start for the next one
            self.step, self.reach = step, min(max(2.0 * abs(power), 10.0 * accuracy), 1.0)
        return replace(method, stepsize=step)

    def _radius(self, found: SecondMomentMap) -> float:
        size = found.dim
        if found.J is None and size > _DENSE_UP_TO:
            start = np.eye(size)
            if self.eigenmatrix is not None and len(self.eigenmatrix) == size:
                start = start + self.eigenmatrix  # alone it may be an eigenmatrix of a smaller eigenvalue, and stay one

            def apply(flat: Array) -> Array:
                S = flat.reshape(size, size)
                return np.asarray(found.apply(0.5 * (S + S.T))).ravel()

            if not np.isfinite(apply(start.ravel())).all():
                return math.inf
            operator = LinearOperator((size * size, size * size), matvec=apply, dtype=np.float64)
            try:
                values, vectors = eigs(operator, k=1, which="LR", v0=start.ravel(), tol=self.tolerance, maxiter=30)
            except ArpackError:
                return float(found.whole_radius)
            S = vectors[:, 0].real.reshape(size, size)
            self.eigenmatrix = S * (size / np.trace(S)) if np.trace(S) else None
            return float(np.abs(values[0]))
        return float(found.whole_radius)


def _bracket(rate: Callable[[float], float], reach: float) -> tuple[float, float]:
    """Two places around a minimum, found by walking downhill from 0 in strides that grow to 1."""
    middle = rate(0.0)
    stride = reach if rate(reach) < middle else -reach
    before, at = -stride, 0.0
    for _ in range(_DOUBLINGS):
        following = rate(at + stride)
        if not following < middle and math.isfinite(middle):
            break
        before, at, middle = at, at + stride, following
        stride = math.copysign(min(2.0 * abs(stride), 1.0), stride)
    return min(before, at + stride), max(before, at + stride)
