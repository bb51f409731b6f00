"""Which worker holds which units of each axis of a network this round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

from isthmus import partitions
from isthmus.errors import InvalidInput, check_integer
from isthmus.nets.axes.choosing import left_whole, serving, to_deal
from isthmus.nets.axes.structure import Structure
from isthmus.nets.axes.traits import chosen
from isthmus.partitions import Indices, Law

_dealt: WeakKeyDictionary[Structure, tuple[partitions.Axis, ...]] = WeakKeyDictionary()  # asked for every round


@dataclass(frozen=True)
class NetPartition:
    """The units of every cut axis that each worker holds.

    Attributes:
        workers: n.
        law, seed, round: what it was drawn from; every worker derives the same one.
        held: for each axis by name, one sorted array of units per worker.
    """

    workers: int
    law: Law
    seed: int
    round: int
    held: Mapping[str, tuple[Indices, ...]] = field(repr=False)

    def of(self, worker: int) -> dict[str, Indices]:
        """Return the units of every axis that ``worker`` holds.

        Raises:
            InvalidInput: no such worker.
        """
        check_integer("worker", worker, at_least=0, at_most=self.workers - 1)
        return {name: sets[worker] for name, sets in self.held.items()}


@dataclass(frozen=True, eq=False)
class Given(Law):
    """The same sets of units in every round, given outright for each axis by name."""

    held: Mapping[str, Sequence[Indices]] = field(repr=False)

    def deal(self, axis: partitions.Axis, workers: int, seed: int, round: int = 0) -> tuple[Indices, ...]:
        """Return the sets of the axis as they are: here a worker may hold nothing."""
        return tuple(self.held[axis.name])

    def units(self, axis: partitions.Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        """Return the sets of the axis."""
        return self.held[axis.name]

    def period(self, axes: Sequence[partitions.Axis], workers: int, seed: int) -> int | None:
        """Return 1."""
        return 1


def partition(structure: Structure, workers: int, seed: int, round: int, law: Law) -> NetPartition:
    """Return which units of every cut axis each worker holds this round; the same for all who ask.

    Raises:
        InvalidInput: parameters that the law does not take, or no axis with units enough.
    """
    law, _ = chosen(structure, law)
    law.check(check_integer("workers", workers, at_least=1))
    if not structure.cut_axes:
        raise InvalidInput("no axis of the network is cut by default: print the coupling, name some with `cut`")
    served = serving(structure, workers, law)
    if not served.cut_axes:
        largest = max(structure.cut_axes, key=lambda axis: axis.size).name
        others = ", and no other axis has more" if len(structure.cut_axes) > 1 else ""
        raise law.refusal(largest, f"{left_whole(served)[largest]}{others}")
    held = {axis.name: law.deal(axis, workers, seed, round) for axis in dealt_axes(served)}
    return NetPartition(workers, law, seed, round, held)


def dealt_axes(structure: Structure) -> tuple[partitions.Axis, ...]:
    """Return the axes that are cut as a law sees them: name, number of units and colour."""
    if structure not in _dealt:
        colour = colours([axis.name for axis in structure.cut_axes], _neighbours(structure))
        _dealt[structure] = tuple(to_deal(axis, colour[axis.name]) for axis in structure.cut_axes)
    return _dealt[structure]


def given(held: Mapping[str, Sequence[Indices]]) -> NetPartition:
    """Return a partition that holds what is given: for each axis by name, one array of units a worker."""
    sets = {name: tuple(units) for name, units in held.items()}
    return NetPartition(len(next(iter(sets.values()))), Given(sets), 0, 0, sets)


def colours(names: Sequence[str], neighbours: Mapping[str, set[str]]) -> dict[str, int]:
    """Return a colour per axis, different for axes that share a parameter; greedy, in the given order."""
    result: dict[str, int] = {}
    for name in names:
        taken = {result[other] for other in neighbours.get(name, ()) if other in result}
        result[name] = next(c for c in range(len(names) + 1) if c not in taken)
    return result


def _neighbours(structure: Structure) -> dict[str, set[str]]:
    """Return for each cut axis those it shares a parameter with."""
    by_tensor: dict[str, set[str]] = {}
    for axis in structure.cut_axes:
        for member in axis.members:
            if structure.entries[member.name].is_parameter:
                by_tensor.setdefault(member.name, set()).add(axis.name)
    result: dict[str, set[str]] = {}
    for names in by_tensor.values():
        for name in names:
            result.setdefault(name, set()).update(names - {name})
    return result
