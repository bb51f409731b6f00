"""How likely a worker that holds a row of a weight holds the units that the row is summed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.nets import terms
from isthmus.nets.coupling import Axis, Coupling
from isthmus.nets.laws import NetPartition
from isthmus.nets.propagation import Dims
from isthmus.nets.terms import Atom

Shares = NDArray[np.float64]
_PIECES = ("fixed", "rotated", "block")  # a worker holds the same piece of every axis in all rounds, up to its number
_BY_ROW = ("block", "weighted")  # what a worker holds of one axis says what it holds of another


def atoms_of(axes: Mapping[str, Axis]) -> dict[Atom, str]:
    """Return the name of the axis of every atom."""
    pairs = ((name, terms.resolve(axis.atom)) for name, axis in axes.items() if axis.atom is not None)
    return {atom: name for name, atom in pairs if isinstance(atom, Atom)}


class Presence:
    """The share of workers that hold units, from one round's partition.

    Under the laws with pieces that stay together (fixed, rotated, block) it is counted. Under those that draw anew
    every unit is held with the mean probability; under rolling the pieces stay but their combinations change, so the
    axes count as independent. Under block and weighted the share is that among the workers which hold the row.
    """

    def __init__(self, coupling: Coupling, partition: NetPartition) -> None:
        self.law = partition.law
        self.axes = {axis.name: axis for axis in coupling.cut_axes}
        self.units = {name: self._units(axis, partition) for name, axis in self.axes.items()}
        missing = [coupling.missing_blocks(partition.of(worker)) for worker in range(partition.workers)]
        self.absent = [frozenset(name for block in blocks for name in block.state) for blocks in missing]

    def mean(self, axis: str) -> Shares:
        """Return the share of workers that hold each unit of an axis."""
        return np.mean(self.units[axis], axis=0, dtype=np.float64)

    def shares(
        self, name: str, dims: Dims, summed: Mapping[int, frozenset[Atom]], axes: Sequence[str]
    ) -> dict[str, Shares]:
        """Return s_ij = P(column j is held | row i is held) of a weight as one factor per axis.

        Args:
            name: of the parameter, which a worker may lack altogether.
            dims: the terms of the weight where it is used.
            summed: for each dimension that is summed over the atoms summed over.
            axes: names of the axes whose units make the columns, others count as held.
        """
        by_row = self.law in _BY_ROW
        of = atoms_of(self.axes)
        every = frozenset(of) if by_row else frozenset()
        given = [every - summed.get(dim, frozenset()) for dim in range(len(dims))]
        before = self._share(name, dims, given, of)
        result = {}
        for axis in axes:
            atom = next(atom for atom, key in of.items() if key == axis)
            given = [g | {atom} if atom in summed.get(dim, ()) else g for dim, g in enumerate(given)]
            now = self._share(name, dims, given, of)
            ratio = np.divide(now, before, out=np.ones(np.broadcast(now, before).shape), where=before > 0)
            result[axis] = np.where(now == 0, 1.0, ratio) if self.law == "block" else ratio
            before = now
        return result

    def _share(self, name: str, dims: Dims, atoms: Sequence[frozenset[Atom]], of: Mapping[Atom, str]) -> Shares:
        """Return the share of workers that hold the given atoms' part of every entry."""
        total = np.zeros((1,) * len(dims))
        for worker, absent in enumerate(self.absent):
            if name in absent and self.law in _BY_ROW:
                continue
            entry = np.ones((1,) * len(dims))
            for dim, term in enumerate(dims):
                inside = {leaf: self.units[of[leaf]][worker] for leaf in terms.leaves(term) if leaf in atoms[dim]}
                if inside:
                    values = terms.spread(term, inside)
                    entry = entry * values.reshape([-1 if d == dim else 1 for d in range(len(dims))])
            total = total + entry
        return total / len(self.absent)

    def _units(self, axis: Axis, partition: NetPartition) -> list[Shares]:
        """Return for every worker the probability that it holds each unit."""
        held = partition.held[axis.name]
        if partition.law == "weighted":
            return [np.full(axis.size, len(units) / axis.size) for units in held]
        masks = [np.isin(np.arange(axis.size), units).astype(np.float64) for units in held]
        if partition.law in _PIECES:
            return masks
        mean = np.mean(masks, axis=0)
        return [mean if partition.law == "rolling" else np.full(axis.size, mean.mean())] * len(masks)
