"""Rand-K and Top-K: K of d coordinates, by chance or by size."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import check_integer
from isthmus.lab.accounting import Message, index_bits
from isthmus.lab.arrays import Array
from isthmus.lab.compressors.base import Compressor, require_vectors
from isthmus.lab.compressors.coding import Bits, Reader, float_bits, integer_bits
from isthmus.lab.multipliers import Multipliers, random_subset

Indices = NDArray[np.int64]


class Sparsifier(Compressor):
    """K chosen coordinates times a factor, zeros elsewhere."""

    size: int

    @property
    @abstractmethod
    def factor(self) -> float:
        """What a kept coordinate is multiplied by."""

    @property
    @abstractmethod
    def sends_indices(self) -> bool:
        """Whether the receiver cannot know which coordinates they are."""

    @abstractmethod
    def choose(self, x: Array, random: np.random.Generator) -> Indices:
        """Return the kept coordinates of x [..., d], ascending, [..., K]."""

    def compress(self, x: Array, random: np.random.Generator) -> Array:
        """Keep the chosen coordinates, times the factor."""
        kept = self.choose(require_vectors(x, self.dim), random)
        result = np.zeros(x.shape)
        np.put_along_axis(result, kept, self.factor * np.take_along_axis(x, kept, axis=-1), axis=-1)
        return result

    def message(self, value_bits: int = 64) -> Message:
        """K numbers, and their indices where they must be sent: one by one or as a bit mask, the smaller."""
        return Message(values=self.size * value_bits, indices=self.index_message_bits)

    @property
    def index_message_bits(self) -> int:
        """Bits spent on indices."""
        return min(self.size * index_bits(self.dim), self.dim) if self.sends_indices else 0

    def write_indices(self, kept: Indices) -> Bits:
        """Return the bits that name the kept coordinates."""
        if not self.sends_indices:
            return np.empty(0, np.uint8)
        if self.size * index_bits(self.dim) <= self.dim:
            return integer_bits(kept, index_bits(self.dim))
        return np.isin(np.arange(self.dim), kept).astype(np.uint8)

    def read_indices(self, reader: Reader) -> Indices:
        """Return the kept coordinates of one message."""
        if reader.silent:
            return np.arange(self.size)  # of zeros, wherever they stand
        if self.size * index_bits(self.dim) <= self.dim:
            return reader.integers(self.size, index_bits(self.dim))
        return np.flatnonzero(reader.integers(self.dim, 1))

    def known_indices(self, count: int, random: np.random.Generator) -> Indices:
        """Return the coordinates that a receiver with the shared seed derives for ``count`` workers, [count, K]."""
        return self.choose(np.zeros((1, count, self.dim)), random)[0]

    def write(self, x: Array, random: np.random.Generator, value_bits: int) -> list[Bits]:
        """Indices where they travel, then values."""
        kept = self.choose(x[None], random)[0]
        values = self.factor * np.take_along_axis(x, kept, axis=1)
        return [
            np.concatenate([self.write_indices(row), float_bits(value, value_bits)])
            for row, value in zip(kept, values, strict=True)
        ]

    def read(self, readers: list[Reader], random: np.random.Generator, value_bits: int) -> Array:
        """Indices, read or derived, then values."""
        result = np.zeros((len(readers), self.dim))
        known = None if self.sends_indices else self.known_indices(len(readers), random)
        for worker, reader in enumerate(readers):
            kept = self.read_indices(reader) if known is None else known[worker]
            result[worker, kept] = reader.floats(self.size, value_bits)
        return result


@dataclass(frozen=True)
class RandK(Sparsifier):
    """C(x) = (d/K) x on a uniformly random K-subset, drawn without replacement: omega = d/K - 1, exactly.

    Args:
        dim: d.
        size: K, at most d.
        shared_seed: the receiver derives the subset; otherwise indices travel.

    Raises:
        InvalidInput: K outside 1..d.

    >>> RandK(10, 2).omega, RandK(10, 2).message(32).bits, RandK(10, 2, shared_seed=False).message(32).bits
    (4.0, 64.0, 72.0)
    """

    dim: int
    size: int
    shared_seed: bool = True

    def __post_init__(self) -> None:
        check_integer("dim", self.dim, at_least=1)
        check_integer("size", self.size, at_least=1, at_most=self.dim)

    @property
    def omega(self) -> float:
        """d/K - 1, with equality for every x."""
        return self.dim / self.size - 1.0

    @property
    def factor(self) -> float:
        """d/K."""
        return self.dim / self.size

    @property
    def sends_indices(self) -> bool:
        """Unless the seed is shared."""
        return not self.shared_seed

    def choose(self, x: Array, random: np.random.Generator) -> Indices:
        """Draw a K-subset for every vector of x."""
        keys = random.random(x.shape)
        return np.sort(np.argpartition(keys, self.size - 1, axis=-1)[..., : self.size], axis=-1)

    def compress(self, x: Array, random: np.random.Generator) -> Array:
        """Keep the coordinates with the K smallest keys, those of :meth:`choose` (two keys never tie in practice)."""
        keys = random.random(require_vectors(x, self.dim).shape)
        largest = np.partition(keys, self.size - 1, axis=-1)[..., self.size - 1, None]
        return np.where(keys <= largest, self.factor * x, 0.0)

    def multipliers(self, workers: int) -> Multipliers:
        """d/K on the subset."""
        return random_subset(workers, self.dim, self.size)


@dataclass(frozen=True)
class TopK(Sparsifier):
    """The K entries of largest absolute value: alpha = K/d in the worst case; deterministic and biased.

    Raises:
        InvalidInput: K outside 1..d.
    """

    dim: int
    size: int

    def __post_init__(self) -> None:
        check_integer("dim", self.dim, at_least=1)
        check_integer("size", self.size, at_least=1, at_most=self.dim)

    @property
    def omega(self) -> float | None:
        """0 where everything is kept; else biased."""
        return 0.0 if self.size == self.dim else None

    @property
    def alpha(self) -> float:
        """K/d, reached where all entries are equal in absolute value."""
        return self.size / self.dim

    @property
    def factor(self) -> float:
        """1."""
        return 1.0

    @property
    def sends_indices(self) -> bool:
        """Always: they depend on the vector."""
        return True

    def choose(self, x: Array, random: np.random.Generator) -> Indices:
        """Return the places of the K largest entries."""
        order = np.argpartition(-np.abs(x), self.size - 1, axis=-1)[..., : self.size]
        return np.sort(order, axis=-1)
