"""Which worker holds which units of each axis this round, and what each law guarantees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from isthmus.errors import InvalidInput, check_choice, check_integer, check_number
from isthmus.partitions import LAWS, Indices, partition_at
from isthmus.randomness import generator

NET_LAWS = (*LAWS, "weighted", "rolling", "overlapping")


@dataclass(frozen=True)
class NetPartition:
    """The units of every cut axis that each worker holds.

    Attributes:
        workers: n.
        law, seed, round: what it was drawn from; every worker derives the same one.
        held: for each axis by name, one sorted array of units per worker.
    """

    workers: int
    law: str
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


@dataclass(frozen=True)
class Draw:
    """The arguments of a law, checked.

    Attributes:
        law: ``uniform`` a new permutation each round; ``fixed`` that of round 0; ``rotated`` its pieces passed on one
            worker a round; ``block`` as rotated, for a network whose cross-blocks are zero; ``weighted`` as uniform
            with shares in proportion to ``capacities``; ``rolling`` pieces in fixed rotation, the axes against each
            other, so that every entry between two axes is trained within ``n ** (colours - 1)`` rounds (n for a chain
            of axes); ``overlapping`` as uniform, then filled up to at least ``minimum`` units a worker.
        workers, seed, round: n, the run's seed, 0, 1, ...
        capacities: relative speed of each worker, for ``weighted``.
        core: fraction of every axis that all workers hold.
        minimum: units a worker holds at least, for ``overlapping``.
    """

    law: str
    workers: int
    seed: int
    round: int = 0
    capacities: tuple[float, ...] | None = None
    core: float = 0.0
    minimum: int = 1

    def __post_init__(self) -> None:
        check_choice("law", self.law, NET_LAWS)
        check_integer("workers", self.workers, at_least=1)
        check_integer("round", self.round, at_least=0)
        check_integer("minimum", self.minimum, at_least=1)
        check_number("core", self.core, at_least=0.0, at_most=1.0)
        if (self.law == "weighted") != (self.capacities is not None):
            raise InvalidInput("`capacities` must be given with law 'weighted' and only with it")
        if self.capacities is not None:
            if len(self.capacities) != self.workers:
                raise InvalidInput(f"`capacities` must name {self.workers} workers, got {len(self.capacities)}")
            for value in self.capacities:
                check_number("capacities", value, above=0.0)


def draw(request: Draw, name: str, units: int, colour: int = 0) -> tuple[Indices, ...]:
    """Return the units of one axis that each worker holds, one sorted array a worker.

    Args:
        request: law and its arguments.
        name: of the axis; different axes are independent.
        units: its size d.
        colour: for ``rolling``: axes that share a parameter have different colours.

    Raises:
        InvalidInput: fewer units than workers (except ``overlapping``).
    """
    purpose = f"axis/{name}"
    n = request.workers
    if request.law != "overlapping" and n > units - round(request.core * units) and request.core < 1.0:
        raise InvalidInput(
            f"axis {name!r} has {units} units, too few for {n} workers (core {request.core:g}): "
            "leave it out of `cut`, or use law='overlapping'"
        )
    if request.law == "weighted":
        return _weighted(request, purpose, units)
    if request.law == "overlapping":
        return _overlapping(request, purpose, units)
    if request.law == "rolling":
        pieces = partition_at("fixed", units, n, request.seed, purpose, 0, request.core)
        step = 0 if colour == 0 else request.round // n ** (colour - 1)
        shifted = pieces.rotated(step % n)
        return tuple(shifted.held(worker) for worker in range(n))
    partition = partition_at(request.law, units, n, request.seed, purpose, request.round, request.core)
    return tuple(partition.held(worker) for worker in range(n))


def colours(names: Sequence[str], neighbours: Mapping[str, set[str]]) -> dict[str, int]:
    """Return a colour per axis, different for axes that share a parameter; greedy, in the given order."""
    result: dict[str, int] = {}
    for name in names:
        taken = {result[other] for other in neighbours.get(name, ()) if other in result}
        result[name] = next(c for c in range(len(names) + 1) if c not in taken)
    return result


def shares(units: int, capacities: Sequence[float]) -> list[int]:
    """Return whole numbers in proportion to the capacities that sum to ``units``, each at least 1.

    >>> shares(10, [1.0, 1.0, 3.0])
    [2, 2, 6]
    """
    spare = units - len(capacities)
    ideal = np.asarray(capacities) / np.sum(capacities) * units - 1
    ideal = np.maximum(ideal, 0.0)
    ideal *= spare / ideal.sum() if ideal.sum() > 0 else 0.0
    counts = np.floor(ideal).astype(int)
    order = np.argsort(-(ideal - counts), kind="stable")
    counts[order[: spare - counts.sum()]] += 1
    return [int(count) + 1 for count in counts]


def _weighted(request: Draw, purpose: str, units: int) -> tuple[Indices, ...]:
    random = generator(request.seed, f"partition/{purpose}", request.round)
    shared = round(request.core * units)
    order = random.permutation(units)
    if shared == units:
        return tuple(np.sort(order) for _ in range(request.workers))
    sizes = shares(units - shared, request.capacities or ())
    pieces = np.split(order[shared:], np.cumsum(sizes)[:-1])
    return tuple(np.sort(np.concatenate([order[:shared], piece])) for piece in pieces)


def _overlapping(request: Draw, purpose: str, units: int) -> tuple[Indices, ...]:
    """Units are dealt in turn; who has fewer than the minimum takes more from all units, at random."""
    if request.minimum > units:
        raise InvalidInput(f"`minimum` must be at most the units of every cut axis, got {request.minimum} of {units}")
    random = generator(request.seed, f"partition/{purpose}", request.round)
    order = random.permutation(units)
    shared = round(request.core * units)
    core, rest = order[:shared], order[shared:]
    seats = random.permutation(request.workers)
    held = []
    for worker in range(request.workers):
        mine = np.concatenate([core, rest[seats[worker] :: request.workers]])
        missing = request.minimum - len(mine)
        if missing > 0:
            others = np.setdiff1d(np.arange(units), mine)
            mine = np.concatenate([mine, random.permutation(others)[:missing]])
        held.append(np.sort(mine).astype(np.int64))
    return tuple(held)
