"""The path that needs diagonals only: quadratics whose L_i are diagonal, up to millions of coordinates.

Under any permutation sketch a coordinate is held by one worker, uniformly drawn, so each coordinate is a scalar affine
recursion with n equally likely outcomes. The course costs O(d) a round after one O(n d) pass; no d x d array exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from isthmus import frames
from isthmus.errors import InvalidInput, check_integer
from isthmus.lab.arrays import Array, check_array
from isthmus.lab.methods import IST
from isthmus.lab.methods.local_steps import local_gains
from isthmus.lab.sketches import Permutation

if TYPE_CHECKING:
    from pandas import DataFrame


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

    def to_frame(self) -> DataFrame:
        """Return gap, bias and variance, a row a round, as a pandas table."""
        return frames.by_round({"gap": self.gap, "bias": self.bias, "variance": self.variance})


def coordinate_dynamics(
    curvatures: ArrayLike, linear: ArrayLike, method: IST, x0: ArrayLike, rounds: int
) -> CoordinateCourse:
    """Return the exact course of IST with a permutation sketch, n <= d, for L_i = Diag(l_i).

    Any block size, scale, number of local steps and either merge.

    Args:
        curvatures: l, [n, d], or [d] where all workers share it; at least 0.
        linear: b, [n, d] or [d].
        method: IST with a :class:`Permutation` sketch.
        x0: [d].
        rounds: K.

    Raises:
        InvalidInput: another sketch, n > d, shapes that do not match, or a negative curvature.

    >>> from isthmus.lab import IST, Permutation
    >>> coordinate_dynamics([1.0, 1.0], [1.0, 1.0], IST(Permutation(2, 2), 0.5), x0=[0.0, 0.0], rounds=1).gap
    array([1.  , 0.25])
    """
    sketch = method.sketch
    if not isinstance(sketch, Permutation) or sketch.workers > sketch.dim:
        raise InvalidInput("`method.sketch` must be a Permutation with at most as many workers as coordinates")
    n, d, s = sketch.workers, sketch.dim, float(sketch.weights)
    l, b = _per_worker("curvatures", curvatures, n, d), _per_worker("linear", linear, n, d)
    if l.min() < 0:
        raise InvalidInput(f"`curvatures` must be at least 0, got {l.min():g}")
    keep = 1.0 if method.merge == "gradient" else 0.0
    decay, gain = local_gains(s * l, method.stepsize, method.local_steps)
    factor = keep + s * (decay - keep) / n
    offset = gain * s * b / n
    start = check_array("x0", x0, d)
    return _course(l.mean(axis=0), b.mean(axis=0), factor, offset, start, check_integer("rounds", rounds, at_least=0))


def _per_worker(name: str, value: ArrayLike, workers: int, dim: int) -> Array:
    """[n, d] as given, [d] as one row for all."""
    array = np.asarray(value, dtype=np.float64)
    return check_array(name, array[None], 1, dim) if array.ndim == 1 else check_array(name, array, workers, dim)


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
            v = np.maximum(square * v + (var_factor * m + 2 * cross) * m + var_offset, 0.0)
            m = mean_factor * m + mean_offset
    limit = np.divide(mean_offset, 1.0 - mean_factor, out=np.full_like(m, np.nan), where=mean_factor != 1.0)
    return CoordinateCourse(bias, variance, m, v, limit)
