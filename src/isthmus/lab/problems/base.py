"""What a method needs of a problem, and what a gradient of it costs."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike

from isthmus.lab.arrays import Array


class Problem(Protocol):
    """n differentiable functions f_i on R^d, one a worker, and their mean f."""

    @property
    def workers(self) -> int:
        """Number of workers n."""

    @property
    def dim(self) -> int:
        """Number of coordinates d."""

    def gap(self, x: ArrayLike) -> Array:
        """Return f(x) - f* at [..., d]."""

    def gradient(self, x: ArrayLike) -> Array:
        """Return grad f at [..., d]."""

    def worker_gradients(self, x: Array) -> Array:
        """Return grad f_i(x_i), [seeds, n, d], at one point a seed [seeds, d] or one a worker [seeds, n, d]."""


class Draws(Protocol):
    """The randomness of one round."""

    def generator(self, purpose: str, worker: int = 0) -> np.random.Generator:
        """Return this round's generator for ``purpose``."""


def gradient_work(problem: Problem, seen: float | None = None, wanted: float | None = None) -> float:
    """Return the floating-point operations of ``wanted`` coordinates of grad f_i on ``seen`` coordinates of x.

    Both are d by default. From matrices 2 ``seen`` ``wanted``; from m samples 2 m (``seen`` + ``wanted``), a forward
    and a backward pass; the smaller where both are at hand.
    """
    seen = problem.dim if seen is None else seen
    wanted = problem.dim if wanted is None else wanted
    by_matrix = 2.0 * seen * wanted
    rows = rows_per_gradient(problem)
    if rows is None:
        return by_matrix
    by_samples = 2.0 * rows * (seen + wanted)
    return min(by_matrix, by_samples) if hasattr(problem, "L") else by_samples


def rows_per_gradient(problem: Problem) -> float | None:
    """Return the samples a worker goes through for one gradient, on average; None where there are only matrices."""
    rows = getattr(problem, "rows", None)
    return None if rows is None else float(rows)


def gradient_share(problem: Problem) -> float:
    """Return what one gradient is of a full one: less than 1 for minibatches."""
    return float(getattr(problem, "share", 1.0))
