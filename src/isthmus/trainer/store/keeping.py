"""What moves between two rounds, and what may stay: entries that a worker holds on, and nobody else needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isthmus.nets import Coupling
from isthmus.nets.pieces.ownership import Held, IndexMap
from isthmus.partitions import Indices
from isthmus.trainer.store.routes import Box

Units = Mapping[str, Indices]


class Deal:
    """The units that every worker holds in one round, and what they mean for the tensors, worked out when asked for.

    Args:
        coupling: of the network.
        units: of every cut axis, what each worker holds; None of a worker that holds nothing.
    """

    def __init__(self, coupling: Coupling, units: Sequence[Units | None]) -> None:
        self.coupling = coupling
        self.units = units
        self._maps: dict[int, IndexMap] = {}
        self._boxes: dict[int, dict[str, Box]] = {}

    @property
    def full(self) -> bool:
        """Whether all workers hold something."""
        return all(held is not None for held in self.units)

    def map(self, worker: int) -> IndexMap:
        """Return a worker's index sets by tensor; None for all of a dimension, also where it is all by number."""
        if worker not in self._maps:
            held = self.units[worker]
            self._maps[worker] = {} if held is None else index_map(self.coupling, held)
        return self._maps[worker]

    def boxes(self, worker: int, names: Sequence[str]) -> list[Box]:
        """Return all that a worker holds of the named tensors."""
        if worker not in self._boxes:
            entries, mine = self.coupling.entries, self.map(worker)
            self._boxes[worker] = {name: Box(name, held, entries[name].shape) for name, held in mine.items()}
        found = self._boxes[worker]
        return [found[name] for name in names if name in found]

    def equals(self, other: Deal) -> bool:
        """Whether every worker holds the same units."""
        return all(
            a is b or (a is not None and b is not None and all(np.array_equal(a[axis], b[axis]) for axis in a))
            for a, b in zip(self.units, other.units, strict=True)
        )


@dataclass(frozen=True, eq=False)
class Step:
    """The way of all workers from one round to the next.

    Attributes:
        before, after: who holds what.
        moved: of every worker, by tensor that it holds alike in both rounds, the entries that travel, None for none;
            the other tensors travel whole.
    """

    before: Deal
    after: Deal
    moved: tuple[Mapping[str, Held | None], ...]

    @property
    def keeps(self) -> bool:
        """Whether anything stays with any worker."""
        return any(self.moved)

    def homeward(self, worker: int, names: Sequence[str]) -> list[Box]:
        """Return what a worker sends home when the first of the rounds is closed."""
        return self._boxes(self.before, worker, names)

    def outward(self, worker: int, names: Sequence[str]) -> list[Box]:
        """Return what a worker is sent when the second of the rounds is opened."""
        return self._boxes(self.after, worker, names)

    def kept(self, worker: int, names: Sequence[str]) -> list[Box]:
        """Return what stays: boxes without common entries that, with what travels, are all of the worker's part."""
        found = []
        for name, moved in self.moved[worker].items():
            if name in names:
                whole = self.before.map(worker)[name]
                shape = self.before.coupling.entries[name].shape
                found += [Box(name, part, shape) for part in rest_of(whole, moved, shape)]
        return found

    def _boxes(self, deal: Deal, worker: int, names: Sequence[str]) -> list[Box]:
        moved, found = self.moved[worker], []
        for box in deal.boxes(worker, names):
            if box.name not in moved:
                found.append(box)
            elif (part := moved[box.name]) is not None:
                found.append(Box(box.name, part, box.whole))
        return found


def step_between(before: Deal, after: Deal, trained: Sequence[str], frozen: Sequence[str] = ()) -> Step:
    """Return what moves from a round to the next, in both of which all workers take part.

    Args:
        before, after: the rounds.
        trained: tensors that change.
        frozen: tensors that travel and do not change: they stay wherever they are held alike.
    """
    workers = range(len(before.units))
    if any(_steady(before, after, worker) for worker in workers):
        shared = _shared(before, after)
        return Step(before, after, tuple(_moved(before, after, worker, trained, frozen, shared) for worker in workers))
    return Step(before, after, tuple(_at_rest(before, after, worker, frozen) if frozen else {} for worker in workers))


def index_map(coupling: Coupling, held: Units) -> dict[str, Held]:
    """Return a worker's index sets by tensor; None for all of a dimension, also where it is all by number."""
    return {
        name: tuple(
            None if indices is None or len(indices) == size else indices
            for indices, size in zip(each, coupling.entries[name].shape, strict=True)
        )
        for name, each in coupling.index_map(held).items()
    }


def same_indices(one: Held, other: Held) -> bool:
    """Whether two index sets of a tensor are the same in every dimension."""
    return all(
        (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


def rest_of(whole: Held, part: Held | None, shape: Sequence[int]) -> list[Held]:
    """Return boxes without common entries that, with a part of a box, are the box; all of it where the part is None."""
    if part is None:
        return [whole]
    found = []
    for dim, (all_of, some) in enumerate(zip(whole, part, strict=True)):
        if some is None:  # then the whole has all of this dimension too
            continue
        others = np.setdiff1d(np.arange(shape[dim]) if all_of is None else all_of, some, assume_unique=True)
        if len(others):
            found.append((*part[:dim], others, *whole[dim + 1 :]))
    return found


def places(whole: Held, part: Held) -> Held:
    """Return where the entries of a part of a box are in a tensor of the box's size."""
    return tuple(
        some if all_of is None or some is None else np.searchsorted(all_of, some)
        for all_of, some in zip(whole, part, strict=True)
    )


def _steady(before: Deal, after: Deal, worker: int) -> bool:
    """Whether a worker holds the same units of some axis in both rounds."""
    one, other = before.units[worker], after.units[worker]
    if one is None or other is None:
        return False
    return any(np.array_equal(one[axis], other[axis]) for axis in one.keys() & other.keys())


def _shared(before: Deal, after: Deal) -> dict[str, NDArray[np.bool_]]:
    """Return for every axis, by unit, whether more than one worker holds it in either round."""
    found = {}
    names = {name for deal in (before, after) for units in deal.units for name in units or ()}
    for axis in before.coupling.axes:
        counts = np.zeros(axis.size, np.int64)
        for deal in (before, after) if axis.name in names else ():
            everything = np.arange(axis.size)  # where the axis is left whole
            held = np.concatenate([units.get(axis.name, everything) for units in deal.units if units is not None])
            counts = np.maximum(counts, np.bincount(held, minlength=axis.size))
        found[axis.name] = counts > 1
    return found


def _at_rest(before: Deal, after: Deal, worker: int, names: Sequence[str]) -> dict[str, Held | None]:
    """Return those of some tensors that do not change which a worker holds alike."""
    mine, then = before.map(worker), after.map(worker)
    return {n: None for n in names if n in mine and n in then and same_indices(mine[n], then[n])}


def _moved(
    before: Deal,
    after: Deal,
    worker: int,
    trained: Sequence[str],
    frozen: Sequence[str],
    shared: Mapping[str, NDArray[np.bool_]],
) -> dict[str, Held | None]:
    units = before.units[worker]
    assert units is not None
    alone = len(before.units) == 1
    mine, then = before.map(worker), after.map(worker)
    common = index_map(before.coupling, {axis: held[shared[axis][held]] for axis, held in units.items()})
    found = _at_rest(before, after, worker, frozen)
    for name in trained:
        if name not in mine or name not in then or not same_indices(mine[name], then[name]):
            continue
        if alone or name not in common:
            found[name] = None
            continue
        held, part = mine[name], common[name]
        if any(indices is not None and not len(indices) for indices in part):
            found[name] = None
        elif not same_indices(part, held):
            found[name] = part
    return found
