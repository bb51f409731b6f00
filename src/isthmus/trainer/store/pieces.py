"""Tensors on their way between their homes and the workers that train pieces of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from isthmus.nets.pieces.ownership import Held, merge_into, view_slice
from isthmus.trainer.store.draft import Draft
from isthmus.trainer.store.homes import Homes
from isthmus.trainer.store.routes import Box, Group, Leg, Routes, rows_of
from isthmus.trainer.wire.exchange import Exchange, Link, Pending, Program

_MERGED = 1 << 24  # bytes of copies at most, while parts of one tensor are merged


class Pieces:
    """One worker's side of bringing boxes from their homes and back.

    Numbers travel in their own type, or in a shorter one (``wire``). Then a worker is sent rounded values, and sends
    home, rounded, by how much it has changed them: what the homes hold keeps all its digits, and a change too small to
    show in a rounded value is not lost.

    Args:
        homes: of the tensors that travel.
        types: of their numbers.
        link: to the others.
        device: where this worker's shards and pieces are.
        wire: the type in which floating-point numbers travel; None for their own.
    """

    def __init__(
        self,
        homes: Homes,
        types: Mapping[str, torch.dtype],
        link: Link,
        device: torch.device,
        wire: torch.dtype | None = None,
    ) -> None:
        self.homes = homes
        self._types = types
        self._link = link
        self._device = device
        self._wire = wire

    def routes(self, boxes: Sequence[Sequence[Box]]) -> Routes:
        """Return the routes of every worker's boxes."""
        return Routes(self.homes, self._types, boxes, self._link.index)

    def most_bytes(self, routes: Routes) -> int:
        """Return the most bytes that are on the way at a time: what is sent, what is received, and a part not packed
        yet, or a block of rows that is being merged."""
        most = 0
        for group in routes.groups:
            legs = [leg for way in (group.outgoing, group.incoming) for each in way for leg in each]
            largest = max((leg.size for leg in legs), default=0)
            size = group.dtype.itemsize * (sum(leg.size for leg in legs) + largest)
            most = max(most, size + min(group.dtype.itemsize * largest, _MERGED))
        return most

    def outward(
        self, shards: Mapping[str, Tensor], routes: Routes, reference: dict[str, Tensor] | None = None
    ) -> Program[list[Tensor]]:
        """Return the values of this worker's boxes, from their homes.

        Args:
            shards: of which this worker is home.
            routes: of the boxes.
            reference: is given what came rounded, by tensor, in the type it came in; None to bring all values in their
                own type.
        """
        values = self._room(routes)
        for group in routes.groups:
            send = self._outgoing(shards, group, reference is not None)
            _take_in(values, group, (yield Exchange(send, tuple(map(_size, group.incoming)))))
        if reference is not None:
            self.note(reference, routes.boxes, values)
        return values

    def begin(self, shards: Mapping[str, Tensor], routes: Routes, rounded: bool) -> Program[list[Pending]]:
        """Begin to bring the values of boxes from their homes; :meth:`land` returns them.

        Args:
            shards, routes: as for :meth:`outward`.
            rounded: whether they may come in a shorter type.
        """
        begun = []
        for group in routes.groups:
            begun.append(Pending(ahead=True))
            expected = tuple(map(_size, group.incoming))
            yield Exchange(self._outgoing(shards, group, rounded), expected, beside=begun[-1])
        return begun

    def land(self, routes: Routes, begun: Sequence[Pending]) -> Program[list[Tensor]]:
        """Return the values of this worker's boxes, which have been begun to be brought."""
        values = self._room(routes)
        for group, pending in zip(routes.groups, begun, strict=True):
            _take_in(values, group, (yield pending))
        return values

    def note(self, reference: dict[str, Tensor], boxes: Sequence[Box], values: Sequence[Tensor]) -> None:
        """Add to a reference what came rounded."""
        rounded = ((box.name, v) for box, v in zip(boxes, values, strict=True) if self._is_short(v.dtype))
        reference |= {name: value.to(self._travelling(value.dtype)) for name, value in rounded}

    def homeward(
        self,
        shards: Draft,
        values: Sequence[Tensor],
        routes: Routes,
        began: Sequence[Tensor] | None = None,
        viewing: bool = False,
    ) -> Program[None]:
        """Merge the values of all workers' boxes into the shards, at their homes, in the workers' order.

        Args:
            shards: of which this worker is home.
            values: of this worker's boxes.
            routes: of the boxes.
            began: what came rounded of each box, to send the change; None to send the values, in their own type.
            viewing: whether that is done for somebody who looks, and counts so.
        """
        for group in routes.groups:
            short = began is not None and self._is_short(group.dtype)
            kind = self._travelling(group.dtype) if short else group.dtype
            read = partial(_change, values, began or ()) if short else partial(_of_box, values)
            send = tuple(self._pack(legs, read, kind) for legs in group.incoming)
            reply = yield Exchange(send, tuple(map(_size, group.outgoing)), viewing=viewing)
            holders: dict[str, list[tuple[Tensor, Held]]] = {}
            for legs, flat in zip(group.outgoing, reply, strict=True):
                for leg, part in zip(legs, _unpack(flat, legs), strict=True):
                    value = view_slice(shards[leg.name], leg.held) + part.to(group.dtype) if short else part
                    holders.setdefault(leg.name, []).append((value, leg.held))
            for name, parts in holders.items():
                merge_into(shards.writable(name), parts)

    def _room(self, routes: Routes) -> list[Tensor]:
        return [torch.empty(box.shape, dtype=self._types[box.name], device=self._device) for box in routes.boxes]

    def _outgoing(self, shards: Mapping[str, Tensor], group: Group, rounded: bool) -> tuple[Tensor, ...]:
        kind = self._travelling(group.dtype) if rounded else group.dtype
        return tuple(self._pack(legs, partial(_of_shard, shards), kind) for legs in group.outgoing)

    def _pack(self, legs: Sequence[Leg], read: partial[Tensor], kind: torch.dtype) -> Tensor:
        if not legs:
            return torch.empty(0, dtype=kind, device=self._device)
        parts = [read(leg).reshape(-1) for leg in legs]
        return torch.cat(parts if parts[0].dtype == kind else [part.to(kind) for part in parts])

    def _travelling(self, dtype: torch.dtype) -> torch.dtype:
        return self._wire if self._wire is not None and self._is_short(dtype) else dtype

    def _is_short(self, dtype: torch.dtype) -> bool:
        """Whether numbers of a type travel in a shorter one."""
        return self._wire is not None and dtype.is_floating_point and dtype.itemsize > self._wire.itemsize


def _take_in(values: Sequence[Tensor], group: Group, reply: Sequence[Tensor]) -> None:
    for legs, flat in zip(group.incoming, reply, strict=True):
        for leg, part in zip(legs, _unpack(flat, legs), strict=True):
            rows_of(values[leg.box], leg).copy_(part)


def _of_shard(shards: Mapping[str, Tensor], leg: Leg) -> Tensor:
    return view_slice(shards[leg.name], leg.held)


def _of_box(values: Sequence[Tensor], leg: Leg) -> Tensor:
    return rows_of(values[leg.box], leg)


def _change(values: Sequence[Tensor], began: Sequence[Tensor], leg: Leg) -> Tensor:
    value = _of_box(values, leg)
    return value - rows_of(began[leg.box], leg).to(value.dtype)


def _unpack(flat: Tensor, legs: Sequence[Leg]) -> list[Tensor]:
    pieces = flat.split([leg.size for leg in legs]) if legs else ()
    return [piece.view(leg.shape) for leg, piece in zip(legs, pieces, strict=True)]


def _size(legs: Sequence[Leg]) -> int:
    return sum(leg.size for leg in legs)
