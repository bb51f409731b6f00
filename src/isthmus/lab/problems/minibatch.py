"""Stochastic gradients: every worker goes through a few of its samples, drawn afresh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from isthmus.errors import InvalidInput, check_integer
from isthmus.lab.arrays import Array
from isthmus.lab.problems.base import Draws, Problem
from isthmus.lab.problems.least_squares import LeastSquares
from isthmus.lab.problems.logistic import Logistic


@dataclass(frozen=True, eq=False)
class Minibatch:
    """A problem whose workers' gradients, where a method draws them, are means over ``batch_size`` samples.

    The samples are drawn uniformly with replacement: the gradients are unbiased. Gaps, and the full gradients that some
    methods ask for (MARINA's synchronisation, an anchor), stay exact.

    Args:
        problem: least squares or logistic regression.
        batch_size: b >= 1.

    Raises:
        InvalidInput: a problem without samples, or an empty batch.
    """

    problem: LeastSquares | Logistic
    batch_size: int

    def __post_init__(self) -> None:
        if not isinstance(self.problem, (LeastSquares, Logistic)):
            raise InvalidInput(f"`problem` must keep its samples for minibatches, got {type(self.problem).__name__}")
        check_integer("batch_size", self.batch_size, at_least=1)

    @property
    def workers(self) -> int:
        """Number of workers n."""
        return self.problem.workers

    @property
    def dim(self) -> int:
        """Number of coordinates d."""
        return self.problem.dim

    @property
    def rows(self) -> float:
        """Samples of one gradient."""
        return float(self.batch_size)

    @property
    def share(self) -> float:
        """What one gradient is of a full one."""
        return self.batch_size / self.problem.rows

    def gap(self, x: ArrayLike) -> Array:
        """Return f(x) - f*, exact."""
        return self.problem.gap(x)

    def gradient(self, x: ArrayLike) -> Array:
        """Return grad f, exact."""
        return self.problem.gradient(x)

    def worker_gradients(self, x: Array) -> Array:
        """Return grad f_i, exact."""
        return self.problem.worker_gradients(x)

    def sampled_gradients(self, x: Array, random: np.random.Generator) -> Array:
        """Return unbiased estimates of grad f_i, [seeds, n, d], at [seeds, d] or [seeds, n, d]."""
        samples = self.problem.samples
        points = np.broadcast_to(x[:, None], (len(x), self.workers, self.dim)) if x.ndim == 2 else x
        shape = (len(x), self.workers, self.batch_size)
        drawn = random.integers(0, samples.counts[None, :, None], size=shape)
        workers = np.arange(self.workers)[None, :, None]
        A, y = samples.features[workers, drawn], samples.targets[workers, drawn]
        slopes = self.problem.loss_slope(np.matmul(A, points[..., None])[..., 0], y)
        gradients = np.matmul(slopes[..., None, :], A)[..., 0, :] / self.batch_size
        return np.asarray(gradients + self.problem.regularizer_gradient(points))


def exact(problem: Problem) -> Problem:
    """Return the problem itself where ``problem`` draws minibatches of it."""
    return problem.problem if isinstance(problem, Minibatch) else problem


def worker_gradients(problem: Problem, x: Array, draws: Draws, step: int = 0) -> Array:
    """Return what the workers compute in one step: exact gradients, or minibatches drawn for this round and step."""
    if isinstance(problem, Minibatch):
        return problem.sampled_gradients(x, draws.generator("minibatch", step))
    return problem.worker_gradients(x)


def mean_gradient(problem: Problem, x: Array, draws: Draws) -> Array:
    """Return the mean of the workers' gradients, [seeds, d]."""
    if isinstance(problem, Minibatch):
        return np.asarray(worker_gradients(problem, x, draws).mean(axis=1))
    return problem.gradient(x)
