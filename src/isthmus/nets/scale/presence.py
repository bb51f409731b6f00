"""How likely a worker that holds a row of a weight holds the units that the row is summed over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from isthmus.nets.axes import terms
from isthmus.nets.axes.choosing import holding
from isthmus.nets.axes.evaluation import spread
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.structure import Axis, Structure
from isthmus.nets.axes.terms import Atom
from isthmus.nets.pieces.laws import NetPartition, dealt_axes
from isthmus.nets.pieces.pattern import Labels, Pattern, distinct

Shares = NDArray[np.float64]


def atoms_of(axes: Mapping[str, Axis]) -> dict[Atom, str]:
    """Return the name of the axis of every atom."""
    pairs = ((name, terms.resolve(axis.atom)) for name, axis in axes.items() if axis.atom is not None)
    return {atom: name for name, atom in pairs if isinstance(atom, Atom)}


class Presence:
    """The share of workers that hold units, from the scenarios of a partition's law.

    Units with the same chances in all scenarios are one class: what is computed is as small as there are classes.
    """

    def __init__(self, coupling: Structure, partition: NetPartition) -> None:
        coupling = holding(coupling, partition.held)
        self.axes = {axis.name: axis for axis in coupling.cut_axes}
        self._law = partition.law
        found = self._law.scenarios(dealt_axes(coupling), partition.workers, partition.seed)
        self._units: dict[str, NDArray[np.generic]] = {}
        self._classes: dict[str, Labels] = {}
        for axis in self.axes.values():
            first, same = distinct(found[axis.name].T)
            self._units[axis.name] = found[axis.name][:, first]
            self._classes[axis.name] = np.broadcast_to(same, axis.size) if len(same) == 1 else same
        self._scenarios = len(next(iter(self._units.values()))) if self._units else 1
        self._by_row = self._law.by_row and self._scenarios > 1  # in a single scenario the axes are independent

    def mean(self, axis: str) -> Shares:
        """Return the share of workers that hold each unit of an axis."""
        return np.asarray(self._units[axis].mean(axis=0, dtype=np.float64))[self._classes[axis]]

    def shares(
        self, name: str, dims: Dims, summed: Mapping[int, frozenset[Atom]], axes: Sequence[str]
    ) -> dict[str, Pattern]:
        """Return s_ij = P(column j is held | row i is held) of a weight as one factor per axis.

        Args:
            name: of the parameter, which a worker may lack altogether.
            dims: the terms of the weight where it is used.
            summed: for each dimension that is summed over the atoms summed over.
            axes: names of the axes whose units make the columns, others count as held.
        """
        of = atoms_of(self.axes)
        atoms = {name: atom for atom, name in of.items()}
        small = {atom: Atom(self._units[axis].shape[1]) for atom, axis in of.items()}
        pairs = [self._reduced(term, of, small) for term in dims]
        rows = frozenset(of) if self._by_row else frozenset()
        given = [rows - summed.get(dim, frozenset()) for dim in range(len(dims))]
        held = self._of_blocks(name)
        before = self._share([term for term, _ in pairs], given, small, held)
        result = {}
        for axis in axes:
            given = [g | {atoms[axis]} if atoms[axis] in summed.get(dim, ()) else g for dim, g in enumerate(given)]
            now = self._share([term for term, _ in pairs], given, small, held)
            ratio = np.divide(now, before, out=np.ones(np.broadcast(now, before).shape), where=before > 0)
            never = self._law.zero_cross_blocks & (now == 0)  # those entries are zero, whatever their factor
            result[axis] = Pattern.compressed(np.where(never, 1.0, ratio), [labels for _, labels in pairs])
            before = now
        return result

    def _share(
        self,
        dims: Sequence[terms.Term],
        atoms: Sequence[frozenset[Atom]],
        small: Mapping[Atom, Atom],
        held: Sequence[float],
    ) -> Shares:
        """Return the sum over scenarios of the chance to hold the given atoms' part of an entry, for all classes."""
        of = atoms_of(self.axes)
        every = []  # [scenarios, classes] of each dimension
        for dim, term in enumerate(dims):
            found = [{small[a]: self._units[of[a]][s].astype(np.float64) for a in atoms[dim]} for s in range(len(held))]
            chances = [spread(term, inside) if inside else np.ones(1) for inside in found]
            every.append(np.stack(chances))
        letters = "abcdefghijklm"[: len(dims)]
        sums = ",".join(["z", *(f"z{letter}" for letter in letters)])
        return np.asarray(np.einsum(f"{sums}->{letters}", np.asarray(held), *every, optimize=True))

    def _of_blocks(self, name: str) -> Sequence[float]:
        """Return for every scenario the chance to hold the residual blocks that a parameter belongs to."""
        held = np.full(self._scenarios, 1.0 if self._by_row else 1.0 / self._scenarios)
        for axis in self.axes.values() if self._by_row else ():
            for number, block in enumerate(axis.blocks):
                if name in block.state:
                    held = held * self._units[axis.name][:, self._classes[axis.name][number]]
        return held.tolist()

    def _reduced(
        self, term: terms.Term, of: Mapping[Atom, str], small: Mapping[Atom, Atom]
    ) -> tuple[terms.Term, Labels]:
        """Return a dimension with one unit a class, and which of its positions stands for each that it has."""
        term = terms.resolve(term)
        if isinstance(term, Atom):
            if term in of:
                return small[term], self._classes[of[term]]
            return terms.ONE, np.zeros(int(term.size), np.int64)
        if isinstance(term, terms.Prod):
            found, labels = [], np.zeros(1, np.int64)
            for factor, positions in (self._reduced(factor, of, small) for factor in term.factors):
                found.append(factor)
                labels = np.add.outer(labels * terms.size(factor), positions).ravel()
            return terms.Prod(tuple(found)), labels
        parts = [self._reduced(part, of, small) for part in term.parts]
        starts = np.cumsum([0, *(int(terms.size(part)) for part, _ in parts)])
        labels = np.concatenate([positions + start for (_, positions), start in zip(parts, starts, strict=False)])
        return terms.Cat(tuple(part for part, _ in parts)), labels
