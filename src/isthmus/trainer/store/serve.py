"""Workers that look at the merged network serve each other: meetings in which each says what it wants, or that it is
done, and one exchange after each."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from isthmus.trainer.store.homes import Homes
from isthmus.trainer.store.reader import Span
from isthmus.trainer.wire.exchange import Exchange, Link, Program, all_gather

_DONE = Span(0, 0, 0, 0)


class Housed(Protocol):
    """Whatever knows who is home to what; that may change when workers are lost."""

    @property
    def homes(self) -> Homes:
        """Who is home to what."""
        ...

    @property
    def types(self) -> Mapping[str, torch.dtype]:
        """Of the tensors."""
        ...

    @property
    def fixed(self) -> Mapping[str, Tensor]:
        """Tensors that every worker has whole."""
        ...

    @property
    def statistics(self) -> Collection[str]:
        """Names of the tensors that norms measure, or may."""
        ...

    @property
    def names(self) -> Collection[str]:
        """Of all tensors of the network."""
        ...


@dataclass(frozen=True, eq=False)
class Service:
    """One worker's side of it.

    Attributes:
        housed: who is home to what.
        shards: what this worker is home to, by name.
        link: to the others.
        device: where values are to be.
    """

    housed: Housed
    shards: Mapping[str, Tensor]
    link: Link
    device: torch.device

    @property
    def homes(self) -> Homes:
        """Who is home to what."""
        return self.housed.homes

    @property
    def dtypes(self) -> Mapping[str, torch.dtype]:
        """Of the tensors."""
        return self.housed.types

    def fetch(self, span: Span) -> Program[dict[str, Tensor]]:
        """Return the tensors of a span; meanwhile send the others what they want."""
        found = {
            name: torch.empty(self._shape(name, start, stop), dtype=self.dtypes[name], device=self.device)
            for name, start, stop in self._parts(span)
        }
        arrived: list[Tensor] = []
        if self.link.workers > 1:
            arrived, _ = yield from self._meet(span)
        here = self.link.index
        for home in range(self.link.workers):
            place = 0
            for name, start, stop in self._parts(span):
                first, last = self._overlap(name, home, start, stop)
                target = _flat(found[name], first - start, last - start)
                if home == here:
                    target.copy_(self._own(name, first, last))
                else:
                    target.copy_(arrived[home][place : place + len(target)])
                    place += len(target)
        return found

    def serve(self) -> Program[bool]:
        """Send the others what they want once; return whether all are done."""
        if self.link.workers == 1:
            return True
        _, over = yield from self._meet(_DONE)
        return over

    def _meet(self, span: Span) -> Program[tuple[list[Tensor], bool]]:
        """Say what is wanted; return what every worker sent of it as bytes, and whether all are done."""
        told = torch.tensor(span, dtype=torch.int64, device=self.device)
        replies = yield from all_gather(told, self.link, counted=False)
        spans = [Span(*reply.tolist()) for reply in replies]
        if all(each == _DONE for each in spans):
            return [], True
        here = self.link.index
        send = tuple(self._packed(_DONE if to == here else each) for to, each in enumerate(spans))
        expect = tuple(0 if home == here else self._bytes(span, home) for home in range(self.link.workers))
        arrived = yield Exchange(send, expect, viewing=True)
        return arrived, False

    def _packed(self, span: Span) -> Tensor:
        """Return this worker's rows of a span as bytes."""
        parts = [
            self._own(name, *self._overlap(name, self.link.index, start, stop))
            for name, start, stop in self._parts(span)
        ]
        if len(parts) == 1:
            return parts[0]
        return torch.cat([*parts, torch.empty(0, dtype=torch.uint8, device=self.device)])

    def _own(self, name: str, first: int, last: int) -> Tensor:
        if first == last:
            return torch.empty(0, dtype=torch.uint8, device=self.device)
        offset = self.homes.rows(name, self.link.index)[0]
        return _flat(self.shards[name], first - offset, last - offset)

    def _bytes(self, span: Span, home: int) -> int:
        total = 0
        for name, start, stop in self._parts(span):
            first, last = self._overlap(name, home, start, stop)
            total += math.prod(self._shape(name, first, last)) * self.dtypes[name].itemsize if last > first else 0
        return total

    def _parts(self, span: Span) -> list[tuple[str, int, int]]:
        """Return name, first row and end of every tensor of a span."""
        names = list(self.homes.shapes)[span.first : span.first + span.tensors]
        if len(names) == 1:
            return [(names[0], span.start, span.stop)]
        return [(name, 0, self.homes.count(name)) for name in names]

    def _overlap(self, name: str, home: int, start: int, stop: int) -> tuple[int, int]:
        """Return the rows of a tensor between two that a worker is home to; an empty range within these if none."""
        first, last = self.homes.rows(name, home)
        first = min(max(first, start), stop)
        return first, max(first, min(last, stop))

    def _shape(self, name: str, start: int, stop: int) -> tuple[int, ...]:
        shape = self.homes.shapes[name]
        return (stop - start, *shape[1:]) if shape else ()


def _flat(tensor: Tensor, start: int, stop: int) -> Tensor:
    """Return rows of a tensor as bytes, a view of them."""
    rows = tensor.detach().reshape(1) if tensor.dim() == 0 else tensor.detach()
    return rows[start:stop].reshape(-1).view(torch.uint8)
