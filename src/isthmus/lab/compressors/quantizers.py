"""Dithering and natural compression: every coordinate, in few bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import InvalidInput, check_integer
from isthmus.lab.accounting import Message
from isthmus.lab.arrays import Array
from isthmus.lab.compressors.base import Compressor, require_vectors
from isthmus.lab.compressors.coding import Bits, Reader, check_value_bits, float_bits, integer_bits

_EXPONENT_BITS = {32: 8, 64: 11}


@dataclass(frozen=True)
class Dithering(Compressor):
    """QSGD, standard dithering: |x| sign(x_j) l_j / s, l_j = s |x_j| / |x| rounded to a neighbour at random.

    omega = min(d/s^2, sqrt(d)/s) is an upper bound. Fixed code: the norm, and a sign and one of s + 1 levels a
    coordinate, v + d (1 + ceil(log2(s + 1))) bits.

    Args:
        dim: d.
        levels: s >= 1.

    Raises:
        InvalidInput: no coordinate or level.

    Reference:
        Alistarh, Grubic, Li, Tomioka, Vojnovic (arXiv 1610.02132), Lemma 3.1.

    >>> Dithering(100, 10).omega, Dithering(100, 1).message(32).bits
    (1.0, 232.0)
    """

    dim: int
    levels: int

    def __post_init__(self) -> None:
        check_integer("dim", self.dim, at_least=1)
        check_integer("levels", self.levels, at_least=1)

    @property
    def omega(self) -> float:
        """min(d/s^2, sqrt(d)/s)."""
        return float(min(self.dim / self.levels**2, np.sqrt(self.dim) / self.levels))

    @property
    def level_bits(self) -> int:
        """ceil(log2(s + 1)): there are s + 1 levels, 0 among them."""
        return self.levels.bit_length()

    def compress(self, x: Array, random: np.random.Generator) -> Array:
        """Round every coordinate to a level."""
        norm, level = self._round(require_vectors(x, self.dim), random)
        return np.copysign(norm * level / self.levels, x)

    def message(self, value_bits: int = 64) -> Message:
        """The norm, signs and levels; no values."""
        return Message(extras=float(value_bits + self.dim * (1 + self.level_bits)))

    def write(self, x: Array, random: np.random.Generator, value_bits: int) -> list[Bits]:
        """The norm, the signs, the levels."""
        norm, level = (part[0] for part in self._round(x[None], random))
        return [
            np.concatenate(
                [
                    float_bits(norm[i], value_bits),
                    np.signbit(x[i]).astype(np.uint8),
                    integer_bits(level[i].astype(np.int64), self.level_bits),
                ]
            )
            for i in range(len(x))
        ]

    def read(self, readers: list[Reader], random: np.random.Generator, value_bits: int) -> Array:
        """The norm, the signs, the levels."""
        rows = []
        for reader in readers:
            norm = reader.floats(1, value_bits)
            negative = reader.integers(self.dim, 1) == 1
            size = norm * reader.integers(self.dim, self.level_bits) / self.levels
            rows.append(np.where(negative, -size, size))
        return np.stack(rows)

    def _round(self, x: Array, random: np.random.Generator) -> tuple[Array, Array]:
        unit = np.ldexp(1.0, np.frexp(np.abs(x).max(axis=-1, keepdims=True))[1] - 1)  # squares over- and underflow
        inside = x / unit
        norm = np.sqrt(np.einsum("...j,...j->...", inside, inside))[..., None]
        scaled = np.abs(inside) * (self.levels / np.maximum(norm, 1.0))  # below 1 only where x is 0
        norm = norm * unit
        # floor(y + u) is y rounded up with probability y - floor(y); rounding must not reach level s + 1
        return norm, np.minimum(np.floor(scaled + random.random(x.shape)), self.levels)


@dataclass(frozen=True)
class Natural(Compressor):
    """Natural compression: every coordinate rounded at random to a neighbouring power of two; omega = 1/8.

    A sign and an exponent a coordinate: 9 bits from single precision, 12 from double. Zero has the lowest exponent.

    Raises:
        InvalidInput: fewer than one coordinate.

    Reference:
        Horvath, Ho, Horvath, Sahu, Canini, Richtarik (arXiv 1905.10988).

    >>> Natural(2).compress(np.array([[[4.0, -0.5]]]), np.random.default_rng(0))
    array([[[ 4. , -0.5]]])
    """

    dim: int

    def __post_init__(self) -> None:
        check_integer("dim", self.dim, at_least=1)

    @property
    def omega(self) -> float:
        """1/8, reached at 4/3 times a power of two."""
        return 0.125

    def compress(self, x: Array, random: np.random.Generator) -> Array:
        """Round to powers of two."""
        mantissa, exponent = np.frexp(require_vectors(x, self.dim))  # |mantissa| in [1/2, 1): x between 2^(e-1), 2^e
        up = random.random(x.shape) < 2.0 * np.abs(mantissa) - 1.0
        return np.where(mantissa == 0.0, 0.0, np.copysign(np.ldexp(0.5, exponent + up), x))

    def message(self, value_bits: int = 64) -> Message:
        """A sign and an exponent a coordinate."""
        return Message(extras=self.dim * (1 + _EXPONENT_BITS[check_value_bits(value_bits)]))

    def write(self, x: Array, random: np.random.Generator, value_bits: int) -> list[Bits]:
        """Signs and exponents.

        Raises:
            InvalidInput: an exponent out of the format's range.
        """
        width = _EXPONENT_BITS[value_bits]
        rounded = self.compress(x[None], random)[0]
        exponent = np.frexp(rounded)[1] + (1 << (width - 1)) - 2
        code = np.where(rounded == 0.0, 0, exponent)
        if ((code < (rounded != 0.0)) | (code >= 1 << width)).any():
            raise InvalidInput(f"`x` must have powers of two of {width} bits, got a value out of range")
        sign = np.signbit(rounded).astype(np.uint8)
        return [np.concatenate([sign[i], integer_bits(code[i], width)]) for i in range(len(x))]

    def read(self, readers: list[Reader], random: np.random.Generator, value_bits: int) -> Array:
        """Signs and exponents."""
        width = _EXPONENT_BITS[value_bits]
        rows = []
        for reader in readers:
            negative = reader.integers(self.dim, 1) == 1
            code = reader.integers(self.dim, width)
            power = np.ldexp(0.5, (code - (1 << (width - 1)) + 2).astype(np.int32))
            rows.append(np.where(code == 0, 0.0, np.where(negative, -power, power)))
        return np.stack(rows)
