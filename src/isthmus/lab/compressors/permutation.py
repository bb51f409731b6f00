"""Perm-K: the workers send disjoint blocks of a random permutation, so that together they send everything."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import InvalidInput, check_integer
from isthmus.lab.accounting import Count, Message, index_bits
from isthmus.lab.arrays import Array
from isthmus.lab.compressors.base import Compressor, require_vectors
from isthmus.lab.compressors.coding import Bits, Reader, float_bits, integer_bits
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.sketches import Permutation


@dataclass(frozen=True)
class PermK(Compressor):
    """C_i(x) = s x on worker i's block of a random permutation, s = n (d where n > d): the joint law of the sketch.

    Every worker alone has omega = s - 1. Together, for n <= d, E|mean C_i(a_i) - mean a_i|^2 equals
    mean|a_i|^2 - |mean a_i|^2 exactly (A = B = 1): equal vectors are averaged without any error.

    Args:
        workers: n.
        dim: d.
        shared_seed: the receiver derives the blocks; otherwise indices travel.

    Raises:
        InvalidInput: fewer than one worker or coordinate.

    Reference:
        Szlendak, Tyurin, Richtarik (arXiv 2110.03300).

    >>> PermK(4, 8).joint_constants(4), PermK(9, 3).joint_constants(9)
    ((1.0, 1.0), (0.25, 0.25))
    """

    workers: int
    dim: int
    shared_seed: bool = True

    def __post_init__(self) -> None:
        check_integer("workers", self.workers, at_least=1)
        check_integer("dim", self.dim, at_least=1)

    @property
    def sketch(self) -> Permutation:
        """The joint law of the blocks."""
        return Permutation(self.workers, self.dim)

    @property
    def omega(self) -> float:
        """min(n, d) - 1, exactly, for every worker alone."""
        return min(self.workers, self.dim) - 1.0

    def joint_constants(self, workers: int) -> tuple[float, float]:
        """Return (A, B), with equality: (1, 1) for n <= d, ((d-1)/(n-1), (d-1)/(n-1)) where d divides n > d."""
        self._check_workers(workers)
        n, d = self.workers, self.dim
        if n == 1:
            return 0.0, 0.0
        if n <= d:
            return 1.0, 1.0
        shared = self.sketch.masks.shared
        return d / n * (1.0 - shared * d), 1.0 - shared * d * d

    def compress(self, x: Array, random: np.random.Generator) -> Array:
        """Keep every worker's block, times s."""
        self._check_workers(require_vectors(x, self.dim).shape[1])
        blocks = self.sketch.sample_blocks(random, len(x))
        assert blocks.members is not None
        result = np.zeros((*x.shape[:2], self.dim + 1))
        held = np.take_along_axis(x, np.minimum(blocks.members, self.dim - 1), axis=2)
        np.put_along_axis(result, blocks.members, blocks.values * held, axis=2)
        return result[:, :, : self.dim]

    def multipliers(self, workers: int) -> Multipliers | None:
        """Those of the sketch."""
        self._check_workers(workers)
        return self.sketch.multipliers()

    def message(self, value_bits: int = 64) -> Message:
        """max(d/n, 1) numbers on average over the workers, and their indices unless the seed is shared."""
        return self._message(max(self.dim / self.workers, 1.0), value_bits)

    def drawn_messages(self, random: np.random.Generator, seeds: int, workers: int, value_bits: int = 64) -> Message:
        """As many numbers as each worker's block has."""
        self._check_workers(workers)
        if self.workers >= self.dim or self.dim % self.workers == 0:
            return self.message(value_bits)
        members = self.sketch.sample_blocks(random, seeds).members
        assert members is not None
        return self._message((members < self.dim).sum(axis=2), value_bits)

    def _message(self, size: Count, value_bits: int) -> Message:
        return Message(values=size * value_bits, indices=0.0 if self.shared_seed else size * index_bits(self.dim))

    def write(self, x: Array, random: np.random.Generator, value_bits: int) -> list[Bits]:
        """Indices where they travel, then values."""
        held = self.sketch.sample(random)
        messages = []
        for row, values in zip(held, x, strict=True):
            units = np.flatnonzero(row)
            names = np.empty(0, np.uint8) if self.shared_seed else integer_bits(units, index_bits(self.dim))
            messages.append(np.concatenate([names, float_bits(row[units] * values[units], value_bits)]))
        return messages

    def read(self, readers: list[Reader], random: np.random.Generator, value_bits: int) -> Array:
        """Indices, read or derived, then values."""
        held = self.sketch.sample(random)
        result = np.zeros((self.workers, self.dim))
        for worker, reader in enumerate(readers):
            units = np.flatnonzero(held[worker])
            if not self.shared_seed:
                each = value_bits + index_bits(self.dim)
                units = reader.integers(reader.remaining // each, index_bits(self.dim))
            result[worker, units] = reader.floats(len(units), value_bits)
        return result

    def _check_workers(self, workers: int) -> None:
        if workers != self.workers:
            raise InvalidInput(f"`compressor` must be for {workers} workers like the problem, got {self.workers}")
