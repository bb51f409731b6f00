"""The evaluation scales entry by entry: the slow twins of what works with classes of units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.nets.axes import terms
from isthmus.nets.axes.evaluation import spread
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.terms import Atom
from isthmus.nets.coupling.coupling import Coupling
from isthmus.nets.pieces.laws import NetPartition
from isthmus.nets.pieces.pattern import Pattern
from isthmus.nets.scale.folding import Unfoldable, Use, _moved
from isthmus.nets.scale.presence import atoms_of
from isthmus.partitions import Core

Shares = NDArray[np.float64]
PIECES = ("fixed", "rotated", "block")
BY_ROW = ("block", "weighted")


class DensePresence:
    """By the law's name and this round's units, with an array of all entries for every worker."""

    def __init__(self, coupling: Coupling, partition: NetPartition) -> None:
        self.law, self.seed = partition.law, partition.seed
        self.axes = {axis.name: axis for axis in coupling.cut_axes}
        dealt = {axis.name: axis for axis in coupling.dealt_axes}
        self.units = {name: self._units(dealt[name], partition) for name in self.axes}
        missing = [coupling.missing_blocks(partition.of(worker)) for worker in range(partition.workers)]
        self.absent = [frozenset(name for block in blocks for name in block.state) for blocks in missing]

    def mean(self, axis: str) -> Shares:
        return np.mean(self.units[axis], axis=0, dtype=np.float64)

    def shares(
        self, name: str, dims: Dims, summed: Mapping[int, frozenset[Atom]], axes: Sequence[str]
    ) -> dict[str, Pattern]:
        by_row = self.law.name in BY_ROW
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
            wanted = np.where(now == 0, 1.0, ratio) if self.law.name == "block" else ratio
            result[axis] = Pattern.of(torch.from_numpy(wanted))
            before = now
        return result

    def _share(self, name: str, dims: Dims, atoms: Sequence[frozenset[Atom]], of: Mapping[Atom, str]) -> Shares:
        total = np.zeros((1,) * len(dims))
        for worker, absent in enumerate(self.absent):
            if name in absent and self.law.name == "block":
                continue
            entry = np.ones((1,) * len(dims))
            for dim, term in enumerate(dims):
                inside = {leaf: self.units[of[leaf]][worker] for leaf in terms.leaves(term) if leaf in atoms[dim]}
                if inside:
                    values = spread(term, inside)
                    entry = entry * values.reshape([-1 if d == dim else 1 for d in range(len(dims))])
            total = total + entry
        return total / len(self.absent)

    def _units(self, axis: object, partition: NetPartition) -> list[Shares]:
        held, size = partition.held[axis.name], axis.size  # type: ignore[attr-defined]
        masks = [np.isin(np.arange(size), units).astype(np.float64) for units in held]
        if self.law.name in PIECES:
            return masks
        core = self.law.core(axis, self.seed) if isinstance(self.law, Core) else np.empty(0, np.int64)  # type: ignore[arg-type]
        rest = np.setdiff1d(np.arange(size), core)
        result = []
        for mask in masks:
            chances = np.ones(size)
            chances[rest] = mask[rest].mean() if len(rest) else 1.0
            result.append(chances)
        return result if self.law.name == "weighted" else [np.mean(result, axis=0)] * len(masks)


def dense_fold(shape: Sequence[int], wanted: Sequence[tuple[Use, Pattern]]) -> Pattern:
    """With the index of every entry of the parameter where each use sees it."""
    result = np.full(int(np.prod(shape)), np.nan)
    for use, factors in wanted:
        entries = _moved(use, torch.arange(len(result)).reshape(tuple(shape))).numpy()
        values = np.broadcast_to(factors.tensor().numpy(), entries.shape).ravel()
        places = entries.ravel()
        known = ~np.isnan(result[places])
        clash = bool(np.any(known & (result[places] != values)))
        result[places] = values
        if clash or np.any(result[places] != values):
            raise Unfoldable("the weight is used more than once and needs different factors (tied)")
    return Pattern.of(torch.from_numpy(np.where(np.isnan(result), 1.0, result).reshape(shape)))
