"""Less bias without anchors: fixed points of IST with several block sizes, extrapolated to no sketch at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from isthmus.errors import InvalidInput, check_integer
from isthmus.lab.arrays import Array
from isthmus.lab.methods import IST
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import RandomSparsification
from isthmus.lab.theory import fixed_point


def extrapolation_weights(places: Sequence[float]) -> Array:
    """Return the weights with which values at ``places`` give the value at 0 of the polynomial through them.

    Raises:
        InvalidInput: no places, or two that are equal.

    >>> extrapolation_weights([1.0, 2.0])
    array([ 2., -1.])
    """
    t = np.asarray(places, dtype=np.float64)
    if len(t) == 0 or len(set(t.tolist())) < len(t):
        raise InvalidInput(f"`places` must be different numbers, at least one, got {t.tolist()}")
    others = [np.delete(t, j) for j in range(len(t))]
    return np.array([np.prod(rest / (rest - tj)) for rest, tj in zip(others, t, strict=True)])


def extrapolated_fixed_point(problem: Quadratic, sizes: Sequence[int]) -> Array:
    """Return the combination, extrapolated to the whole model, of the fixed points of IST with these block sizes, [d].

    With unbiased sketches of q units the fixed point is [Lbar + t (d Dbar - Lbar)]^{-1} bbar, t = (d/q - 1)/(d - 1): an
    analytic function of t whose value at t = 0 is x*. Each size is a run of its own.

    Raises:
        InvalidInput: a size outside 1..d, or one given twice.
    """
    d = problem.dim
    for size in sizes:
        check_integer("sizes", size, at_least=1, at_most=d)
    weights = extrapolation_weights([d / size - 1.0 for size in sizes])  # of t they depend on ratios only
    points = [fixed_point(problem, IST(RandomSparsification(problem.workers, d, size), 1.0)) for size in sizes]
    return np.asarray(weights @ np.stack(points))
