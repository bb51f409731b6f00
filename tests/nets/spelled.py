"""What a rule says of one call, in one line.

``linear.default(X(2, 3, 4), W(5, 4), W(5)): abc, dc, d -> abd; sums 0.2 against 1.1`` names the units of every
dimension by a letter: the third dimension of operand 0 and the second of operand 1 hold the same units, which are
summed over. ``(ab)`` is a product, ``[a|b]`` a concatenation, ``a!`` is kept whole, ``a?`` too unless its units are
experts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.terms import Atom, Prod, Term
from nets.probes import Example, Operand, Ruled


def spelled_call(example: Example) -> str:
    """Return a call as it is written in ``operators.py``."""
    given = [_argument(value) for value in example.arguments]
    given += [f"{name}={_argument(value)}" for name, value in example.keywords.items()]
    to = "" if example.shape is None else f" to {example.shape}"
    return f"{example.name.removeprefix('aten::')}({', '.join(given)}){to}"


def _argument(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_argument, value))}]"
    if isinstance(value, fx.GraphModule):
        return "region"
    return value.spelled if isinstance(value, Operand) else repr(value)


def spelled_ruling(ruled: Ruled) -> str:
    """Return what the rule says: the dimensions of operands and results, then all that it notes."""
    if ruled.refused:
        return f"no rule: {ruled.refused}"
    said = _Speller(ruled)
    operands = ", ".join(map(said.dims, ruled.operand_dims))
    results = ", ".join(map(said.dims, ruled.result_dims))
    return "; ".join([f"{operands} -> {results}".strip(), *said.notes()])


class _Speller:
    def __init__(self, ruled: Ruled) -> None:
        self.ruled, self.letters = ruled, dict[Atom, str]()

    def dims(self, dims: Iterable[Term]) -> str:
        return "".join(map(self.term, dims)) or "()"

    def term(self, term: Term) -> str:
        term = terms.resolve(term)
        if isinstance(term, Atom):
            letter = self.letters.setdefault(term, "abcdefghijklmnopqrstuvwxyz"[len(self.letters)])
            return letter + ("!" if term.reasons else "?" if term.choices else "")
        if term == terms.ONE:
            return "1"
        if isinstance(term, Prod):
            return f"({''.join(map(self.term, term.factors))})"
        return f"[{'|'.join(map(self.term, term.parts))}]"

    def notes(self) -> Iterable[str]:
        found, place = self.ruled.propagation, self.ruled.places.index
        for each in found.contractions:
            part = "" if each.summed == each.term else f" ({self.term(each.summed)} of it)"
            against = {"weight": "", "activation": " against an activation", "sum": " alone"}[each.kind]
            if each.weight is not None:
                against = f" against {place(each.weight)}.{each.weight_dim}"
            yield f"sums {place(each.operand)}.{each.dim}{part}{against}"
        for each in found.sizes:
            index = "" if each.index is None else f"[{each.index}]"
            offset = f" {each.offset:+d}" if each.offset else ""
            yield f"{each.argument}{index} = {self.term(each.term)}{offset}"
        for each in found.places:
            yield f"{each.argument} = {each.position} of {self.term(each.term)}"
        for term, count in found.picks:
            yield f"picks {count} of {self.term(term)}"
        for term in found.norms.get(self.ruled.node, []):
            yield f"norm over {self.term(term)}"
        for number, node in enumerate(self.ruled.places):
            if node in found.positions:
                taken = "" if node in self.ruled.call.understood else ", taken for numbers"
                yield f"{number} holds places of {self.term(found.positions[node])}{taken}"
        if self.ruled.node in found.positions:
            where = found.positions[self.ruled.node]
            each = where if isinstance(where, list) else [where]
            yield f"gives places of {', '.join('nothing' if term is None else self.term(term) for term in each)}"
        for pinned in sorted(sorted(map(str, symbols)) for symbols in found.pinned):
            yield f"pins {', '.join(pinned)}"
        for atom, letter in self.letters.items():
            if atom.tags:
                yield f"{letter}: {', '.join(sorted(atom.tags))}"
