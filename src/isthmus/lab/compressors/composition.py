"""Compressors made of others: a quantiser on the coordinates that Rand-K keeps, and a scaled, contractive map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import InvalidInput
from isthmus.lab.accounting import Message
from isthmus.lab.arrays import Array
from isthmus.lab.compressors.base import Compressor, branch, require_unbiased, require_vectors
from isthmus.lab.compressors.coding import Bits, Reader
from isthmus.lab.compressors.sparsifiers import RandK
from isthmus.lab.multipliers import Multipliers


@dataclass(frozen=True)
class Composition(Compressor):
    """Q(Rand-K(x)), Q on the K kept coordinates: omega = (1 + omega_Q) d/K - 1.

    Args:
        sparsifier: Rand-K, with a shared seed or with indices.
        quantizer: unbiased, for K coordinates.

    Raises:
        InvalidInput: a biased quantiser, or one for another number of coordinates than K.

    >>> from isthmus.lab.compressors.quantizers import Natural
    >>> both = Composition(RandK(16, 4), Natural(4))
    >>> both.omega, both.message(32).bits
    (3.5, 36.0)
    """

    sparsifier: RandK
    quantizer: Compressor

    def __post_init__(self) -> None:
        require_unbiased(self.quantizer)
        if not isinstance(self.sparsifier, RandK):
            raise InvalidInput(f"`sparsifier` must be a RandK, got {self.sparsifier}")
        if self.quantizer.dim != self.sparsifier.size:
            raise InvalidInput(
                f"`quantizer` must be for the {self.sparsifier.size} kept coordinates, got {self.quantizer.dim}"
            )

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Number of coordinates d."""
        return self.sparsifier.dim

    @property
    def omega(self) -> float:
        """(1 + omega_Q)(1 + omega) - 1."""
        return (1.0 + require_unbiased(self.quantizer)) * (1.0 + self.sparsifier.omega) - 1.0

    def compress(self, x: Array, random: np.random.Generator) -> Array:
        """Choose, quantise the chosen, put them back."""
        inner, kept = branch(random), self.sparsifier.choose(require_vectors(x, self.dim), random)
        values = self.sparsifier.factor * np.take_along_axis(x, kept, axis=-1)
        result = np.zeros(x.shape)
        np.put_along_axis(result, kept, self.quantizer.compress(values, inner), axis=-1)
        return result

    def message(self, value_bits: int = 64) -> Message:
        """The quantiser's message, and the indices where they travel."""
        return self.quantizer.message(value_bits) + Message(indices=self.sparsifier.index_message_bits)

    def write(self, x: Array, random: np.random.Generator, value_bits: int) -> list[Bits]:
        """The quantiser's message, then the indices where they travel."""
        inner, kept = branch(random), self.sparsifier.choose(x[None], random)[0]
        values = self.sparsifier.factor * np.take_along_axis(x, kept, axis=-1)
        sent = self.quantizer.write(values, inner, value_bits)
        names = [self.sparsifier.write_indices(row) for row in kept]
        return [np.concatenate(parts) for parts in zip(sent, names, strict=True)]

    def read(self, readers: list[Reader], random: np.random.Generator, value_bits: int) -> Array:
        """The quantiser's message, then the indices, read or derived."""
        inner, kept = branch(random), self.sparsifier.known_indices(len(readers), random)
        values = self.quantizer.read(readers, inner, value_bits)
        result = np.zeros((len(readers), self.dim))
        for worker, reader in enumerate(readers):
            units = self.sparsifier.read_indices(reader) if self.sparsifier.sends_indices else kept[worker]
            result[worker, units] = values[worker]
        return result


@dataclass(frozen=True)
class Scaled(Compressor):
    """C(x)/(1 + omega): an unbiased map made contractive, alpha = 1/(1 + omega), by the same message.

    Raises:
        InvalidInput: a biased compressor.

    >>> Scaled(RandK(10, 2)).alpha
    0.2
    """

    compressor: Compressor

    def __post_init__(self) -> None:
        require_unbiased(self.compressor)

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Number of coordinates d."""
        return self.compressor.dim

    @property
    def alpha(self) -> float:
        """1/(1 + omega)."""
        return 1.0 / (1.0 + require_unbiased(self.compressor))

    def compress(self, x: Array, random: np.random.Generator) -> Array:
        """Compress, then shrink."""
        return self.alpha * self.compressor.compress(x, random)

    def multipliers(self, workers: int) -> Multipliers | None:
        """Those of the unbiased map, shrunk."""
        inner = self.compressor.multipliers(workers)
        return None if inner is None else inner.scaled(self.alpha)

    def message(self, value_bits: int = 64) -> Message:
        """The unbiased map's."""
        return self.compressor.message(value_bits)

    def drawn_messages(self, random: np.random.Generator, seeds: int, workers: int, value_bits: int = 64) -> Message:
        """The unbiased map's."""
        return self.compressor.drawn_messages(random, seeds, workers, value_bits)

    def write(self, x: Array, random: np.random.Generator, value_bits: int) -> list[Bits]:
        """The unbiased map's message."""
        return self.compressor.write(x, random, value_bits)

    def read(self, readers: list[Reader], random: np.random.Generator, value_bits: int) -> Array:
        """The unbiased map's message, shrunk."""
        return self.alpha * self.compressor.read(readers, random, value_bits)
