"""Perm-q: a random partition of the coordinates over the workers, the sketch of Independent Subnetwork Training."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import comb, factorial, perm, prod

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.lab.arrays import Array
from isthmus.lab.sketches.base import Sketch
from isthmus.lab.sketches.law import Blocks, Masks, Support
from isthmus.partitions import random_blocks


@dataclass(frozen=True)
class Permutation(Sketch):
    """C_i = s P_i, P_i the mask of worker i's block of a uniformly random partition of d coordinates over n workers.

    n <= d: block sizes differ by at most one and the blocks are dealt to the workers at random, so every worker holds
    every coordinate with probability 1/n. n > d: every worker holds one coordinate, with probability 1/d each; every
    coordinate is held by floor(n/d) or ceil(n/d) workers, which coordinates are held once more and by whom is uniformly
    random.

    Args:
        workers: n.
        dim: d.
        scale: s; None for the unbiased one, n (d where n > d), the paper's; 1 is the plain 0/1 mask.

    Raises:
        InvalidInput: fewer than one worker or coordinate, or a scale that is not positive.

    Reference:
        Szlendak, Tyurin, Richtarik (arXiv 2110.03300); Shulgin, Richtarik (arXiv 2306.16484), section 3.

    >>> Permutation(workers=2, dim=4).second_moment(np.ones((4, 4)))[0].round(3)
    array([2.   , 0.667, 0.667, 0.667])
    """

    workers: int
    dim: int
    scale: float | None = None

    def __post_init__(self) -> None:
        check_integer("workers", self.workers, at_least=1)
        check_integer("dim", self.dim, at_least=1)
        unbiased = float(min(self.workers, self.dim))
        scale = unbiased if self.scale is None else check_number("scale", self.scale, above=0.0)
        object.__setattr__(self, "scale", scale)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Block sizes, the larger first; for n > d the number of workers that hold a coordinate."""
        many, few = max(self.workers, self.dim), min(self.workers, self.dim)
        small, larger = divmod(many, few)
        return np.array([small + 1] * larger + [small] * (few - larger), dtype=np.int64)

    @property
    def weights(self) -> Array | float:
        """s."""
        assert self.scale is not None
        return self.scale

    @property
    def masks(self) -> Masks:
        """Falling powers of the block sizes over falling powers of d, averaged over blocks and pairs of blocks."""
        n, d = self.workers, self.dim
        sizes = Counter(self.sizes.tolist())  # two different ones at most
        if n == 1:
            return Masks((1.0, 1.0, 1.0, 1.0), None)
        if n > d:
            return _one_unit_each(n, d, sizes)
        within = [_perms(sizes, m) / n / perm(d, m) if m <= d else 0.0 for m in (1, 2, 3, 4)]
        between = [_pair_chance(sizes, a, b, d) for a, b in ((1, 1), (1, 2), (2, 2))]
        return Masks((within[0], within[1], within[2], within[3]), (between[0], between[1], between[2]))

    def sample(self, random: np.random.Generator) -> Array:
        """Draw all workers' diagonals at once, [n, d]."""
        return self.sample_many(random, 1)[0]

    def sample_many(self, random: np.random.Generator, count: int) -> Array:
        """Draw ``count`` outcomes, [count, n, d]."""
        blocks = self.sample_blocks(random, count)
        dense = np.zeros((count, self.workers, self.dim + 1))
        np.put_along_axis(dense, blocks.members, blocks.values, axis=2)  # type: ignore[arg-type]
        return dense[:, :, : self.dim]

    def sample_blocks(self, random: np.random.Generator, count: int) -> Blocks:
        """Draw ``count`` outcomes as [count, n, q] units and values.

        For n <= d the first is the partition that the law :class:`isthmus.partitions.Uniform` deals by the same key.
        """
        n, d = self.workers, self.dim
        if n <= d:
            members = random_blocks(d, n, random, count)
        else:
            keys = random.random((count, d + n))
            order, slots = np.argsort(keys[:, :d], axis=1), np.argsort(keys[:, d:], axis=1)
            members = np.take_along_axis(order, slots % d, axis=1)[:, :, None]
        value = np.float64(self.weights)
        full = n > d or d % n == 0
        return Blocks(members, np.broadcast_to(value, members.shape) if full else np.where(members < d, value, 0.0))

    def support(self, limit: int = 100_000) -> Support:
        """Return all partitions, equally likely.

        Raises:
            InvalidInput: more than ``limit`` of them.
        """
        n, d = self.workers, self.dim
        sizes = [int(size) for size in self.sizes]
        arrangements = comb(len(sizes), sizes.count(max(sizes)))
        outcomes = arrangements * factorial(max(n, d)) // prod(factorial(size) for size in sizes)
        if outcomes > limit:
            raise InvalidInput(f"`support` of Permutation({n}, {d}) has {outcomes} outcomes, more than {limit}")
        owners = np.array([owner for arranged in _arrangements(sizes) for owner in _assignments(arranged)])
        held = owners[:, None, :] == np.arange(min(n, d))[None, :, None]  # [P, few, many]
        diagonals = np.float64(self.weights) * (held if n <= d else held.transpose(0, 2, 1))
        return Support(np.full(len(owners), 1.0 / len(owners)), diagonals)


def _perms(sizes: Counter[int], *orders: int) -> int:
    """Sum over blocks of the product of their sizes' falling powers."""
    return sum(times * prod(perm(size, order) for order in orders) for size, times in sizes.items())


def _one_unit_each(n: int, d: int, sizes: Counter[int]) -> Masks:
    pairs = n * (n - 1)
    shared = _perms(sizes, 2) / (d * pairs)
    different = (n * n - _perms(sizes, 1, 1)) / (d * (d - 1) * pairs) if d > 1 else 0.0
    return Masks((1.0 / d, 0.0, 0.0, 0.0), (different, 0.0, 0.0), shared)


def _pair_chance(sizes: Counter[int], a: int, b: int, d: int) -> float:
    """Mean over ordered pairs of different blocks of q^(a) r^(b) / d^(a+b), falling powers."""
    n = sizes.total()
    if a + b > d:
        return 0.0
    total = _perms(sizes, a) * _perms(sizes, b) - _perms(sizes, a, b)
    return total / (n * (n - 1)) / perm(d, a + b)


def _arrangements(sizes: list[int]) -> Iterator[tuple[int, ...]]:
    """Yield each order of the sizes (two different values at most) once."""
    larger, smaller = max(sizes), min(sizes)
    for chosen in itertools.combinations(range(len(sizes)), sizes.count(larger)):
        yield tuple(larger if place in chosen else smaller for place in range(len(sizes)))


def _assignments(sizes: tuple[int, ...]) -> Iterator[list[int]]:
    """Yield every way to deal sum(sizes) units to blocks of these sizes, as the block of each unit."""

    def deal(block: int, free: tuple[int, ...], owner: list[int]) -> Iterator[list[int]]:
        if block == len(sizes):
            yield list(owner)
            return
        for chosen in itertools.combinations(free, sizes[block]):
            for unit in chosen:
                owner[unit] = block
            yield from deal(block + 1, tuple(unit for unit in free if unit not in chosen), owner)

    return deal(0, tuple(range(sum(sizes))), [0] * sum(sizes))
