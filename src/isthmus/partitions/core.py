"""A core of units that all workers hold, under any law."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from isthmus.errors import InvalidInput, check_number
from isthmus.partitions.law import Axis, Law, Scenarios, Traits
from isthmus.partitions.partition import Indices
from isthmus.randomness import generator

_BESIDE = "units beside its core"


@dataclass(frozen=True)
class Core(Law):
    """Some units of every axis are held by all workers for the whole run; a law deals the others.

    Args:
        law: deals the units that are not of the core.
        fraction: of the units of every axis that are, in [0, 1].

    Raises:
        InvalidInput: a fraction out of range, or a law that has a core already.
    """

    law: Law
    fraction: float

    def __post_init__(self) -> None:
        check_number("core", self.fraction, at_least=0.0, at_most=1.0)
        if isinstance(self.law, Core):
            raise InvalidInput("`law` must have no core of its own, got one")
        for key in ("name", "meaning", "zero_cross_blocks", "few_units", "by_row"):
            object.__setattr__(self, key, getattr(self.law, key))
        object.__setattr__(self, "label", f"{self.law.label}, core {self.fraction:g}")

    def core(self, axis: Axis, seed: int) -> Indices:
        """Return the units of the core: drawn once a run, the same in all rounds."""
        return self._split(axis, seed)[0]

    def check(self, workers: int) -> None:
        """Refuse what the inner law refuses.

        Raises:
            InvalidInput: a number of workers that it is not made for.
        """
        self.law.check(workers)

    def among(self, workers: Sequence[int]) -> Core:
        """Return the law with the inner law's for those who are left."""
        return Core(self.law.among(workers), self.fraction)

    @property
    def measures(self) -> bool:
        """Whether the inner law does."""
        return self.law.measures

    def measured(self, capacities: Sequence[float]) -> Core:
        """Return the law with the inner law's for workers of these capacities."""
        return Core(self.law.measured(capacities), self.fraction)

    @property
    def chooses(self) -> bool:
        """Whether the inner law does."""
        return self.law.chooses

    def chosen(self, traits: Traits) -> tuple[Core, str]:
        """Return the law with the inner law's for a network, and why it is that."""
        law, why = self.law.chosen(traits)
        return Core(law, self.fraction), why

    def too_few(self, axis: Axis, workers: int, what: str = "units") -> str | None:
        """Return why the inner law cannot deal the units beside the core; None if it can."""
        smaller = replace(axis, size=axis.size - self._count(axis), least=self._least(axis))
        return self.law.too_few(smaller, workers, _BESIDE) if smaller.size else None

    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        """Return the core, and what the inner law deals of the rest."""
        core, rest = self._split(axis, seed)
        if not len(rest):
            return [core] * workers
        smaller = self._smaller(axis, rest)
        self.law.check_units(smaller, workers, _BESIDE)
        dealt = self.law.deal(smaller, workers, seed, round)
        return [np.concatenate([core, rest[units]]) for units in dealt]

    def deal(self, axis: Axis, workers: int, seed: int, round: int = 0) -> tuple[Indices, ...]:
        """Return :meth:`units`, sorted; the inner law's are checked.

        Raises:
            InvalidInput: what the inner law deals is refused.
        """
        return tuple(np.sort(units) for units in self.units(axis, workers, seed, round))

    def period(self, axes: Sequence[Axis], workers: int, seed: int) -> int | None:
        """Return that of the inner law."""
        inner = self._inner(axes, seed)
        return self.law.period(inner, workers, seed) if inner else 1

    def scenarios(self, axes: Sequence[Axis], workers: int, seed: int) -> Scenarios:
        """Return those of the inner law, with the core's units held in all of them."""
        inner = self._inner(axes, seed)
        found = self.law.scenarios(inner, workers, seed) if inner else {}
        count, kind = next(((len(rows), rows.dtype) for rows in found.values()), (1, np.dtype(np.float64)))
        result = {}
        for axis in axes:
            core, rest = self._split(axis, seed)
            if not len(core):
                result[axis.name] = found[axis.name]
                continue
            result[axis.name] = np.ones((count, axis.size if len(rest) else 1), kind)
            if len(rest):
                result[axis.name][:, rest] = found[axis.name]
        return result

    def record(self) -> dict[str, Any]:
        """Return the arguments of :func:`law_of`: those of the inner law, and ``core``."""
        return self.law.record() | {"core": self.fraction}

    def _split(self, axis: Axis, seed: int) -> tuple[Indices, Indices]:
        """Return the core's units and the others, both sorted."""
        count = self._count(axis)
        order = generator(seed, f"partition/core/{axis.name}").permutation(axis.size)
        return np.sort(order[:count]), np.sort(order[count:])

    def _inner(self, axes: Sequence[Axis], seed: int) -> list[Axis]:
        """Return what the inner law deals: every axis without its core, those that are all core left out."""
        pairs = [(axis, self._split(axis, seed)[1]) for axis in axes]
        return [self._smaller(axis, rest) for axis, rest in pairs if len(rest)]

    def _smaller(self, axis: Axis, rest: Indices) -> Axis:
        return replace(axis, size=len(rest), least=self._least(axis))

    def _count(self, axis: Axis) -> int:
        return round(self.fraction * axis.size)

    def _least(self, axis: Axis) -> int:
        return max(1, axis.least - self._count(axis))
