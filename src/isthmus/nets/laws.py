"""Which worker holds which units of each axis of a network this round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from isthmus import partitions
from isthmus.errors import check_integer
from isthmus.partitions import Indices, Law


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
