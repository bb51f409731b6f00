"""Where the mean of a method goes, and how far from the minimiser that is."""

from __future__ import annotations

import numpy as np

from isthmus.lab.arrays import Array, overflowing
from isthmus.lab.definite import is_solvable, solve
from isthmus.lab.methods import GradientDescent, LinearMethod, Method
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.theory.dynamics import RoundMoments
from isthmus.lab.theory.estimates import estimated_moments
from isthmus.lab.theory.lifted import known_round


@overflowing
def fixed_point(problem: Quadratic, method: Method) -> Array:
    """Return x_inf with E[x+ | x = x_inf] = x_inf, [d]: the limit of E x^k wherever that converges.

    For x+ = keep x + H x + h it solves ((1 - keep) I - E[H]) x = E[h]. For IST with the unbiased permutation sketch
    that is [Lbar + t (d Dbar - Lbar)]^{-1} bbar, t = (n-1)/(d-1). The solution of smallest norm where there are many;
    nan where there is none. For a sketch known by its samples only a Monte Carlo estimate of 2000 draws.

    Raises:
        InvalidInput: the mean of a round is known neither in closed form nor by enumeration.

    Reference:
        Shulgin, Richtarik (arXiv 2306.16484), eq. (28) for the scaled sketch.

    >>> from isthmus.lab import IST, Permutation
    >>> problem = Quadratic([[[2.0, 1.0], [1.0, 2.0]]] * 2, [[2.0, 4.0]] * 2)
    >>> fixed_point(problem, IST(Permutation(2, 2), 0.1))  # n = d: [n Dbar]^{-1} bbar
    array([0.5, 1. ])
    """
    if isinstance(method, LinearMethod) and not isinstance(method, GradientDescent):
        lifted = known_round(problem, method)
        return np.asarray(lifted.readout @ lifted.fixed_point)
    return fixed_point_of(estimated_moments(problem, method)[0])


def fixed_point_of(moments: RoundMoments) -> Array:
    """Return the same from the moments of a round."""
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = -moments.mean_matrix
        matrix[np.diag_indices(len(matrix))] += 1.0 - moments.keep
    if not np.isfinite(matrix).all() or not is_solvable(matrix, moments.mean_vector):  # the local steps diverge, or f~
        return np.full(len(matrix), np.nan)
    return solve(matrix, moments.mean_vector)


@overflowing
def relative_gap(problem: Quadratic, x: Array, x0: Array) -> float:
    """Return (f(x) - f*) / (f(x0) - f*): the share of the initial gap that is left at x."""
    initial = float(problem.gap(x0))
    return float(problem.gap(x)) / initial if initial > 0 else np.nan
