"""Who sends which rows of what to whom: arithmetic on index sets alone, the same on every worker.

A worker asks for *boxes*, products of index sets of one tensor. The rows of a box are sorted and a home's rows follow
one another, so what one home has of a box is a run of its rows: a *leg* of its way. A worker works out the legs that
begin or end at itself, and no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from isthmus.nets.pieces.ownership import Held
from isthmus.trainer.store.homes import Homes

AT_ONCE = 8 << 20  # bytes of a worker's boxes that travel together; a tensor that alone is more travels alone


@dataclass(frozen=True, eq=False)
class Box:
    """A part of one tensor.

    Attributes:
        name: of the tensor.
        held: the sorted indices of every dimension, None for all of it.
        whole: shape of the tensor.
    """

    name: str
    held: Held
    whole: tuple[int, ...]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(
            size if indices is None else len(indices) for size, indices in zip(self.whole, self.held, strict=True)
        )

    @cached_property
    def size(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)

    @cached_property
    def rest(self) -> tuple[Tensor | None, ...]:
        """The indices of all dimensions but the first, ready to select by."""
        return tuple(None if indices is None else torch.tensor(indices) for indices in self.held[1:])


class Leg(NamedTuple):
    """What one home has of one box: plain and quickly made, as there are many.

    Attributes:
        box: number of the box among those of its worker.
        name: of the tensor.
        rows: of the box, from and to.
        held: the indices of every dimension in the home's shard.
        shape: of this part.
        size: how many numbers.
    """

    box: int
    name: str
    rows: tuple[int, int]
    held: Held
    shape: tuple[int, ...]
    size: int


def legs(boxes: Sequence[Box], home: int, homes: Homes) -> list[Leg]:
    """Return what a home has of some worker's boxes, in their order; boxes of which it has nothing are left out."""
    found = []
    for number, box in enumerate(boxes):
        start, stop = homes.rows(box.name, home)
        if start == stop or not box.size:
            continue
        if not box.held:  # a tensor without dimensions
            found.append(Leg(number, box.name, (0, 1), (), (), 1))
            continue
        own, here = box.held[0], None
        if own is None:
            first, last = start, stop
        else:
            first, last = map(int, np.searchsorted(own, (start, stop)))
            if first == last:
                continue
            if last - first < stop - start:
                here = torch.from_numpy(np.asarray(own[first:last]) - start)
        shape = (last - first, *box.shape[1:])
        size = box.size // box.shape[0] * (last - first)
        found.append(Leg(number, box.name, (first, last), (here, *box.rest), shape, size))
    return found


@dataclass(frozen=True, eq=False)
class Group:
    """Tensors of one type of number that travel in one exchange.

    Attributes:
        dtype: of the tensors.
        outgoing: of this home, the legs to every worker.
        incoming: of this worker, the legs from every home.
    """

    dtype: torch.dtype
    outgoing: tuple[list[Leg], ...]
    incoming: tuple[list[Leg], ...]


class Changes(NamedTuple):
    """What of a home's rows changes when the boxes of a group come home, each entry once or little more often.

    Attributes:
        dtype: of the tensors.
        told: what another worker has to be told to know it.
        known: what it knows, as it comes from it alone.
    """

    dtype: torch.dtype
    told: list[Leg]
    known: list[Leg]


class Routes:
    """What one worker sends and receives when every worker's boxes come from the homes, or go back to them.

    Attributes:
        homes: of the tensors.
        boxes: of this worker.
        groups: what travels together; as many on every worker.
    """

    def __init__(
        self, homes: Homes, types: Mapping[str, torch.dtype], boxes: Sequence[Sequence[Box]], here: int
    ) -> None:
        self.homes = homes
        self.boxes = boxes[here]
        self._all = boxes
        self._together = in_groups(_most(types, boxes), types)
        outgoing = [_by_name(legs(theirs, here, homes)) for theirs in boxes]
        incoming = [_by_name(legs(boxes[here], home, homes)) for home in range(homes.workers)]
        self.groups = [
            Group(dtype, *(tuple(_of(found, names) for found in way) for way in (outgoing, incoming)))
            for dtype, names in self._together
        ]
        self._homes = {here: [(group.dtype, group.outgoing) for group in self.groups]}
        self._changes: dict[tuple[int, int | None], list[Changes]] = {}

    def changes(self, home: int, keeper: int | None) -> list[Changes]:
        """Return, for every group, what changes at a home, and what of it a worker knows by itself (None: nothing)."""
        key = home, keeper
        if key not in self._changes:
            self._changes[key] = [Changes(dtype, *_told(legs, keeper)) for dtype, legs in self.at(home)]
        return self._changes[key]

    def at(self, home: int) -> list[tuple[torch.dtype, tuple[list[Leg], ...]]]:
        """Return, for every group, the legs between any home and every worker."""
        if home not in self._homes:
            found = [_by_name(legs(theirs, home, self.homes)) for theirs in self._all]
            self._homes[home] = [(dtype, tuple(_of(each, names) for each in found)) for dtype, names in self._together]
        return self._homes[home]


def _by_name(found: list[Leg]) -> dict[str, list[Leg]]:
    named: dict[str, list[Leg]] = {}
    for leg in found:
        named.setdefault(leg.name, []).append(leg)
    return named


def _of(found: Mapping[str, list[Leg]], names: Sequence[str]) -> list[Leg]:
    return [leg for name in names for leg in found.get(name, ())]


def in_groups(sizes: Mapping[str, int], types: Mapping[str, torch.dtype]) -> list[tuple[torch.dtype, list[str]]]:
    """Return which tensors travel together: those of one type, in parts of at most ``AT_ONCE`` bytes or one tensor.

    Args:
        sizes: bytes of each; those of none do not travel.
        types: of all tensors, in their order.
    """
    found: list[tuple[torch.dtype, list[str]]] = []
    for dtype in dict.fromkeys(types.values()):
        full = AT_ONCE + 1
        for name in (name for name in types if types[name] == dtype and sizes.get(name)):
            if full + sizes[name] > AT_ONCE:
                found.append((dtype, []))
                full = 0
            found[-1][1].append(name)
            full += sizes[name]
    return found


def _most(types: Mapping[str, torch.dtype], boxes: Sequence[Sequence[Box]]) -> dict[str, int]:
    """Return the bytes of every tensor in the boxes of the worker that has most of it."""
    most: dict[str, int] = {}
    for theirs in boxes:
        own: dict[str, int] = {}
        for box in theirs:
            own[box.name] = own.get(box.name, 0) + box.size * types[box.name].itemsize
        for name, size in own.items():
            most[name] = max(size, most.get(name, 0))
    return most


def rows_of(value: Tensor, leg: Leg) -> Tensor:
    """Return the rows of a box's values that are a leg."""
    return value[leg.rows[0] : leg.rows[1]] if value.dim() else value


def _told(legs: Sequence[Sequence[Leg]], keeper: int | None) -> tuple[list[Leg], list[Leg]]:
    """Return what of some workers' legs one of them has to be told, and what comes from it alone."""
    by_name: dict[str, list[tuple[int, Leg]]] = {}
    for worker, its in enumerate(legs):
        for leg in its:
            by_name.setdefault(leg.name, []).append((worker, leg))
    told: list[Leg] = []
    known: list[Leg] = []
    for named in by_name.values():
        others = [leg for worker, leg in named if worker != keeper]
        rest: dict[tuple[bytes | None, ...], Leg] = {}
        for worker, leg in named:
            if worker == keeper and all(_apart(leg.held, other.held) for other in others):
                known.append(leg)
            else:
                rest.setdefault(_mark(leg.held), leg)
        whole = next((leg for mark, leg in rest.items() if all(part is None for part in mark)), None)
        told += list(rest.values()) if whole is None else [whole]
    return told, known


def _mark(held: Held) -> tuple[bytes | None, ...]:
    return tuple(None if indices is None else np.asarray(indices).tobytes() for indices in held)


def _apart(one: Held, other: Held) -> bool:
    """Whether two boxes have no entry in common."""
    return any(
        a is not None and b is not None and not np.isin(np.asarray(a), np.asarray(b), assume_unique=True).any()
        for a, b in zip(one, other, strict=True)
    )
