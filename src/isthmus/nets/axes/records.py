"""What a pass over a graph finds: the term of every dimension, what a cut changes, where units are summed up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy
from torch import fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.evaluation import evaluate
from isthmus.nets.axes.terms import Atom, Cat, Indices, Term

Dims = tuple[Term, ...]
Value = Any  # Dims of a tensor, a list of values, or None for numbers


@dataclass(frozen=True)
class SizeConstant:
    """An integer argument that is the size of a term, plus an offset: ``node.argument[index]``."""

    node: fx.Node
    argument: str
    index: int | None
    term: Term
    offset: int = 0


@dataclass(frozen=True)
class Contraction:
    """An operator sums over a dimension of one of its operands.

    Attributes:
        node, operand, dim: ``node`` sums over dimension ``dim`` of ``operand``.
        term: of that dimension; units a subnetwork lacks count as zero here.
        summed: the part of it that is really summed over (within a group of a grouped convolution).
        kind: "weight" against a weight, "activation" against an activation, "sum" against nothing.
        weight, weight_dim: what it is summed against if that is computed from state alone, and the dimension there.
    """

    node: fx.Node
    operand: fx.Node
    dim: int
    term: Term
    summed: Term
    kind: str
    weight: fx.Node | None = None
    weight_dim: int = 0


@dataclass(frozen=True)
class Place:
    """An integer argument is a place along a term: ``node.argument`` is ``position``."""

    node: fx.Node
    argument: str
    term: Term
    position: int

    @property
    def unit(self) -> tuple[Atom, int] | None:
        """The axis it is a place of, and which; None where the term is a product."""
        term, offset = terms.resolve(self.term), self.position
        for part in term.parts if isinstance(term, Cat) else (term,):
            if offset < terms.size(part):
                return (part, offset) if isinstance(part, Atom) else None
            offset -= terms.size(part)
        return None

    def number(self, kept: Mapping[Atom, Indices]) -> int | None:
        """Return its place among the units that are kept, None if it is not."""
        places = evaluate(self.term, kept)
        if places is None:
            return self.position
        found = int(np.searchsorted(places, self.position))
        return found if found < len(places) and places[found] == self.position else None


@dataclass
class Propagation:
    """What one graph says about its axes.

    Attributes:
        dims: the terms of every node's dimensions (a list of those for several results).
        sizes, contractions: what a cut changes and where units are summed up.
        norms: nodes that normalise across axes, or choose along them, and the terms of these.
        positions: by tensor of whole numbers (a list for several results) the term along which they are positions.
        picks: (term, k) wherever the k largest along a dimension are taken.
        places: where one place of an axis is taken by number.
        whole: the graph, in which regions have graphs of their own.
        from_state: nodes computed from parameters and buffers alone, and from noise of a fixed shape.
        problems: operators that froze what they touch.
        pinned: per meeting of an open size with a fixed one (an image size before a linear layer), the symbols of the
            open one: the network needs some of them fixed.
    """

    dims: dict[fx.Node, Value] = field(default_factory=dict)
    sizes: list[SizeConstant] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    norms: dict[fx.Node, list[Term]] = field(default_factory=dict)
    positions: dict[fx.Node, Any] = field(default_factory=dict)
    picks: list[tuple[Term, int]] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)
    whole: fx.GraphModule | None = None
    from_state: set[fx.Node] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
    pinned: set[frozenset[sympy.Symbol]] = field(default_factory=set)
