"""Which worker owns which classes, and what stands with each for all the others: the cut of a network's outputs.

Classes are put into groups of equal size; a worker owns one group, or ``owners`` of them that follow each other. What
it does with a sample of a class that it does not own is said by the *gate*, one class a way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from isthmus.errors import InvalidInput, check_integer
from isthmus.partitions.partition import Indices
from isthmus.randomness import generator

IGNORED = -100  # the target of a sample that does not count; torch's own ``ignore_index``


@dataclass(frozen=True)
class Gate:
    """What stands for the classes that a worker does not own.

    Class attributes:
        name: in commands and records.
        normalized: whether a piece's scores are the logarithms of probabilities, which sum to 1 with its gate's.
    """

    name: ClassVar[str]
    normalized: ClassVar[bool] = True

    def check(self, workers: int, owners: int) -> None:
        """Refuse numbers that do not fit.

        Raises:
            InvalidInput: they do not.
        """
        check_integer("owners", owners, at_least=1, at_most=self.experts(workers))

    def check_labels(self, several: bool) -> None:
        """Refuse data that do not go with it: one class a sample, or several labels.

        Raises:
            InvalidInput: they do not.
        """
        if several and self.normalized:
            raise InvalidInput(
                "targets with several labels a sample need `gate` 'none': each class is there or not by itself, "
                f"and no unit stands for the others; got gate {self.name!r}"
            )
        if not several and not self.normalized:
            normal = " or ".join(repr(name) for name, made in GATES.items() if made(0).normalized)
            raise InvalidInput(f"`gate` must be {normal} where every sample has one class, got {self.name!r}")

    def experts(self, workers: int) -> int:
        """Return how many workers own classes: the first ones."""
        return workers

    def routed(self, worker: int, workers: int) -> bool:
        """Return whether samples of a worker's own classes are sent to it."""
        return True

    def units(self, foreign: int, worker: int, workers: int) -> int:
        """Return how many units stand for the ``foreign`` classes that a worker does not own."""
        raise NotImplementedError

    def unit(self, foreign: Indices, deal: ClassDeal, worker: int) -> Indices:
        """Return for each foreign class the unit that stands for it: 0, 1, ..., or :data:`IGNORED`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Other(Gate):
    """One unit stands for all foreign classes; or ``buckets`` units, over which they are spread by seed."""

    name: ClassVar[str] = "other"
    buckets: int = 1

    def units(self, foreign: int, worker: int, workers: int) -> int:
        """Return the buckets; none without foreign classes."""
        if self.buckets > max(1, foreign):
            raise InvalidInput(
                f"`foreign_buckets` must be at most the {foreign} classes that a worker does not own, "
                f"got {self.buckets}"
            )
        return self.buckets if foreign else 0

    def unit(self, foreign: Indices, deal: ClassDeal, worker: int) -> Indices:
        """Spread them evenly."""
        order = generator(deal.seed, "classes/buckets", worker=worker).permutation(len(foreign))
        return order % self.buckets


@dataclass(frozen=True)
class GateWorker(Gate):
    """The last worker learns which group a sample is of; the others learn the classes inside their own group.

    Reference:
        Goodman, "Classes for fast maximum entropy training" (ICASSP 2001).
    """

    name: ClassVar[str] = "worker"

    def check(self, workers: int, owners: int) -> None:
        """Refuse a run in which there is nothing to tell apart, or groups that two workers hold."""
        check_integer("workers", workers, at_least=3)
        if owners != 1:
            raise InvalidInput(f"`owners` must be 1 with gate 'worker', whose gate has one worker too, got {owners}")

    def experts(self, workers: int) -> int:
        """Return all but one."""
        return workers - 1

    def routed(self, worker: int, workers: int) -> bool:
        """Return whether it is no gate: that sees samples of all classes."""
        return worker < workers - 1

    def units(self, foreign: int, worker: int, workers: int) -> int:
        """Return a unit a group for the gate, none for the others."""
        return workers - 1 if worker == workers - 1 else 0

    def unit(self, foreign: Indices, deal: ClassDeal, worker: int) -> Indices:
        """Return the group of every class; to the others foreign classes do not count."""
        return deal.group[foreign] if worker == deal.workers - 1 else np.full(len(foreign), IGNORED)


@dataclass(frozen=True)
class NoGate(Gate):
    """Nothing: of several labels a sample each is there or not, whatever the others are."""

    name: ClassVar[str] = "none"
    normalized: ClassVar[bool] = False

    def routed(self, worker: int, workers: int) -> bool:
        """Return that none are: a label that is not there is seen on all samples."""
        return False

    def units(self, foreign: int, worker: int, workers: int) -> int:
        """Return 0."""
        return 0

    def unit(self, foreign: Indices, deal: ClassDeal, worker: int) -> Indices:
        """Foreign classes do not count."""
        return np.full(len(foreign), IGNORED)


GATES: dict[str, Callable[[int], Gate]] = {
    Other.name: lambda buckets: Other(max(1, buckets)),
    GateWorker.name: lambda buckets: GateWorker(),
    NoGate.name: lambda buckets: NoGate(),
}


@dataclass(frozen=True, eq=False)
class ClassDeal:
    """Who owns which classes.

    Attributes:
        group: [V] the group of every class, 0 .. experts - 1.
        workers: n.
        gate: what stands for the other classes.
        owners: workers that own each class.
        seed: of the run.

    Raises:
        InvalidInput: more workers than classes to deal, or numbers that the gate does not take.

    >>> deal = ClassDeal(np.array([0, 1, 0, 1, 2]), 3, Other())
    >>> [deal.owned(worker).tolist() for worker in range(3)], deal.targets(0).tolist()
    ([[0, 2], [1, 3], [4]], [0, 2, 1, 2, 2])
    """

    group: Indices
    workers: int
    gate: Gate
    owners: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        self.gate.check(self.workers, self.owners)
        for worker in range(self.workers):
            self.units(worker)

    @property
    def classes(self) -> int:
        """Number of classes V."""
        return len(self.group)

    @cached_property
    def _owned(self) -> list[Indices]:
        experts = self.gate.experts(self.workers)
        sets = [np.flatnonzero(self.group == group) for group in range(experts)]
        held = [[sets[(worker + step) % experts] for step in range(self.owners)] for worker in range(experts)]
        none = [np.empty(0, np.int64)] * (self.workers - experts)
        return [np.sort(np.concatenate(each)) for each in held] + none

    def owned(self, worker: int) -> Indices:
        """Return the classes that a worker owns, sorted; they are the first units of its last layer."""
        return self._owned[worker]

    def units(self, worker: int) -> int:
        """Return how many units of a worker's last layer stand for other classes; they come after its own."""
        return self.gate.units(self.classes - len(self.owned(worker)), worker, self.workers)

    def targets(self, worker: int) -> Indices:
        """Return [V] for every class the unit of a worker's last layer that is right for it, or :data:`IGNORED`."""
        own = self.owned(worker)
        found = np.empty(self.classes, np.int64)
        found[own] = np.arange(len(own))
        foreign = np.setdiff1d(np.arange(self.classes), own, assume_unique=True)
        unit = self.gate.unit(foreign, self, worker)
        found[foreign] = np.where(unit == IGNORED, IGNORED, unit + len(own))
        return found
