"""The path that needs diagonals only: quadratics whose L_i are diagonal, up to millions of coordinates.

Under any permutation sketch a coordinate is held by one worker, uniformly drawn, so each coordinate is a scalar affine
recursion with n equally likely outcomes. The course costs O(d) a round after one O(n d) pass; no d x d array exists.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from isthmus.errors import InvalidInput, check_choice, check_integer, check_number
from isthmus.lab.arrays import Array, check_array
from isthmus.lab.methods.ist import MERGES
from isthmus.lab.methods.local_steps import local_gains


@dataclass(frozen=True, eq=False)
class CoordinateCourse:
    """The course of IST on a diagonal quadratic.

    Attributes:
        gap: [K+1], exact E f(x^k) - f*.
        bias: [K+1].
        variance: [K+1].
        mean: [d], E x^K.
        spread: [d], Var x^K per coordinate.
        fixed_point: [d], limit of the mean.
    """

    bias: Array
    variance: Array
    mean: Array
    spread: Array
    fixed_point: Array

    @property
    def gap(self) -> Array:
        """Bias + variance, [K+1]."""
        return self.bias + self.variance


def coordinate_dynamics(
    curvatures: ArrayLike, linear: ArrayLike, workers: int, stepsize: float, x0: ArrayLike, rounds: int,
    *, scale: float | None = None, local_steps: float = 1, merge: str = "gradient",
) -> CoordinateCourse:  # fmt: skip
    """Return the exact course of IST with a permutation sketch (any block size, n <= d) for L_i = Diag(l_i).

    Args:
        curvatures: l, [n, d], or [d] where all workers share it; at least 0.
        linear: b, [n, d] or [d].
        workers: n <= d.
        stepsize: gamma.
        x0: [d].
        rounds: K.
        scale: s; None for n.
        local_steps: T.
        merge: "gradient" or "model".

    Raises:
        InvalidInput: shapes that do not match, a negative curvature, or n > d.

    >>> coordinate_dynamics([1.0, 1.0], [1.0, 1.0], workers=2, stepsize=0.5, x0=[0.0, 0.0], rounds=1).gap
    array([1.  , 0.25])
    """
    check_integer("workers", workers, at_least=1)
    start = check_array("x0", x0, "d")
    rows = [np.asarray(value, dtype=np.float64) for value in (curvatures, linear)]
    rows = [value[None] if value.ndim == 1 else value for value in rows]
    l, b = (check_array(name, v, len(v), start.size) for name, v in zip(("curvatures", "linear"), rows, strict=True))
    if workers > start.size or any(len(value) not in (1, workers) for value in (l, b)):
        raise InvalidInput(f"`curvatures` and `linear` must be [{workers}, d] or [d] with d >= {workers}")
    if l.min() < 0:
        raise InvalidInput(f"`curvatures` must be at least 0, got {l.min():g}")
    s = float(workers) if scale is None else check_number("scale", scale, above=0.0)
    check_number("stepsize", stepsize, above=0.0)
    keep = 1.0 if check_choice("merge", merge, MERGES) == "gradient" else 0.0
    decay, gain = local_gains(s * l, stepsize, local_steps)
    factor = keep + s * (decay - keep) / workers
    offset = gain * s * b / workers
    return _course(l.mean(axis=0), b.mean(axis=0), factor, offset, start, check_integer("rounds", rounds, at_least=0))


def _course(lbar: Array, bbar: Array, factor: Array, offset: Array, x0: Array, rounds: int) -> CoordinateCourse:
    """Scalar recursions x+ = factor_i x + offset_i, i uniform: mean and variance of every coordinate."""
    mean_factor, mean_offset = factor.mean(axis=0), offset.mean(axis=0)
    square = (factor * factor).mean(axis=0)
    # variance of a round at x: quadratic in the mean, with these three worker-covariances
    var_factor = square - mean_factor**2
    cross = (factor * offset).mean(axis=0) - mean_factor * mean_offset
    var_offset = (offset * offset).mean(axis=0) - mean_offset**2
    x_star = np.divide(bbar, lbar, out=np.zeros_like(bbar), where=lbar > 0)
    m, v = x0.copy(), np.zeros_like(x0)
    bias, variance = np.empty(rounds + 1), np.empty(rounds + 1)
    for k in range(rounds + 1):
        bias[k], variance[k] = 0.5 * np.vdot(lbar, (m - x_star) ** 2), 0.5 * np.vdot(lbar, v)
        if k < rounds:
            v = square * v + (var_factor * m + 2 * cross) * m + var_offset
            m = mean_factor * m + mean_offset
    limit = np.divide(mean_offset, 1.0 - mean_factor, out=np.full_like(m, np.nan), where=mean_factor != 1.0)
    return CoordinateCourse(bias, variance, m, v, limit)
