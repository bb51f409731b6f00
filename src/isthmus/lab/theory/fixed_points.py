"""Where the mean of a method goes, and how far from the minimiser that is."""

from __future__ import annotations

import numpy as np

from isthmus.lab.arrays import Array
from isthmus.lab.definite import is_solvable, solve
from isthmus.lab.methods import LinearMethod, Method
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.theory.dynamics import known_moments, round_moments
from isthmus.lab.theory.lifted import known_round


def fixed_point(problem: Quadratic, method: Method) -> Array:
    """Return x_inf with E[x+ | x = x_inf] = x_inf, [d]: the limit of E x^k wherever that converges.

    For x+ = keep x + H x + h it solves ((1 - keep) I - E[H]) x = E[h]. For IST with the unbiased permutation sketch
    that is [Lbar + t (d Dbar - Lbar)]^{-1} bbar, t = (n-1)/(d-1). The solution of smallest norm where there are many;
    nan where there is none.

    Raises:
        InvalidInput: the mean of a round is known neither in closed form nor by enumeration.

    Reference:
        Shulgin, Richtarik (arXiv 2306.16484), eq. (28) for the scaled sketch.

    >>> from isthmus.lab import IST, Permutation
    >>> problem = Quadratic([[[2.0, 1.0], [1.0, 2.0]]] * 2, [[2.0, 4.0]] * 2)
    >>> fixed_point(problem, IST(Permutation(2, 2), 0.1))  # n = d: [n Dbar]^{-1} bbar
    array([0.5, 1. ])
    """
    moments = round_moments(problem, method)
    if moments is None and isinstance(method, LinearMethod):
        lifted = known_round(problem, method)
        return lifted.readout @ lifted.fixed_point
    moments = known_moments(problem, method)
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = -moments.mean_matrix
        matrix[np.diag_indices(problem.dim)] += 1.0 - moments.keep
    if not np.isfinite(matrix).all():  # the local steps diverge
        return np.full(problem.dim, np.nan)
    if not is_solvable(matrix, moments.mean_vector):
        return np.full(problem.dim, np.nan)
    return solve(matrix, moments.mean_vector)


def relative_gap(problem: Quadratic, x: Array, x0: Array) -> float:
    """Return (f(x) - f*) / (f(x0) - f*): the share of the initial gap that is left at x."""
    initial = float(problem.gap(x0))
    return float(problem.gap(x)) / initial if initial > 0 else np.nan
