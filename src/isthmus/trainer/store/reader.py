"""Values of tensors that are elsewhere: fetched when they are needed, a bounded part kept, the rest dropped."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from isthmus.errors import InvalidInput
from isthmus.nets.pieces.pattern import Pattern
from isthmus.trainer.store.homes import Homes

BLOCK = 1 << 20  # bytes: fetched at once
KEPT = 1 << 22  # bytes: kept at least


class Span(NamedTuple):
    """What is fetched at once: rows of one tensor, or several whole tensors that follow each other.

    Attributes:
        first: number of the first tensor, in the order of the homes.
        tensors: how many.
        start, stop: rows, where it is one tensor.
    """

    first: int
    tensors: int
    start: int
    stop: int


@dataclass(eq=False)
class Reader:
    """Reads rows and whole tensors, holding little more than what is asked for.

    What is read first stays, up to a bound; of a network that fits, everything is fetched once. What is read later
    is fetched each time: a forward pass reads a network from front to back, so what was read last is needed last.

    Attributes:
        homes: of the tensors, in the order in which a network reads them.
        dtypes: of the tensors.
        fetch: returns the tensors of a span.
        scales: what tensors are multiplied by.
        here: the worker that reads; it begins with its own rows, so that not all ask the same home at once.
        most: bytes that are kept.
        closed: whether reading is over.
    """

    homes: Homes
    dtypes: Mapping[str, torch.dtype]
    fetch: Callable[[Span], Mapping[str, Tensor]]
    scales: Mapping[str, Pattern] = field(default_factory=dict)
    here: int = 0
    most: int = KEPT
    closed: bool = False
    _kept: dict[str, Tensor] = field(default_factory=dict)
    _kept_bytes: int = 0
    _latest: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._names = list(self.homes.shapes)
        self._numbers = {name: number for number, name in enumerate(self._names)}

    def value(self, name: str) -> Tensor:
        """Return all of a tensor. It may be kept here for others: not to be written to."""
        for kept in (self._kept, self._latest):
            if name in kept and kept[name]._version == 0:
                return kept[name]
            if kept.pop(name, None) is not None and kept is self._kept:  # somebody has written to it
                self._kept_bytes -= self.size(name)
        self._latest = {}
        if self.size(name) > BLOCK:
            found = {name: self._assembled(name)}
        else:
            first = self._numbers[name]
            found = self._fetched(Span(first, self._neighbours(first), 0, self.homes.count(name)))
        for each, tensor in found.items():
            if self._kept_bytes + self.size(each) <= self.most:
                self._kept[each] = tensor
                self._kept_bytes += self.size(each)
            elif self.size(each) <= BLOCK:
                self._latest[each] = tensor
        return found[name]

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return some rows of a tensor, fresh."""
        return self._fetched(Span(self._numbers[name], 1, start, stop))[name]

    def is_large(self, name: str) -> bool:
        """Whether a tensor had better be read in blocks: it is more than a block, and not kept."""
        fits = name in self._kept or self._kept_bytes + self.size(name) <= self.most
        return self.size(name) > BLOCK and not fits

    def blocks(self, name: str, in_order: bool = False) -> Iterator[tuple[int, int]]:
        """Yield first row and end of blocks that are all of a tensor, each of one home.

        Args:
            name: of the tensor.
            in_order: the first row first, on every worker.
        """
        rows, workers = self.homes.count(name), self.homes.workers
        most = max(1, BLOCK * rows // max(1, self.size(name)))
        first = 0 if in_order else self.here
        for worker in (*range(first, workers), *range(first)):
            start, stop = self.homes.rows(name, worker)
            parts = -(-(stop - start) // most)
            for part in range(parts):
                yield start + (stop - start) * part // parts, start + (stop - start) * (part + 1) // parts

    def size(self, name: str) -> int:
        """Return the bytes of a tensor."""
        return math.prod(self.homes.shapes[name]) * self.dtypes[name].itemsize

    def close(self) -> None:
        """Drop everything; reading is refused from now on."""
        self.closed = True
        self._kept, self._latest = {}, {}

    def _neighbours(self, first: int) -> int:
        """Return how many tensors are fetched together, from one on: as many as make a block."""
        total, count = 0, 0
        for name in self._names[first:]:
            total += self.size(name)
            if count and (total > BLOCK or name in self._kept):
                break
            count += 1
        return count

    def _assembled(self, name: str) -> Tensor:
        """Return a large tensor, fetched block by block."""
        found: Tensor | None = None
        with torch.inference_mode(False), torch.no_grad():
            for start, stop in self.blocks(name):
                part = self.rows(name, start, stop)
                found = part.new_empty(self.homes.shapes[name]) if found is None else found
                found[start:stop] = part
        assert found is not None
        return _unwritten(found)

    def _fetched(self, span: Span) -> dict[str, Tensor]:
        if self.closed:
            raise InvalidInput("the merged network can be used inside the block of whole() only")
        with torch.inference_mode(False), torch.no_grad():
            found = dict(self.fetch(span))
            for name, tensor in found.items():
                if name in self.scales:
                    rows = (span.start, span.stop) if span.tensors == 1 else (0, self.homes.count(name))
                    self.scales[name].rows(*rows).multiply(tensor)
            return {name: _unwritten(tensor) for name, tensor in found.items()}


def _unwritten(tensor: Tensor) -> Tensor:
    """Return a tensor as one that nobody has written to yet."""
    return tensor.data
