"""What a worker holds of a network, given the units it holds: index sets of every tensor, and what it lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from isthmus.nets.axes import terms
from isthmus.nets.axes.blocks import Block
from isthmus.nets.axes.evaluation import evaluate
from isthmus.nets.axes.structure import Structure
from isthmus.nets.axes.terms import Atom, Indices
from isthmus.nets.pieces.ownership import Held


def kept(structure: Structure, held: Mapping[str, Indices]) -> dict[Atom, Indices]:
    """Return the units of every cut atom that a worker keeps, from those of every axis."""
    by_name = {axis.name: axis for axis in structure.all_axes}
    pairs = ((by_name[name].atom, units) for name, units in held.items())
    return {terms.resolve(atom): units for atom, units in pairs if atom is not None}  # type: ignore[misc]


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
    units = kept(structure, held)
    gone = missing_state(structure, held)
    return {
        name: tuple(evaluate(term, units) for term in dims)
        for name, dims in structure.dims.items()
        if name in structure.entries and name not in gone
    }


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
