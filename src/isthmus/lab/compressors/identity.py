"""No compression."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import check_integer
from isthmus.lab.accounting import Message, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.compressors.base import Compressor
from isthmus.lab.compressors.coding import Bits, Reader, float_bits
from isthmus.lab.multipliers import Multipliers


@dataclass(frozen=True)
class IdentityCompressor(Compressor):
    """C(x) = x: omega = 0, alpha = 1, d v bits.

    Raises:
        InvalidInput: fewer than one coordinate.
    """

    dim: int

    def __post_init__(self) -> None:
        check_integer("dim", self.dim, at_least=1)

    @property
    def omega(self) -> float:
        """0."""
        return 0.0

    @property
    def alpha(self) -> float:
        """1."""
        return 1.0

    def compress(self, x: Array, random: np.random.Generator) -> Array:
        """Return x."""
        return x

    def multipliers(self, workers: int) -> Multipliers:
        """Always 1."""
        return Multipliers.certain(workers, self.dim)

    def message(self, value_bits: int = 64) -> Message:
        """All d numbers."""
        return numbers(self.dim, value_bits)

    def write(self, x: Array, random: np.random.Generator, value_bits: int) -> list[Bits]:
        """The numbers."""
        return [float_bits(row, value_bits) for row in x]

    def read(self, readers: list[Reader], random: np.random.Generator, value_bits: int) -> Array:
        """The numbers."""
        return np.stack([reader.floats(self.dim, value_bits) for reader in readers])
