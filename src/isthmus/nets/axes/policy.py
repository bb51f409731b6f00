"""What the structure of a network says about its axes: their kind, and which are cut unless told otherwise.

Nothing here looks at names or classes. A *stream* is what a residual connection adds to; a *head* runs along both
activations of a product; an *ffn* axis lies between two weights of a residual block; *experts* have a matrix each, and
a router that chooses between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from isthmus.nets.axes import terms
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.terms import Atom, Cat, Prod, Term

Own = Mapping[Atom, Sequence[frozenset[str]]]  # parameters and buffers of each unit alone


def kind_of(atom: Atom, dims: Mapping[str, Dims]) -> str:
    """Return expert, stream, head, channel, ffn or hidden."""
    if is_expert(atom):
        return "expert"
    for tag in ("stream", "head", "channel"):
        if tag in atom.tags:
            return tag
    if "head_dim" in atom.tags:
        return "hidden"
    weights = [entry for entry in dims.values() if len(entry) > 1 and any(atom in terms.leaves(t) for t in entry)]
    plain = [any(atom in _parts(term) for term in entry) for entry in weights]
    beside = [
        any("stream" in leaf.tags for term in entry for leaf in terms.leaves(term) if leaf is not atom)
        for entry in weights
    ]
    return "ffn" if len(beside) > 1 and all(beside) and all(plain) else "hidden"


def is_expert(atom: Atom) -> bool:
    """Whether units are experts: they have a matrix each, and a router chooses between them."""
    return {"routed", "matrices"} <= atom.tags and "stream" not in atom.tags


def settle_choices(dims: Iterable[Dims]) -> None:
    """Keep whole what something chooses along, but for experts."""
    for atom in {leaf for entry in dims for term in entry for leaf in terms.leaves(term)}:
        if atom.choices and not is_expert(atom):
            atom.reasons.update(atom.choices)


def _parts(term: Term) -> tuple[Term, ...]:
    term = terms.resolve(term)
    return term.parts if isinstance(term, Cat) else (term,)


def why_not(atom: Atom) -> str | None:
    """Return why an axis is not cut unless asked for, whatever it is inside of; None if it may be."""
    if is_expert(atom):
        return None
    if "stream" in atom.tags:
        return "residual stream"
    if "norm" in atom.tags:
        return "a norm acts across it"
    if "embedding" in atom.tags and "head" not in atom.tags:
        return "width of an embedding"
    return None


def default_cut(
    atoms: Iterable[Atom], dims: Mapping[str, Dims], own: Own
) -> dict[Atom, tuple[str | None, tuple[Atom, ...]]]:
    """Return for each axis why it is not cut by default (None if it is), and the axes that are cut rather than it.

    Of the axes whose product makes up a dimension (heads x group x width) only one is cut: the outermost that has units
    enough for the workers, whose number is not known here. What is inside a head is cut in the heads' place alone.
    """
    partners = _partners(dims, own)
    verdict: dict[Atom, tuple[str | None, tuple[Atom, ...]]] = {}
    atoms = list(atoms)
    order = {atom: number for number, atom in enumerate(atoms)}
    for atom in atoms:
        reason = why_not(atom)
        before = partners.get(atom, set()) & verdict.keys() if reason is None else set()
        if reason is None and "head_dim" in atom.tags and not is_expert(atom):
            reason, before = "inside a head", {other for other in before if "head" in other.tags}
        served = (other for other in before if verdict[other][0] is None or verdict[other][1])
        outer = tuple(sorted(served, key=order.__getitem__))
        verdict[atom] = ("inside another axis" if any(verdict[o][0] is None for o in outer) else reason), outer
    return verdict


def _partners(dims: Mapping[str, Dims], own: Own) -> dict[Atom, set[Atom]]:
    """Return for each atom those it shares a product with."""
    result: dict[Atom, set[Atom]] = {}

    def visit(term: Term) -> None:
        if isinstance(term, Cat):
            for part in term.parts:
                visit(part)
        elif isinstance(term, Prod):
            for factor in term.factors:
                visit(factor)
                mine = terms.leaves(factor)
                others = {leaf for f in term.factors if f is not factor for leaf in terms.leaves(f)}
                for leaf in mine:
                    result.setdefault(leaf, set()).update(others - {leaf})

    for name, entry in dims.items():
        for term in entry:
            visit(terms.resolve(term))
        inside = {leaf for term in entry for leaf in terms.leaves(term)}
        inside |= {atom for atom, units in own.items() if any(name in unit for unit in units)}
        for expert in filter(is_expert, inside):  # the width of an expert is inside it
            for leaf in inside - {expert}:
                result.setdefault(leaf, set()).add(expert)
                result.setdefault(expert, set()).add(leaf)
    return result
