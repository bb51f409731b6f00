"""What a worker holds of a network, given the units it holds: index sets of every tensor, and what it lacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from isthmus.nets.axes import terms
from isthmus.nets.axes.blocks import Block
from isthmus.nets.axes.evaluation import evaluate, owners
from isthmus.nets.axes.structure import Structure
from isthmus.nets.axes.terms import Atom, Cat, Indices, Prod, Term
from isthmus.nets.pieces.ownership import Held


@dataclass(frozen=True)
class Layout:
    """Where the axes of a network are, worked out once: what is left to do for a cut is little, however deep.

    Attributes:
        atoms: of every axis by name; None for residual blocks.
        sets: one function for each way in which a dimension is made of axes: from the units kept to its positions.
        places: for every parameter and buffer, dimension by dimension, which of them it is; -1 for one without axes.
        ways: all that there are of these.
    """

    atoms: Mapping[str, Atom | None]
    sets: tuple[Callable[[Mapping[Atom, Indices]], Indices | None], ...]
    places: Mapping[str, tuple[int, ...]]
    ways: frozenset[tuple[int, ...]]


_layouts: WeakKeyDictionary[Structure, Layout] = WeakKeyDictionary()


def layout_of(structure: Structure) -> Layout:
    """Return where the axes of a network are."""
    if structure not in _layouts:
        _layouts[structure] = _laid_out(structure)
    return _layouts[structure]


def kept(structure: Structure, held: Mapping[str, Indices]) -> dict[Atom, Indices]:
    """Return the units of every cut atom that a worker keeps, from those of every axis."""
    atoms = layout_of(structure).atoms
    pairs = ((atoms[name], units) for name, units in held.items())
    return {atom: units for atom, units in pairs if atom is not None}


def missing_blocks(structure: Structure, held: Mapping[str, Indices]) -> list[Block]:
    """Return the residual blocks that a worker lacks."""
    lacking = []
    for axis in structure.axes:
        if axis.blocks and axis.name in held:
            mine = set(held[axis.name].tolist())
            lacking += [block for number, block in enumerate(axis.blocks) if number not in mine]
    return lacking


def missing_state(structure: Structure, held: Mapping[str, Indices]) -> set[str]:
    """Return the parameters and buffers that a worker lacks altogether: of blocks, of experts in a list."""
    gone = {name for block in missing_blocks(structure, held) for name in block.state}
    for axis in structure.axes:
        if axis.own and axis.name in held:
            lacking = np.setdiff1d(np.arange(axis.size), held[axis.name])
            gone |= {name for unit in lacking for name in axis.own[unit]}
    return gone


def index_map(structure: Structure, held: Mapping[str, Indices]) -> dict[str, Held]:
    """Return for every parameter and buffer a worker holds its index set per dimension, None for all of it."""
    return placed(structure, missing_state(structure, held), index_sets(structure, held))


def index_sets(structure: Structure, held: Mapping[str, Indices]) -> list[Indices | None]:
    """Return the index sets of all dimensions that are made of axes, in the order of :attr:`Layout.sets`."""
    units = kept(structure, held)
    return [positions(units) for positions in layout_of(structure).sets]


def placed(structure: Structure, gone: Container[str], sets: Sequence[Indices | None]) -> dict[str, Held]:
    """Return index sets by parameter and buffer, without those that are gone."""
    found = [*sets, None]  # the last is that of -1
    layout = layout_of(structure)
    alike = {dims: tuple([found[place] for place in dims]) for dims in layout.ways}
    return {name: alike[dims] for name, dims in layout.places.items() if name not in gone}


def sizes(structure: Structure, held: Mapping[str, Indices]) -> dict[str, int]:
    """Return parameters and bytes (with buffers) of what a worker holds, and the parameters all workers hold."""
    given = [axis for axis in structure.axes if axis.name in held]
    dealt = {name for axis in given for block in axis.blocks for name in block.state}
    dealt |= {name for axis in given for unit in axis.own for name in unit}
    result = {"parameters": 0, "bytes": 0, "replicated": 0}
    for name, maps in index_map(structure, held).items():
        entry = structure.entries[name]
        lengths = zip(entry.shape, maps, strict=True)
        count = math.prod(size if units is None else len(units) for size, units in lengths)
        result["bytes"] += count * entry.dtype.itemsize
        if entry.is_parameter:
            result["parameters"] += count
            result["replicated"] += count if name not in dealt and all(units is None for units in maps) else 0
    return result


def _laid_out(structure: Structure) -> Layout:
    atoms: dict[str, Atom | None] = {}
    for axis in structure.all_axes:
        atom = None if axis.atom is None else terms.resolve(axis.atom)
        atoms[axis.name] = atom if isinstance(atom, Atom) else None
    cut = frozenset(atom for atom in atoms.values() if atom is not None)
    numbers: dict[Term, int] = {}
    places: dict[str, tuple[int, ...]] = {}
    for name in structure.entries:
        dims = []
        for term in map(terms.resolve, structure.dims[name]):
            inside = any(leaf in cut for leaf in terms.leaves(term))
            dims.append(numbers.setdefault(term, len(numbers)) if inside else -1)
        places[name] = tuple(dims)
    return Layout(atoms, tuple(_positions(term, cut) for term in numbers), places, frozenset(places.values()))


def _positions(term: Term, cut: frozenset[Atom]) -> Callable[[Mapping[Atom, Indices]], Indices | None]:
    """Return how the positions of a term follow from the units kept."""
    if isinstance(term, Atom):
        return lambda kept: kept.get(term)
    inside = [leaf for leaf in terms.leaves(term) if leaf in cut]
    ways: dict[Atom, Callable[[Indices], Indices] | None] = {}

    def positions(kept: Mapping[Atom, Indices]) -> Indices | None:
        here = [atom for atom in inside if atom in kept]
        if not here:
            return None
        atom = here[0]
        if atom not in ways:
            ways[atom] = _of_units(term, atom)
        way = ways[atom] if len(here) == 1 else None
        return evaluate(term, kept) if way is None else way(kept[atom])

    return positions


def _of_units(term: Prod | Cat, atom: Atom) -> Callable[[Indices], Indices] | None:
    """Return how the positions of a term follow from the units of one atom, all others kept; None if it is not easy."""
    units = owners(term, atom)
    if units is None:
        return None
    if isinstance(term, Prod) and atom in term.factors:  # twice as fast as what is right for all
        inner = math.prod(int(terms.size(factor)) for factor in term.factors[term.factors.index(atom) + 1 :])
        grid = np.arange(len(units)).reshape(-1, int(atom.size), inner)
        return lambda held: grid.take(held, 1).ravel()

    def chosen(held: Indices) -> Indices:
        stays = np.zeros(int(atom.size) + 1, np.bool_)
        stays[held] = stays[-1] = True  # the last is where -1 looks: what belongs to no unit
        return np.flatnonzero(stays[units])

    return chosen
