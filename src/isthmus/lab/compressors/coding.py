"""Messages as bytes: fixed-width integers and floating-point numbers, packed bit by bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import InvalidInput, check_choice
from isthmus.lab.arrays import Array

Bits = NDArray[np.uint8]
_FLOATS = {32: ">f4", 64: ">f8"}


def check_value_bits(value_bits: int) -> int:
    """Return ``value_bits``.

    Raises:
        InvalidInput: neither 32 nor 64.
    """
    check_choice("value_bits", str(value_bits), map(str, _FLOATS))
    return int(value_bits)


def integer_bits(values: NDArray[np.integer], width: int) -> Bits:
    """Return non-negative integers as ``width`` bits each, the highest first.

    >>> integer_bits(np.array([5, 1]), 3).tolist()
    [1, 0, 1, 0, 0, 1]
    """
    shifts = np.arange(width - 1, -1, -1)
    return ((np.asarray(values, dtype=np.int64)[:, None] >> shifts) & 1).astype(np.uint8).ravel()


def float_bits(values: Array, value_bits: int) -> Bits:
    """Return numbers as IEEE bits; with 32 they are rounded.

    Raises:
        InvalidInput: a number beyond the largest of that format.
    """
    with np.errstate(over="ignore"):
        rounded = np.asarray(values).astype(_FLOATS[value_bits])
    if not np.isfinite(rounded).all():
        raise InvalidInput(f"`x` must have numbers of {value_bits} bits, got {np.abs(values).max():.3g}")
    return np.unpackbits(np.frombuffer(rounded.tobytes(), dtype=np.uint8))


def pack(bits: Bits) -> bytes:
    """Return bits as bytes, the last byte filled up with zeros."""
    return np.packbits(bits).tobytes()


class Reader:
    """Reads back what :func:`pack` wrote; without data it reads zeros, a message that was not sent."""

    def __init__(self, data: bytes | None) -> None:
        self._bits = None if data is None else np.unpackbits(np.frombuffer(data, dtype=np.uint8))
        self._at = 0

    @property
    def silent(self) -> bool:
        """Whether no message was sent."""
        return self._bits is None

    @property
    def remaining(self) -> int:
        """Bits not yet read."""
        return 0 if self._bits is None else len(self._bits) - self._at

    def _take(self, count: int) -> Bits:
        if self._bits is None:
            return np.zeros(count, np.uint8)
        if count > self.remaining:
            raise InvalidInput(f"`data` must hold {self._at + count} bits, got {len(self._bits)}")
        self._at += count
        return self._bits[self._at - count : self._at]

    def integers(self, count: int, width: int) -> NDArray[np.int64]:
        """Return ``count`` integers of ``width`` bits."""
        weights = 1 << np.arange(width - 1, -1, -1, dtype=np.int64)
        return np.asarray(self._take(count * width).reshape(count, width).astype(np.int64) @ weights)

    def floats(self, count: int, value_bits: int) -> Array:
        """Return ``count`` numbers."""
        raw = np.packbits(self._take(count * value_bits)).tobytes()
        return np.frombuffer(raw, dtype=_FLOATS[value_bits]).astype(np.float64)
