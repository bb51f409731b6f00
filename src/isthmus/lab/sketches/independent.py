"""Sketches that the workers draw independently of each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, perm

import numpy as np
from numpy.typing import ArrayLike

from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.lab.arrays import Array, check_array
from isthmus.lab.sketches.base import Sketch
from isthmus.lab.sketches.law import Blocks, Masks, Support


@dataclass(frozen=True)
class RandomSparsification(Sketch):
    """Rand-q: every worker holds q coordinates drawn without replacement, C_i = (d/q) P_i.

    E[C_i M C_i] = (d/q) Diag(M) + ((q-1)/(d-1)) (d/q) off(M);  unbiased, variance factor d/q - 1.

    Args:
        workers: n.
        dim: d.
        size: q, 1..d.
        scale: value where the mask is one; None for the unbiased d/q.

    Raises:
        InvalidInput: a value breaks its rule.

    >>> RandomSparsification(workers=3, dim=4, size=2).second_moment(np.ones((4, 4)))[0].round(3)
    array([2.   , 0.667, 0.667, 0.667])
    """

    workers: int
    dim: int
    size: int
    scale: float | None = None

    def __post_init__(self) -> None:
        check_integer("workers", self.workers, at_least=1)
        check_integer("dim", self.dim, at_least=1)
        check_integer("size", self.size, at_least=1, at_most=self.dim)
        scale = self.dim / self.size if self.scale is None else check_number("scale", self.scale, above=0.0)
        object.__setattr__(self, "scale", scale)

    @property
    def weights(self) -> Array | float:
        """d/q, or the given scale."""
        assert self.scale is not None
        return self.scale

    @property
    def masks(self) -> Masks:
        """q^(m)/d^(m), falling powers; workers independent."""
        q, d = self.size, self.dim
        if q == d:
            return Masks((1.0, 1.0, 1.0, 1.0), None)
        p = [perm(q, m) / perm(d, m) if m <= d else 0.0 for m in (1, 2, 3, 4)]
        return Masks((p[0], p[1], p[2], p[3]), None)

    def sample(self, random: np.random.Generator) -> Array:
        """Draw all workers' diagonals at once, [n, d]."""
        return self.sample_many(random, 1)[0]

    def sample_many(self, random: np.random.Generator, count: int) -> Array:
        """Draw ``count`` outcomes, [count, n, d]."""
        blocks = self.sample_blocks(random, count)
        dense = np.zeros((count, self.workers, self.dim))
        np.put_along_axis(dense, blocks.members, blocks.values, axis=2)  # type: ignore[arg-type]
        return dense

    def sample_blocks(self, random: np.random.Generator, count: int) -> Blocks:
        """Draw ``count`` outcomes as [count, n, q] units and values."""
        keys = random.random((count, self.workers, self.dim))
        members = np.argsort(keys, axis=2)[:, :, : self.size]
        return Blocks(members, np.broadcast_to(np.float64(self.weights), members.shape))

    def support(self, limit: int = 100_000) -> Support:
        """Return all choices of all workers, equally likely."""
        own = comb(self.dim, self.size)
        _check_count(self, own, limit)
        rows = np.zeros((own, self.dim))
        for row, chosen in zip(rows, itertools.combinations(range(self.dim), self.size), strict=True):
            row[list(chosen)] = float(self.weights)
        return _product([rows] * self.workers, [np.full(own, 1.0 / own)] * self.workers)


class ImportanceSampling(Sketch):
    """Every worker holds every coordinate independently, with given marginals p: C_i = Diag(mask_i / p_i), unbiased.

    E[C_i M C_i] = M + Diag((1/p_i - 1) * diag M).

    Args:
        workers: n.
        marginals: [d] for all workers, or [n, d]; each in (0, 1].

    Raises:
        InvalidInput: wrong shape, or a marginal outside (0, 1].

    >>> ImportanceSampling(2, [0.5, 1.0]).second_moment(np.ones((2, 2)))
    array([[2., 1.],
           [1., 1.]])
    """

    def __init__(self, workers: int, marginals: ArrayLike) -> None:
        check_integer("workers", workers, at_least=1)
        given = np.asarray(marginals, dtype=np.float64)
        p = check_array("marginals", given, *((workers, "d") if given.ndim == 2 else ("d",)))
        if p.size == 0 or not ((p > 0) & (p <= 1)).all():
            span = f"{p.min(initial=np.inf):g} .. {p.max(initial=0.0):g}"
            raise InvalidInput(f"`marginals` must be in (0, 1], got {span}")
        self.workers, self.dim = workers, int(p.shape[-1])
        self.marginals = np.broadcast_to(p, (workers, self.dim))
        self._weights = 1.0 / self.marginals

    @property
    def weights(self) -> Array | float:
        """1/p, [n, d]."""
        return self._weights

    @property
    def masks(self) -> Masks:
        """Independent units with their marginals."""
        return Masks((1.0, 1.0, 1.0, 1.0), None, marginals=self.marginals)

    def sample(self, random: np.random.Generator) -> Array:
        """Draw all workers' diagonals at once, [n, d]."""
        return self.sample_many(random, 1)[0]

    def sample_many(self, random: np.random.Generator, count: int) -> Array:
        """Draw ``count`` outcomes, [count, n, d]."""
        held = random.random((count, self.workers, self.dim)) < self.marginals
        return np.where(held, self.weights, 0.0)

    def support(self, limit: int = 100_000) -> Support:
        """Return all subsets of all workers with their probabilities."""
        _check_count(self, 2**self.dim, limit)
        masks = np.array(list(itertools.product((0.0, 1.0), repeat=self.dim)))
        chances = [np.prod(np.where(masks > 0, p, 1.0 - p), axis=1) for p in self.marginals]
        rows = [masks * self.worker_weights(worker) for worker in range(self.workers)]
        kept = [chance > 0 for chance in chances]
        return _product(
            [row[keep] for row, keep in zip(rows, kept, strict=True)],
            [chance[keep] for chance, keep in zip(chances, kept, strict=True)],
        )


class Bernoulli(ImportanceSampling):
    """Every worker holds every coordinate independently with probability p: C_i = Diag(mask_i)/p, unbiased.

    E[C_i M C_i] = M + (1/p - 1) Diag(M).

    Args:
        workers: n.
        dim: d.
        probability: p in (0, 1].
        scale: value where the mask is one; None for 1/p.

    Raises:
        InvalidInput: a value breaks its rule.
    """

    def __init__(self, workers: int, dim: int, probability: float, scale: float | None = None) -> None:
        check_integer("dim", dim, at_least=1)
        self.probability = check_number("probability", probability, above=0.0, at_most=1.0)
        super().__init__(workers, np.full(dim, self.probability))
        self.scale = 1.0 / self.probability if scale is None else check_number("scale", scale, above=0.0)

    def __repr__(self) -> str:
        return f"Bernoulli(workers={self.workers}, dim={self.dim}, probability={self.probability}, scale={self.scale})"

    @property
    def weights(self) -> Array | float:
        """1/p, or the given scale."""
        return self.scale


def _check_count(sketch: Sketch, own: int, limit: int) -> None:
    outcomes = own**sketch.workers
    if outcomes > limit:
        kind = type(sketch).__name__
        raise InvalidInput(
            f"`support` of {kind} with {sketch.workers} workers and {sketch.dim} coordinates has {outcomes} outcomes, "
            f"more than {limit}"
        )


def _product(rows: Sequence[Array], chances: Sequence[Array]) -> Support:
    """Combine the workers' own outcomes, independent of each other."""
    choices = np.array(list(itertools.product(*(range(len(own)) for own in rows))))
    diagonals = np.stack([own[choices[:, worker]] for worker, own in enumerate(rows)], axis=1)
    own_chances = [own[choices[:, worker]] for worker, own in enumerate(chances)]
    return Support(np.prod(own_chances, axis=0), diagonals)
