"""The base class of the laws: which worker holds which units of an axis in a round, and what follows from that."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from isthmus.errors import InvalidInput
from isthmus.partitions.partition import Indices, Partition, random_partition
from isthmus.randomness import generator

Scenarios = Mapping[str, NDArray[Any]]
_LOOKED_AT = 64  # rounds in which a law that repeats itself must do so twice to be noticed
_COUNTED = 1024  # (round, worker) pairs that stand for all where it does not


@dataclass(frozen=True)
class Axis:
    """Units that are dealt together.

    Attributes:
        name: different axes are dealt independently, or as the law says.
        size: number of units d.
        colour: axes that share a parameter have different colours 0, 1, ...
        least: units that a worker must be dealt (experts, of which a router takes so many).
        kind: what its units are (``hidden``, ``channel``, ``head``, ``ffn``, ``expert``, ``stream``, ``block``); ""
            where nobody says.
    """

    name: str
    size: int
    colour: int = 0
    least: int = 1
    kind: str = ""

    def generator(self, seed: int, round: int = 0) -> np.random.Generator:
        """Return the generator of one round's draw: its key is the run's seed, the axis's name and the round."""
        return generator(seed, f"partition/axis/{self.name}", round)


@dataclass(frozen=True)
class Traits:
    """What of a network says how it is best dealt; of its axes those that are cut.

    Attributes:
        kinds: of the axes, by name.
        joined: the axes whose weights add to a residual stream, kept whole, that another one's weights are joined to.
        statistics: those of them whose units, or the stream's, a norm takes running statistics of.
        blocks: for every axis of residual blocks their number.
    """

    kinds: Mapping[str, str]
    joined: tuple[str, ...] = ()
    statistics: frozenset[str] = frozenset()
    blocks: Mapping[str, int] = field(default_factory=dict)

    def without(self, kinds: Collection[str]) -> Traits:
        """Return the same without axes of some kinds, which are dealt otherwise."""
        names = {name for name, kind in self.kinds.items() if kind not in kinds}
        return self.only(names)

    def of(self, kind: str) -> Traits:
        """Return the same of the axes of one kind."""
        return self.only({name for name, own in self.kinds.items() if own == kind})

    def only(self, names: Collection[str]) -> Traits:
        """Return the same of some axes alone; who is joined to others stays so."""
        return Traits(
            {name: kind for name, kind in self.kinds.items() if name in names},
            tuple(name for name in self.joined if name in names),
            frozenset(name for name in self.statistics if name in names),
            {name: count for name, count in self.blocks.items() if name in names},
        )


class Law(ABC):
    """How the units of the axes are dealt to the workers, round by round.

    A law of one's own is a frozen dataclass with the method :meth:`units`; all the rest has a default that goes by what
    this method returns. It depends on its arguments alone, so that every worker derives the same by itself.

    Attributes:
        name: what :func:`law_of` takes it by; ``MODULE:CLASS`` unless it is in the registry.
        label, meaning: what pictures and pages call it, and one sentence on what it does (the docstring's first line).
        zero_cross_blocks: whether entries that no worker holds in round 0 start at zero.
        few_units: whether an axis may have fewer units than there are workers.
        by_row: whether a column counts, in the merged network, as often as it is held by those that hold the row (else
            by all).
    """

    name: ClassVar[str]
    label: ClassVar[str]
    meaning: ClassVar[str]
    zero_cross_blocks: ClassVar[bool] = False
    few_units: ClassVar[bool] = False
    by_row: ClassVar[bool] = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = {"name": f"{cls.__module__}:{cls.__qualname__}", "label": cls.__name__}
        own["meaning"] = (inspect.getdoc(cls) or cls.__name__).partition("\n")[0].rstrip(".")
        for key, value in own.items():
            if key not in cls.__dict__:
                setattr(cls, key, value)

    @abstractmethod
    def units(self, axis: Axis, workers: int, seed: int, round: int) -> Sequence[Indices]:
        """Return the units 0 .. size - 1 of an axis that each worker holds in a round, in any order."""

    def check(self, workers: int) -> None:  # noqa: B027  a law for any number of workers has nothing to refuse
        """Refuse a number of workers that the law is not made for; by default none.

        Raises:
            InvalidInput: it does not fit.
        """

    def among(self, workers: Sequence[int]) -> Law:
        """Return the law by which units are dealt to some of the workers, when others are lost; by default the same.

        Args:
            workers: the numbers that they were started with, in their order now.
        """
        return self

    @property
    def measures(self) -> bool:
        """Whether it is yet to be told how fast the workers are; by default it does not ask."""
        return False

    def measured(self, capacities: Sequence[float]) -> Law:
        """Return the law for workers of these capacities, where it asks for them."""
        return self

    @property
    def chooses(self) -> bool:
        """Whether it is yet to be told what the network looks like; by default it does not ask."""
        return False

    def chosen(self, traits: Traits) -> tuple[Law, str]:
        """Return the law for a network, and why it is that in one line; by default it is this one, for no reason."""
        return self, ""

    def too_few(self, axis: Axis, workers: int, what: str = "units") -> str | None:
        """Return why an axis has too few units to be dealt, unless the law deals one unit to several; None if not."""
        if self.few_units or axis.size >= workers * axis.least:
            return None
        each = f" with {axis.least} each" if axis.least > 1 else ""
        return f"{axis.size} {what}, too few for {workers} workers{each}"

    def check_units(self, axis: Axis, workers: int, what: str = "units") -> None:
        """Refuse an axis with too few units.

        Raises:
            InvalidInput: too few.
        """
        problem = self.too_few(axis, workers, what)
        if problem is not None:
            raise self.refusal(axis.name, problem)

    def refusal(self, axis: str, problem: str) -> InvalidInput:
        """Return the refusal of an axis by its name, from what :meth:`too_few` says of it."""
        remedy = "give a smaller one" if self.few_units else "use fewer workers, or law='overlapping'"
        return InvalidInput(f"axis {axis!r} has {problem}: {remedy}")

    def period(self, axes: Sequence[Axis], workers: int, seed: int) -> int | None:
        """Return after how many rounds everything is dealt as before; None if never. By default it is looked for."""
        rounds = [self._masks(axes, workers, seed, number) for number in range(_LOOKED_AT)]
        periods = (p for p in range(1, _LOOKED_AT // 2 + 1) if all(map(np.array_equal, rounds, rounds[p:])))
        found = next(periods, None)
        if found is None:
            return None
        later = (int(number) for number in generator(seed, "partition/period").integers(2**20, size=16))
        same = (np.array_equal(self._masks(axes, workers, seed, r), rounds[r % found]) for r in later)
        return found if all(same) else None

    def scenarios(self, axes: Sequence[Axis], workers: int, seed: int) -> Scenarios:
        """Return what a worker may hold: for each axis [S, d], or [S, 1] where all units are alike.

        Row s holds the chance of every unit in scenario s. The S scenarios are equally likely and the same for all
        axes; within one, units are held independently. So the chance of column j given row i is
        sum_s P_s(i) P_s(j) / sum_s P_s(i). By default a scenario is what one worker holds in one round, over one period
        or over many rounds.
        """
        period = self.period(axes, workers, seed)
        count = max(1, _COUNTED // workers)
        sampled = generator(seed, "partition/scenarios").integers(2**20, size=count)
        rounds = sampled.tolist() if period is None else range(period)
        return self.counted(axes, workers, seed, rounds)

    def counted(self, axes: Sequence[Axis], workers: int, seed: int, rounds: Iterable[int]) -> Scenarios:
        """Return one scenario for each worker in each of the rounds: what it holds."""
        masks = np.concatenate([self._masks(axes, workers, seed, number) for number in rounds])
        ends = np.cumsum([axis.size for axis in axes])[:-1]
        return dict(zip([axis.name for axis in axes], np.split(masks, ends, axis=1), strict=True))

    def record(self) -> dict[str, Any]:
        """Return the arguments of :func:`law_of` that make this law again, as plain JSON."""
        own: dict[str, Any] = {}
        if is_dataclass(self):
            own = {each.name: getattr(self, each.name) for each in fields(self)}
        return {"law": self.name} | {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}

    def deal(self, axis: Axis, workers: int, seed: int, round: int = 0) -> tuple[Indices, ...]:
        """Return :meth:`units` checked and sorted: one int64 array a worker.

        Raises:
            InvalidInput: too few units, or units that are no such: the wrong number of sets, a worker without any, a
                unit held twice by one worker or outside the axis.
        """
        self.check_units(axis, workers)
        dealt = tuple(np.sort(np.asarray(units, np.int64)) for units in self.units(axis, workers, seed, round))
        if len(dealt) != workers:
            raise InvalidInput(f"law {self.name!r} must deal to {workers} workers, got {len(dealt)} sets of units")
        for worker, units in enumerate(dealt):
            if len(units) < axis.least or units[0] < 0 or units[-1] >= axis.size or np.any(units[1:] == units[:-1]):
                least = "one" if axis.least == 1 else axis.least
                raise InvalidInput(
                    f"law {self.name!r} must give worker {worker} different units of 0..{axis.size - 1} and at least "
                    f"{least}, got {units.tolist() if len(units) < 9 else f'{len(units)} units'}"
                )
        return dealt

    def _masks(self, axes: Sequence[Axis], workers: int, seed: int, round: int) -> NDArray[np.bool_]:
        """Return what every worker holds in a round, the axes side by side."""
        masks = np.zeros((workers, sum(axis.size for axis in axes)), np.bool_)
        first = 0
        for axis in axes:
            for row, units in zip(masks, self.deal(axis, workers, seed, round), strict=True):
                row[first + units] = True
            first += axis.size
        return masks


@lru_cache(maxsize=256)
def first_partition(axis: Axis, workers: int, seed: int) -> Partition:
    """Return the random partition of round 0, for the laws whose pieces stay; drawn once, as they ask every round."""
    return random_partition(axis.size, workers, axis.generator(seed))


def alike(axes: Sequence[Axis], workers: int) -> Scenarios:
    """Return the one scenario in which every worker holds every unit with the same chance 1/n, the axes apart."""
    return {axis.name: np.full((1, 1), 1.0 / workers) for axis in axes}
