"""The interface of a compressor: a random map of every worker's vector, and the message that carries it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from isthmus.errors import InvalidInput
from isthmus.lab.accounting import Message
from isthmus.lab.arrays import Array
from isthmus.lab.compressors.coding import Bits, Reader, check_value_bits, pack
from isthmus.lab.multipliers import Multipliers


class Compressor(ABC):
    """A map C of vectors of length ``dim``, applied to all seeds and workers at once.

    Unbiased ones state ``omega``: E C(x) = x and E|C(x) - x|^2 <= omega |x|^2. Contractive ones state ``alpha``:
    E|C(x) - x|^2 <= (1 - alpha) |x|^2.
    """

    dim: int

    @property
    def omega(self) -> float | None:
        """The variance parameter; None where the map is biased."""
        return None

    @property
    def alpha(self) -> float | None:
        """The contraction parameter; None where there is none."""
        return None

    def joint_constants(self, workers: int) -> tuple[float, float]:
        """Return (A, B) with E|mean_i C_i(a_i) - mean_i a_i|^2 <= A mean_i |a_i|^2 - B |mean_i a_i|^2.

        Independent workers have A = omega/n, B = 0.

        Raises:
            InvalidInput: a biased map.
        """
        return require_unbiased(self) / workers, 0.0

    def multipliers(self, workers: int) -> Multipliers | None:
        """Return the law of c where C_i(x) = c_i * x entrywise; None where the map is not linear given its draws."""
        return None

    @abstractmethod
    def compress(self, x: Array, random: np.random.Generator) -> Array:
        """Return C_i(x_i) for x [seeds, n, d]; the first seeds do not depend on how many there are."""

    @abstractmethod
    def message(self, value_bits: int = 64) -> Message:
        """Return the expected bits of one worker's message."""

    def drawn_messages(self, random: np.random.Generator, seeds: int, workers: int, value_bits: int = 64) -> Message:
        """Return the bits that :meth:`compress` with this generator leads to, a number or [seeds, n]."""
        return self.message(value_bits)

    def drawn_message(self, random: np.random.Generator, seeds: int, workers: int, value_bits: int = 64) -> Message:
        """Return the same per seed, averaged over the workers."""
        return self.drawn_messages(random, seeds, workers, value_bits).mean_over_workers()

    @abstractmethod
    def write(self, x: Array, random: np.random.Generator, value_bits: int) -> list[Bits]:
        """Return the bits of every worker's message for x [n, d]."""

    @abstractmethod
    def read(self, readers: list[Reader], random: np.random.Generator, value_bits: int) -> Array:
        """Return [n, d] from what :meth:`write` wrote."""

    def encode(self, x: Array, random: np.random.Generator, value_bits: int = 64) -> list[bytes]:
        """Return the workers' messages for x [n, d], compressed with the draws that :meth:`compress` would make.

        Raises:
            InvalidInput: ``value_bits`` is neither 32 nor 64.
        """
        return [pack(bits) for bits in self.write(x, random, check_value_bits(value_bits))]

    def decode(self, data: list[bytes], random: np.random.Generator, value_bits: int = 64) -> Array:
        """Return [n, d] from the workers' messages; ``random`` in the encoder's state is the shared seed."""
        return self.read([Reader(one) for one in data], random, check_value_bits(value_bits))


def branch(random: np.random.Generator) -> np.random.Generator:
    """Return a generator for a second kind of draw, 2**64 blocks further on in the same stream.

    Drawn from one after the other, the second kind's numbers would depend on how many seeds the first was drawn for.
    """
    bits = type(random.bit_generator)()
    bits.state = random.bit_generator.state
    bits.advance(2**64)  # type: ignore[attr-defined]
    return np.random.Generator(bits)


def require_unbiased(compressor: Compressor) -> float:
    """Return omega.

    Raises:
        InvalidInput: the compressor is biased.
    """
    if compressor.omega is None:
        raise InvalidInput(f"`compressor` must be unbiased, got {compressor}")
    return compressor.omega


def require_contractive(compressor: Compressor) -> float:
    """Return alpha.

    Raises:
        InvalidInput: the compressor is not contractive.
    """
    if compressor.alpha is None:
        raise InvalidInput(f"`compressor` must be contractive, got {compressor}: wrap an unbiased one in `Scaled`")
    return compressor.alpha


def require_vectors(x: Array, dim: int) -> Array:
    """Return x.

    Raises:
        InvalidInput: its last axis is not ``dim`` long.
    """
    if x.shape[-1] != dim:
        raise InvalidInput(f"`compressor` must be for {x.shape[-1]} coordinates like the vectors, got {dim}")
    return x
