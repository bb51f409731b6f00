"""Monte Carlo moments for sketches known by their samples only, each with its standard error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import check_integer
from isthmus.lab.arrays import Array
from isthmus.lab.methods.ist import check_fits
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Sketch
from isthmus.randomness import generator


@dataclass(frozen=True, eq=False)
class MatrixEstimate:
    """Estimates of E[B] and E[B Lbar B] with entrywise standard errors, all [d, d]."""

    mean: Array
    mean_error: Array
    square: Array
    square_error: Array
    samples: int


def sampled_matrix_moments(problem: Quadratic, sketch: Sketch, samples: int = 2000, seed: int = 0) -> MatrixEstimate:
    """Estimate E[B] and E[B Lbar B], B = (1/n) sum_i C_i L_i C_i, from ``samples`` draws.

    Raises:
        InvalidInput: a sketch that does not fit the problem, or fewer than two samples.
    """
    check_integer("samples", samples, at_least=2)
    check_fits(problem, sketch)
    random = generator(seed, "sketch/matrix_moments")
    sums = np.zeros((4, problem.dim, problem.dim))
    for _ in range(samples):
        c = sketch.sample(random)
        B = np.einsum("na,nab,nb->ab", c, problem.L, c) / problem.workers
        S = B @ problem.mean_matrix @ B
        sums += np.stack([B, B * B, S, S * S])
    sums /= samples
    errors = [np.sqrt(np.maximum(sums[k + 1] - sums[k] ** 2, 0.0) / (samples - 1)) for k in (0, 2)]
    return MatrixEstimate(sums[0], errors[0], sums[2], errors[1], samples)
