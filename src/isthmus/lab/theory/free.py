"""What a cut loses at the minimiser, and when that is nothing."""

from __future__ import annotations

import numpy as np

from isthmus.lab.arrays import Array
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Sketch, as_sketch


def lost(problem: Quadratic, sketch: Sketch) -> Array:
    """Return E[(1/n) sum_i C_i grad f_i(C_i x*)], [d]: what drives IST away from the minimiser, per stepsize.

    It is 0 exactly where x* is the fixed point of IST with one local step: where the cut is free. For 0/1 masks P_i and
    workers with the same f it is -(1/n) sum_i E[P_i L (I - P_i)] x*: what the coordinates that a worker lacks would
    have told it. So a cut is free if L has no entries between coordinates of different workers; as in least squares
    with several outputs (:meth:`Quadratic.multi_output`), L = G x I, cut along the outputs. For a sketch known by
    samples only a Monte Carlo estimate.

    >>> from isthmus.lab import Grouped, Permutation
    >>> problem = Quadratic.multi_output([[1.0, 0.0], [1.0, 1.0]], [[1.0, 2.0], [3.0, 1.0]], workers=2)
    >>> cut = Permutation(2, 2, scale=1.0)  # which of two workers has which of two
    >>> lost(problem, Grouped(cut, [0, 1, 0, 1])).round(12) + 0.0  # outputs
    array([0., 0., 0., 0.])
    >>> lost(problem, Grouped(cut, [0, 0, 1, 1])).round(12) + 0.0  # inputs
    array([-0.5 ,  0.25, -0.25, -0.5 ])
    """
    chosen = as_sketch(sketch)
    drawn = np.asarray((chosen.mean * problem.b).mean(axis=0))
    seen = (chosen.second_moment(problem.L[worker], worker) for worker in range(problem.workers))
    return np.asarray(sum(seen) @ problem.minimizer / problem.workers - drawn)
