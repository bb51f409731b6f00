"""From atoms to axes that people can name, choose and read about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from isthmus.nets.axes import terms
from isthmus.nets.axes.blocks import Block
from isthmus.nets.axes.evaluation import size_under
from isthmus.nets.axes.policy import Own, default_cut, kind_of, settle_choices
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.structure import Axis, KeptWhole, Member
from isthmus.nets.axes.terms import Atom
from isthmus.nets.graph.state import StateEntry

Places = dict[Atom, list[tuple[str, int]]]


def build_axes(
    entries: Mapping[str, StateEntry],
    dims: Mapping[str, Dims],
    blocks: Sequence[Block],
    picks: Sequence[tuple[terms.Term, int]],
    own: Own,
) -> tuple[tuple[Axis, ...], tuple[KeptWhole, ...]]:
    """Return the axes of a network, cut as the policy says, and what is kept whole."""
    settle_choices(dims[name] for name in entries)
    places = _places(entries, dims)
    held = [a for a, where in places.items() if any(entries[name].is_parameter for name, _ in where)]
    open_ = [atom for atom in held if not atom.reasons]
    verdict = default_cut(open_, dims, own)
    kinds = {atom: kind_of(atom, {name: dims[name] for name, _ in places[atom]}) for atom in open_}
    names = _names(open_, places, kinds)
    axes = []
    for atom in open_:
        units = tuple(own.get(atom, ()))
        members = (
            *(member_of(name, dim, dims[name][dim], atom) for name, dim in places[atom]),
            *(Member(name, 0, "of one unit", 1) for names_ in units for name in sorted(names_)),
        )
        why, outer = verdict[atom]
        before = tuple(names[other] for other in outer)
        least = _least(atom, picks)
        size, why = int(atom.size), why or ""
        axes.append(Axis(names[atom], size, kinds[atom], members, not why, why, before, least, own=units, atom=atom))
    whole = [
        KeptWhole(int(atom.size), tuple(atom.reasons), tuple(places[atom]))
        for atom in held
        if atom.reasons and isinstance(atom.size, int)
    ]
    return (*axes, *_block_axes(blocks, axes)), tuple(whole)


def _places(entries: Mapping[str, StateEntry], dims: Mapping[str, Dims]) -> Places:
    places: Places = {}
    for name in entries:
        for dim, term in enumerate(dims[name]):
            for atom in terms.leaves(term):
                places.setdefault(atom, []).append((name, dim))
    return places


def _names(atoms: Sequence[Atom], places: Places, kinds: Mapping[Atom, str]) -> dict[Atom, str]:
    """Name an axis after the submodule whose output it is: the first that holds it as a tensor's first dimension."""
    names: dict[Atom, str] = {}
    taken: set[str] = set()
    for atom in atoms:
        where = places[atom]
        tensor = next((name for name, dim in where if dim == 0), where[0][0])
        base = tensor.rpartition(".")[0] or tensor
        suffix = "head_dim" if "head_dim" in atom.tags else kinds[atom]
        candidates = [base, f"{base}.{suffix}", *(f"{base}.{suffix}{i}" for i in range(2, len(atoms) + 2))]
        names[atom] = next(name for name in candidates if name not in taken)
        taken.add(names[atom])
    return names


def member_of(name: str, dim: int, term: terms.Term, atom: Atom) -> Member:
    """Return one dimension of a tensor as one that holds an axis."""
    layout = terms.describe(term, lambda leaf: "units" if leaf is atom else str(leaf.size))
    one, none = (size_under(term, {atom: np.arange(count)}) for count in (1, 0))
    return Member(name, dim, layout, int(one - none))


def _least(atom: Atom, picks: Sequence[tuple[terms.Term, int]]) -> int:
    """Return how many units must be held so that as many can be taken, wherever the largest are, as of the whole."""
    found = 1
    for term, count in picks:
        if atom in terms.leaves(term):
            one, none = (int(size_under(term, {atom: np.arange(units)})) for units in (1, 0))
            found = max(found, -((none - count) // (one - none)))
    return found


def _block_axes(blocks: Sequence[Block], axes: Sequence[Axis]) -> list[Axis]:
    """One axis of blocks per stream and stack."""
    by_stream: dict[tuple[terms.Term, int], list[Block]] = {}
    for block in blocks:
        by_stream.setdefault((terms.resolve(block.stream), block.stack), []).append(block)
    taken = {axis.name for axis in axes}
    result = []
    for number, group in enumerate(by_stream.values()):
        name = "blocks" if len(by_stream) == 1 and "blocks" not in taken else f"blocks.{number}"
        members = tuple(Member(s, 0, block.name, 1) for block in group for s in sorted(block.state))
        result.append(Axis(name, len(group), "block", members, False, "depth is cut on request", blocks=tuple(group)))
    return result
