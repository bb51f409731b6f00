"""Monte Carlo moments for sketches known by their samples only: of matrices, and of a round."""

from __future__ import annotations

import numpy as np

from isthmus.lab.arrays import Array
from isthmus.lab.methods import IST, Method
from isthmus.lab.methods.ist import check_fits
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Sketch, Support
from isthmus.lab.theory.dynamics import EXACT, RoundMoments, known_moments
from isthmus.lab.theory.enumeration import MOST_NUMBERS, outcomes_of
from isthmus.randomness import generator

SAMPLES = 2000


def sampled_matrix_moments(problem: Quadratic, sketch: Sketch) -> tuple[Array, Array]:
    """Estimate E[B] and E[B Lbar B], B = (1/n) sum_i C_i L_i C_i, from 2000 draws, [d, d] each.

    Raises:
        InvalidInput: a sketch that does not fit the problem.
    """
    check_fits(problem, sketch)
    random = generator(0, "sketch/matrix_moments")
    sums = np.zeros((2, problem.dim, problem.dim))
    for _ in range(SAMPLES):
        c = sketch.sample(random)
        B = np.einsum("na,nab,nb->ab", c, problem.L, c) / problem.workers
        sums += np.stack([B, B @ problem.mean_matrix @ B])
    return sums[0] / SAMPLES, sums[1] / SAMPLES


def estimated_moments(problem: Quadratic, method: Method) -> tuple[RoundMoments, str]:
    """Return the moments of one round and how: "exact", or from draws where a sketch only samples.

    Those of N draws are the exact ones of a sketch whose outcomes are these, each by chance 1/N.

    Raises:
        InvalidInput: the sketch is known better than by samples, but neither in closed form nor by few outcomes.
    """
    if not isinstance(method, IST) or method.sketch.masks is not None or method.sketch.enumerated() is not None:
        return known_moments(problem, method), EXACT
    check_fits(problem, method.sketch)
    count = max(2, min(SAMPLES, MOST_NUMBERS // problem.dim**2))
    diagonals = method.sketch.sample_many(generator(0, "sketch/round_moments"), count)
    drawn = Support(np.full(count, 1.0 / count), diagonals)
    return outcomes_of(problem, method, drawn), f"Monte Carlo, {count} draws"
