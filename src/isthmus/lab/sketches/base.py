"""The interface of a sketch: the joint random law of the diagonal matrices C_1, ..., C_n."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from isthmus.errors import InvalidInput, check_integer
from isthmus.lab.arrays import Array, check_array
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.sketches.law import Blocks, Masks, Support
from isthmus.randomness import generator

MONTE_CARLO_SAMPLES = 10_000


class Sketch(ABC):
    """Joint law of n random diagonal d x d matrices.

    A sketch of one's own needs ``workers``, ``dim`` and :meth:`sample` only: its moments are then Monte Carlo
    estimates with standard errors, and the exact dynamics fall back to simulation. Giving :meth:`support` makes all of
    it exact by enumeration; giving :attr:`masks` and :attr:`weights` makes it exact in closed form.
    """

    workers: int
    dim: int

    def __repr__(self) -> str:
        return f"{type(self).__name__}(workers={self.workers}, dim={self.dim})"

    @abstractmethod
    def sample(self, random: np.random.Generator) -> Array:
        """Draw all workers' diagonals at once, [n, d]."""

    @property
    def masks(self) -> Masks | None:
        """The law of the masks where C_i = Diag(weights_i * mask_i); None where it is not known."""
        return None

    @property
    def weights(self) -> Array | float:
        """Values of the diagonals where the masks are one: a number, [d] or [n, d]."""
        return 1.0

    def support(self, limit: int = 100_000) -> Support:
        """Return all outcomes with their probabilities.

        Raises:
            InvalidInput: more than ``limit`` outcomes, or a law that cannot be enumerated.
        """
        raise InvalidInput(f"`support` is not available: {type(self).__name__} does not enumerate its outcomes")

    def sample_many(self, random: np.random.Generator, count: int) -> Array:
        """Draw ``count`` outcomes, [count, n, d]; the first ones do not depend on ``count``."""
        return np.stack([check_array("sample", self.sample(random), self.workers, self.dim) for _ in range(count)])

    def sample_blocks(self, random: np.random.Generator, count: int) -> Blocks:
        """Draw ``count`` outcomes in the form methods work with; the first ones do not depend on ``count``."""
        return Blocks(None, self.sample_many(random, count))

    def worker_weights(self, worker: int) -> Array | float:
        """Return ``weights`` of one worker: a number or [d]."""
        return self.weights[worker] if np.ndim(self.weights) == 2 else self.weights  # type: ignore[index]

    def enumerated(self) -> Support | None:
        """Return :meth:`support`, or None where it is not available."""
        try:
            return self.support()
        except InvalidInput:
            return None

    @property
    def mean(self) -> Array:
        """E[C_i] as diagonals [n, d]; a Monte Carlo estimate where neither ``masks`` nor ``support`` is known."""
        if self.masks is None:
            support = self.enumerated()
            if support is not None:
                return np.einsum("p,pna->na", support.probabilities, support.diagonals)
            return self.sample_many(generator(0, "sketch/mean"), MONTE_CARLO_SAMPLES).mean(axis=0)
        rows = [np.broadcast_to(self.worker_weights(i) * self.masks.held(i), (self.dim,)) for i in range(self.workers)]
        return np.stack(rows)

    @property
    def unbiased(self) -> bool:
        """Whether E[C_i] = I for every worker, to 1e-12 (four standard errors where it is estimated)."""
        tolerance = 1e-12
        if self.masks is None and self.enumerated() is None:
            draws = self.sample_many(generator(0, "sketch/mean"), MONTE_CARLO_SAMPLES)
            tolerance += 4 * float(draws.std(axis=0).max()) / np.sqrt(len(draws))
        return bool(np.abs(self.mean - 1.0).max() <= tolerance)

    def second_moment(self, matrix: Array, worker: int = 0) -> Array:
        """Return E[C_i M C_i] for one worker's sketch, [d, d]; exact where ``masks`` or ``support`` is known."""
        M = check_array("matrix", matrix, self.dim, self.dim)
        if self.masks is None:
            support = self.enumerated()
            if support is not None:
                c = support.diagonals[:, worker]
                return np.asarray(M * ((support.probabilities * c.T) @ c))
            return self.second_moment_estimate(M, worker)[0]
        w = self.worker_weights(worker)
        weighted = M * w**2 if np.ndim(w) == 0 else np.asarray(w)[:, None] * M * w
        return self.masks.second_moment(weighted, worker)

    def multipliers(self) -> Multipliers | None:
        """Return the joint moments of all workers' diagonals; None where neither ``masks`` nor ``support`` is known."""
        n, d = self.workers, self.dim
        if self.masks is None:
            support = self.enumerated()
            if support is None:
                return None
            c = support.diagonals.reshape(-1, n * d)
            return Multipliers(self.mean, ((support.probabilities * c.T) @ c).reshape(n, d, n, d))
        mean, weights = self.mean, np.broadcast_to(self.weights, (n, d))
        if self.masks.between is None:
            second = np.einsum("ia,jb->iajb", mean, mean)
        else:
            across = np.where(np.eye(d) > 0, self.masks.shared, self.masks.between[0])
            second = np.einsum("ia,ab,jb->iajb", weights, across, weights)
        for worker in range(n):
            second[worker, :, worker, :] = self.second_moment(np.ones((d, d)), worker)
        return Multipliers(mean, second)

    def second_moment_estimate(
        self, matrix: Array, worker: int = 0, samples: int = MONTE_CARLO_SAMPLES, seed: int = 0
    ) -> tuple[Array, Array]:
        """Return a Monte Carlo estimate of E[C_i M C_i] and its standard error, both [d, d]."""
        check_integer("samples", samples, at_least=2)
        M = check_array("matrix", matrix, self.dim, self.dim)
        c = self.sample_many(generator(seed, "sketch/second_moment"), samples)[:, worker]
        first = c.T @ c / samples
        second = (c**2).T @ (c**2) / samples
        error = np.sqrt(np.maximum(second - first**2, 0.0) / (samples - 1))
        return M * first, np.abs(M) * error


class SampledSketch(Sketch):
    """A sketch known by its sampler only: any object whose ``sample(generator)`` gives diagonals [n, d]."""

    def __init__(self, source: Any) -> None:
        self.source = source
        first = check_array("sample", source.sample(generator(0, "sketch/shape")), "n", "d")
        self.workers, self.dim = first.shape

    def sample(self, random: np.random.Generator) -> Array:
        """Draw all workers' diagonals at once, [n, d]."""
        return np.asarray(self.source.sample(random), dtype=np.float64)


def as_sketch(value: Any) -> Sketch:
    """Return ``value`` if it is a :class:`Sketch`, otherwise wrap an object that has a method ``sample``.

    Raises:
        InvalidInput: it has none.
    """
    if isinstance(value, Sketch):
        return value
    if callable(getattr(value, "sample", None)):
        return SampledSketch(value)
    raise InvalidInput(f"`sketch` must be a Sketch or have a method `sample(generator)`, got {type(value).__name__}")
