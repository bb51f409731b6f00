"""What of a network says how it is best dealt: which cut axes meet in a stream that all pieces share."""

from __future__ import annotations

from isthmus.nets.axes import terms
from isthmus.nets.axes.structure import Structure, written
from isthmus.nets.axes.terms import Atom
from isthmus.partitions import Law, Traits


def traits_of(structure: Structure) -> Traits:
    """Return what a law may want to know of the axes that are cut."""
    cut = {terms.resolve(axis.atom): axis.name for axis in structure.cut_axes if axis.atom is not None}
    meeting: dict[Atom, dict[str, None]] = {}  # for each stream the axes that a weight joins to it
    for name, entry in structure.entries.items():
        if entry.is_parameter:
            here = {leaf for term in structure.dims[name] for leaf in terms.leaves(term)}
            joined = {cut[leaf]: None for leaf in here if leaf in cut}
            for leaf in here - cut.keys():
                if "stream" in leaf.tags and terms.OPEN not in leaf.reasons:
                    meeting.setdefault(leaf, {}).update(joined)
    joined_axes = {name for names in meeting.values() if len(names) > 1 for name in names}
    changing = [name for name in written(structure) if not structure.entries[name].is_parameter]
    measured = {leaf for name in changing for term in structure.dims[name] for leaf in terms.leaves(term)}
    return Traits(
        kinds={axis.name: axis.kind for axis in structure.cut_axes},
        joined=tuple(axis.name for axis in structure.cut_axes if axis.name in joined_axes),
        statistics=frozenset(cut[leaf] for leaf in measured & cut.keys()),
        blocks={axis.name: axis.size for axis in structure.cut_axes if axis.blocks},
    )


def chosen(structure: Structure, law: Law) -> tuple[Law, str]:
    """Return the law for a network where it is yet to be chosen, and why it is that; else the same, for no reason."""
    return law.chosen(traits_of(structure)) if law.chooses else (law, "")
