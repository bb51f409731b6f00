"""Messages sent by chance: the Bernoulli compressor, and partial participation as its composition with another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import check_number
from isthmus.lab.accounting import Message
from isthmus.lab.arrays import Array
from isthmus.lab.compressors.base import Compressor, branch, require_unbiased
from isthmus.lab.compressors.coding import Bits, Reader
from isthmus.lab.compressors.identity import IdentityCompressor
from isthmus.lab.multipliers import Multipliers


@dataclass(frozen=True)
class Participation(Compressor):
    """C(x/p) with probability p, else nothing; every worker on its own: omega = (1 + omega_C)/p - 1.

    A worker that does not send need not compute either; the flag that says so is one bit.

    Args:
        compressor: what those who take part send; unbiased.
        probability: p in (0, 1].

    Raises:
        InvalidInput: p outside (0, 1], or a biased compressor.

    >>> Participation(IdentityCompressor(4), 0.25).omega, Participation(IdentityCompressor(4), 0.25).message(32).bits
    (3.0, 33.0)
    """

    compressor: Compressor
    probability: float

    def __post_init__(self) -> None:
        check_number("probability", self.probability, above=0.0, at_most=1.0)
        require_unbiased(self.compressor)

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Number of coordinates d."""
        return self.compressor.dim

    @property
    def omega(self) -> float:
        """(1 + omega_C)/p - 1."""
        return (1.0 + require_unbiased(self.compressor)) / self.probability - 1.0

    def joint_constants(self, workers: int) -> tuple[float, float]:
        """Return (A, B): those of the compressor, and the variance of taking part, (1/p - 1)(1 + omega_C)/n."""
        A, B = self.compressor.joint_constants(workers)
        return A + (1.0 / self.probability - 1.0) * (1.0 + require_unbiased(self.compressor)) / workers, B

    def compress(self, x: Array, random: np.random.Generator) -> Array:
        """Compress, and drop the messages of those who do not take part."""
        inner, here = branch(random), self._here(random, len(x), x.shape[1])
        return self.compressor.compress(x / self.probability, inner) * here[:, :, None]

    def multipliers(self, workers: int) -> Multipliers | None:
        """Those of the compressor, over p or 0."""
        inner = self.compressor.multipliers(workers)
        return None if inner is None else inner.sent_by_chance(self.probability)

    def message(self, value_bits: int = 64) -> Message:
        """The flag, and with probability p the message."""
        return self.compressor.message(value_bits) * self.probability + Message(extras=1.0)

    def drawn_messages(self, random: np.random.Generator, seeds: int, workers: int, value_bits: int = 64) -> Message:
        """The flag, and the messages of those who take part."""
        inner, here = branch(random), self._here(random, seeds, workers).astype(np.float64)
        return self.compressor.drawn_messages(inner, seeds, workers, value_bits) * here + Message(extras=1.0)

    def write(self, x: Array, random: np.random.Generator, value_bits: int) -> list[Bits]:
        """A flag, and the message after it."""
        inner, here = branch(random), self._here(random, 1, len(x))[0]
        sent = self.compressor.write(x / self.probability, inner, value_bits)
        return [np.concatenate([[flag], bits if flag else bits[:0]]) for flag, bits in zip(here, sent, strict=True)]

    def read(self, readers: list[Reader], random: np.random.Generator, value_bits: int) -> Array:
        """A flag, and the message after it; a message that was not sent reads as zeros."""
        present = [reader if reader.integers(1, 1)[0] else Reader(None) for reader in readers]
        return self.compressor.read(present, branch(random), value_bits)

    def _here(self, random: np.random.Generator, seeds: int, workers: int) -> Bits:
        return (random.random((seeds, workers)) < self.probability).astype(np.uint8)


def bernoulli_compressor(dim: int, probability: float) -> Participation:
    """Return x/p with probability p, else 0: omega = 1/p - 1; p d v bits expected and a flag.

    Raises:
        InvalidInput: p outside (0, 1].
    """
    return Participation(IdentityCompressor(dim), probability)
