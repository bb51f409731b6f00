"""Which axes are cut: those that are asked for, and of these the ones with units enough for the workers."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar
from weakref import WeakKeyDictionary

from isthmus import partitions
from isthmus.errors import InvalidInput
from isthmus.nets.axes.structure import KINDS, Axis, Structure
from isthmus.partitions import Law

AnyStructure = TypeVar("AnyStructure", bound=Structure)
NOT_ASKED = "not asked for"

# What was served before, by structure and the names of the axes cut: it is asked for every round.
_served: WeakKeyDictionary[Structure, dict[frozenset[str], Structure]] = WeakKeyDictionary()


class NoSuchKind(InvalidInput):
    """A kind of axis is to be cut that a network does not have."""


def select(structure: AnyStructure, cut: Sequence[str | Axis]) -> AnyStructure:
    """Return the same with other axes cut: by kind, by name or pattern ("layers.*.mlp*"), or by axis.

    Raises:
        InvalidInput: an entry that matches no axis.
        NoSuchKind: a kind that the network has no axis of.
    """
    chosen: set[str] = set()
    for wanted in cut:
        if isinstance(wanted, Axis):
            names = {axis.name for axis in structure.axes if axis.name == wanted.name}
        elif wanted in KINDS:
            names = {axis.name for axis in structure.axes if axis.kind == wanted}
        else:
            names = {axis.name for axis in structure.axes if fnmatch.fnmatchcase(axis.name, wanted)}
        if not names:
            known = ", ".join(axis.name for axis in structure.axes) or "none"
            if wanted in KINDS:
                raise NoSuchKind(f"`cut` names {wanted!r}, and the network has no axis of that kind: {known}")
            raise InvalidInput(f"`cut` must name a kind ({', '.join(KINDS)}) or an axis ({known}), got {wanted!r}")
        chosen |= names
    axes = (
        replace(axis, cut=axis.name in chosen, why="" if axis.name in chosen else axis.why or NOT_ASKED, outer=())
        for axis in structure.axes
    )
    return replace(structure, axes=tuple(axes))


def serving(structure: AnyStructure, workers: int, law: Law) -> AnyStructure:
    """Return the same with those axes cut that have units enough for so many workers, under a law.

    An axis with too few is left whole, and its ``why`` says so; in its place the axes inside it are looked at, if
    it is cut by default. A law that deals one unit to several workers shares what nothing takes the place of.
    """
    wanted = [axis for axis in structure.axes if axis.cut or axis.outer]
    lacking = {axis.name: law.too_few(to_deal(axis), workers) for axis in wanted}
    cut: set[str] = set()
    for least in (workers, 1):
        for axis in wanted:
            inside = any(axis.name in other.outer for other in wanted if other.name in cut)
            enough = lacking[axis.name] is None and axis.size >= least * axis.least
            if enough and not inside and not cut & set(axis.outer):
                cut.add(axis.name)
    known, key = _served.setdefault(structure, {}), frozenset(cut)
    if key not in known:
        known[key] = replace(structure, axes=tuple(_as_served(axis, cut, lacking) for axis in structure.axes))
    return known[key]  # type: ignore[return-value]


def holding(structure: AnyStructure, dealt: Mapping[str, object]) -> AnyStructure:
    """Return the same with the axes cut that a partition deals, given by name."""
    held = [axis for axis in structure.axes if axis.name in dealt]
    return structure if all(axis.cut == (axis in held) for axis in structure.axes) else select(structure, held)


def left_whole(structure: Structure) -> dict[str, str]:
    """Return the axes that would be cut but for too few units (see :func:`serving`), each with what it has."""
    return {axis.name: axis.why for axis in structure.axes if axis.few}


def to_deal(axis: Axis, colour: int = 0) -> partitions.Axis:
    """Return an axis as a law sees it."""
    return partitions.Axis(axis.name, axis.size, colour, axis.least, axis.kind)


def _as_served(axis: Axis, cut: set[str], lacking: Mapping[str, str | None]) -> Axis:
    """Return an axis cut or not, with the reason if not."""
    if axis.name in cut:
        return replace(axis, cut=True, why="")
    few = lacking.get(axis.name)
    return replace(axis, cut=False, why=few or axis.why or "another axis serves", few=few is not None)
