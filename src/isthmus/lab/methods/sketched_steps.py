"""Local steps on sketched models from gradients alone, for problems that are not quadratic."""

from __future__ import annotations

import numpy as np

from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws
from isthmus.lab.problems import Problem, worker_gradients


def sketched_steps(
    problem: Problem, sketched: Array, x: Array, stepsize: float, steps: int, draws: Draws
) -> tuple[Array, Array]:
    """Return (sum_i z_i^0, sum_i (z_i^T - z_i^0)) of z^0 = C_i x, z^{t+1} = z^t - gamma C_i grad f_i(z^t).

    Args:
        problem: any problem, minibatches included.
        sketched: the diagonals of the C_i, [seeds, n, d].
        x: [seeds, d].
        stepsize: gamma.
        steps: T, finite.
        draws: of the round, for minibatches.
    """
    start = sketched * x[:, None]
    models = start
    for step in range(steps):
        models = models - stepsize * sketched * worker_gradients(problem, models, draws, step)
    return np.asarray(start.sum(axis=1)), np.asarray((models - start).sum(axis=1))
