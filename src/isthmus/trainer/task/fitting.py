"""How wide a worker's body may be, where its last layer is another than the network's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from isthmus.errors import InvalidInput
from isthmus.nets import Coupling, NetPartition
from isthmus.nets.coupling import Axis
from isthmus.partitions import Block, Indices


def class_axis(coupling: Coupling, strategy: str) -> Axis:
    """Return the axis of a network's classes.

    Args:
        coupling: of the network.
        strategy: the name of that which asks.

    Raises:
        InvalidInput: the trace does not find it; says why.
    """
    last = coupling.last
    if last is None or last.axis is None:
        why = "it was not looked for" if last is None else last.problem
        raise InvalidInput(f"strategy {strategy!r} needs a network whose last layer has a row a class: {why}")
    return last.axis


def widest(partition: NetPartition) -> dict[str, Indices]:
    """Return for every cut axis the units of the worker that holds most of it, the core included."""
    return {name: max(sets, key=len) for name, sets in partition.held.items()}


@dataclass(frozen=True, eq=False)
class Fitting:
    """Bodies of a network, as wide as is wanted or as fits.

    Attributes:
        coupling: of the network.
        workers: number of workers.
        seed: of the run.
        strategy: the name of that which asks.

    Raises:
        InvalidInput: a network whose last layer the trace does not find.
    """

    coupling: Coupling
    workers: int
    seed: int
    strategy: str

    def __post_init__(self) -> None:
        class_axis(self.coupling, self.strategy)

    @property
    def classes(self) -> int:
        """V."""
        return class_axis(self.coupling, self.strategy).size

    @cached_property
    def narrow(self) -> dict[str, Indices]:
        """The units that the narrow network has."""
        return {} if self._partition is None else widest(self._partition)

    @cached_property
    def limit(self) -> int:
        """How many parameters the narrow network has."""
        return self.parameters(self.narrow, self.classes)

    @cached_property
    def features(self) -> int:
        """How many numbers a row of the narrow network's last layer has."""
        member = next(each for each in class_axis(self.coupling, self.strategy).members
                      if each.dim == 0 and len(self.coupling.entries[each.name].shape) > 1)  # fmt: skip
        kept = self.coupling.index_map(self.narrow)[member.name][1]
        return self.coupling.entries[member.name].shape[1] if kept is None else len(kept)

    def parameters(self, hidden: Mapping[str, Indices], rows: int) -> int:
        """Return how many parameters a worker with some hidden units and rows of the last layer holds."""
        name = class_axis(self.coupling, self.strategy).name
        return self.coupling.sizes({**hidden, name: np.arange(rows)})["parameters"]

    def body(self, share: float, seat: int = 0) -> dict[str, Indices]:
        """Return a share of the units of every hidden axis: first the worker's own block, then those after it."""
        if self._partition is None:
            return {}
        found = {}
        for name, sets in self._partition.held.items():
            order = np.concatenate([sets[(seat + step) % self.workers] for step in range(self.workers)])
            found[name] = np.sort(order[: max(1, round(share * len(order)))])
        return found

    def share(self, rows: int, more: int = 0) -> float:
        """Return the largest share of the hidden units with which a worker has no more parameters than under narrow.

        Args:
            rows: of its last layer.
            more: parameters that it has besides.

        Raises:
            InvalidInput: even the least body is too large.
        """
        axes = () if self._partition is None else self._partition.held.values()
        size = max((sum(map(len, sets)) for sets in axes), default=1)
        units = _most(size, lambda each: self.parameters(self.body(each / size), rows) + more <= self.limit)
        if units == 0:
            raise InvalidInput(
                f"strategy {self.strategy!r} cannot have as few parameters as narrow has here, {self.limit}: its last "
                f"layer alone is too large; give a smaller one, or a `width`"
            )
        return units / size

    def rows(self, hidden: Mapping[str, Indices], more: Callable[[int], int] = lambda rows: 0) -> int:
        """Return the most rows of the last layer with which a worker has no more parameters than under narrow.

        Args:
            hidden: the units of its body.
            more: returns how many parameters it has besides, with so many rows.

        Raises:
            InvalidInput: even two are too many.
        """
        found = _most(self.classes, lambda rows: self.parameters(hidden, rows) + more(rows) <= self.limit)
        if found < 2:
            raise InvalidInput(
                f"strategy {self.strategy!r} cannot have as few parameters as narrow has here, {self.limit}: a body "
                "of this `width` alone is too large"
            )
        return found

    @cached_property
    def _partition(self) -> NetPartition | None:
        if not self.coupling.cut_axes:
            return None
        return self.coupling.partition(self.workers, self.seed, 0, Block())


def class_numbers(targets: Any, classes: int, strategy: str) -> Tensor:
    """Return targets that are class numbers.

    Raises:
        InvalidInput: they are not.
    """
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.dtype == torch.bool:
        kind = str(targets.dtype) if isinstance(targets, Tensor) else type(targets).__name__
        raise InvalidInput(f"strategy {strategy!r} needs one class number a target, got {kind}")
    if targets.numel() and not targets.is_meta and int(targets.max()) >= classes:
        raise InvalidInput(f"a target is {int(targets.max())}, but the network has {classes} classes")
    return targets


def _most(upper: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number from 1 to ``upper`` that fits, as do all below it; 0 if none does."""
    least, most = 0, upper
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least
