"""Example calls of every operator with a rule, and the probe that runs a rule on one call.

A call names its operands by shape: ``X`` an activation, ``W`` a weight, ``I`` indices below a bound, ``B`` a mask,
``C`` complex numbers, ``A`` a sparse tensor, ``P`` places along an axis of its own. A dimension is a size, a tuple of
sizes (a product of axes), or ``Whole(size)``, which is kept whole already, or ``Open(size)``, as a batch is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy
import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call, NoRule
from isthmus.nets.axes.evaluation import evaluate
from isthmus.nets.axes.policy import settle_choices
from isthmus.nets.axes.records import Propagation
from isthmus.nets.axes.registry import find_rule
from isthmus.nets.axes.terms import Atom, Indices, Term
from isthmus.nets.pieces.rewrite import Rewriter
from isthmus.nets.rules import RULES

aten = torch.ops.aten
assert RULES  # the rules register themselves when they are imported


class Whole(int):
    """The size of a dimension that is kept whole before the call."""


class Open(int):
    """The size of a dimension that may have another in the next call, as a batch."""


@dataclass(frozen=True)
class Operand:
    """A tensor operand: float64 values (or complex ones, or a sparse tensor), indices below ``below``, or a mask.

    Attributes:
        along: whether indices are known for places along an axis, of size ``below``.
    """

    axes: tuple[int | tuple[int, ...], ...]
    weight: bool = False
    below: int = 0
    dtype: torch.dtype = torch.float64
    sparse: bool = False
    along: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return tuple(math.prod(axis) if isinstance(axis, tuple) else int(axis) for axis in self.axes)

    @property
    def spelled(self) -> str:
        """As it is written in ``operators.py``."""
        kind = "W" if self.weight else "A" if self.sparse else "P" if self.along else "X"
        kind = {torch.bool: "B", torch.int64: "I" if kind == "X" else kind, torch.complex128: "C"}.get(self.dtype, kind)
        axes = [f"{type(axis).__name__}({axis})" if isinstance(axis, Whole | Open) else str(axis) for axis in self.axes]
        return f"{kind}({', '.join(axes)})"

    def dims(self) -> tuple[Term, ...]:
        """Return new terms for its dimensions."""
        return tuple(
            terms.prod(map(terms.fresh, axis)) if isinstance(axis, tuple)
            else terms.fresh(
                sympy.Symbol(f"n{axis}", positive=True, integer=True) if isinstance(axis, Open) else axis,
                "a sparse tensor" if self.sparse else "whole" if isinstance(axis, Whole) else None,
            )
            for axis in self.axes
        )  # fmt: skip

    def make(self, random: torch.Generator) -> Tensor:
        """Return random values; positive, so that roots and logarithms are defined, and all different."""
        if self.below:
            return torch.randint(0, self.below, self.shape, generator=random, dtype=self.dtype)
        return 0.1 + 0.8 * torch.rand(self.shape, generator=random, dtype=self.dtype)


def X(*axes: int | tuple[int, ...]) -> Operand:
    return Operand(axes)


def W(*axes: int | tuple[int, ...]) -> Operand:
    return Operand(axes, weight=True)


def I(*shape: int, below: int) -> Operand:  # noqa: E743
    return Operand(shape, below=below, dtype=torch.int64)


def B(*shape: int) -> Operand:
    return Operand(shape, below=2, dtype=torch.bool)


def C(*shape: int) -> Operand:
    return Operand(shape, dtype=torch.complex128)


def P(*shape: int, below: int) -> Operand:
    return Operand(shape, below=below, dtype=torch.int64, along=True)


def A(*shape: int) -> Operand:
    """A sparse operand, such as the adjacency of a graph."""
    return Operand(shape, sparse=True)


@dataclass(frozen=True)
class Example:
    """One call: an overload of an operator, its arguments, and whether its result is random.

    Attributes:
        shape: of its result, where the call cannot be run by itself.
    """

    operator: Any
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    random: bool = False
    shape: tuple[int, ...] | None = None

    @property
    def name(self) -> str:
        """The operator as the registry knows it, with its overload."""
        schema = getattr(self.operator, "_schema", None)
        return self.operator.__name__ if schema is None else f"{schema.name}.{schema.overload_name or 'default'}"


def call(operator: Any, *arguments: Any, **keywords: Any) -> Example:
    return Example(operator, arguments, keywords)


def unrun(shape: tuple[int, ...], operator: Any, *arguments: Any, **keywords: Any) -> Example:
    return Example(operator, arguments, keywords, shape=shape)


def chance(operator: Any, *arguments: Any, **keywords: Any) -> Example:
    return Example(operator, arguments, keywords, random=True)


class Ruled:
    """The graph of one call, with what the operator's rule says about it.

    Attributes:
        refused: why the rule does not cover the call; empty where it does.
    """

    def __init__(self, example: Example) -> None:
        self.example = example
        random = torch.Generator().manual_seed(0)
        leaves, spec = pytree.tree_flatten((list(example.arguments), dict(example.keywords)))
        self.described = [leaf for leaf in leaves if isinstance(leaf, Operand)]
        self.operands = [leaf.make(random) for leaf in self.described]
        attributes = {f"region_{i}": leaf for i, leaf in enumerate(leaves) if isinstance(leaf, fx.GraphModule)}
        self.graph = fx.Graph()
        self.places = [self.graph.placeholder(f"operand_{i}") for i in range(len(self.operands))]
        names, places = iter(attributes), iter(self.places)
        regions = [self.graph.get_attr(name) for name in attributes]
        takes = dict(zip(names, regions, strict=True))
        nodes = [next(places) if isinstance(leaf, Operand) else takes[f"region_{i}"]
                 if isinstance(leaf, fx.GraphModule) else leaf for i, leaf in enumerate(leaves)]  # fmt: skip
        arguments, keywords = pytree.tree_unflatten(nodes, spec)
        self.node = self.graph.call_function(example.operator, tuple(arguments), keywords)
        self.graph.output(self.node)
        self.module = fx.GraphModule(attributes, self.graph)
        for node, tensor in zip(self.places, self.operands, strict=True):
            node.meta["val"] = tensor
        unrun = example.shape is not None
        self.node.meta["val"] = torch.empty(example.shape) if unrun else self.run(self.operands, plain=True)
        self.propagation = Propagation(whole=self.module)
        for node, described in zip(self.places, self.described, strict=True):
            self.propagation.dims[node] = described.dims()
            if described.weight:
                self.propagation.from_state.add(node)
            if described.along:
                self.propagation.positions[node] = terms.fresh(described.below)
        rule = find_rule(self.node)
        assert rule is not None, f"{example.name} has no rule"
        self.call, self.refused = Call(self.node, self.propagation, self.module), ""
        try:
            self.propagation.dims[self.node] = rule(self.call)
        except NoRule as problem:
            self.propagation.dims[self.node], self.refused = (), str(problem)

    def run(self, operands: list[Tensor], plain: bool = False, module: nn.Module | None = None) -> Any:
        """Return the results (a list of tensors, or as the operator gives them) for fresh copies of operands."""
        torch.manual_seed(0)
        given = [t.to_sparse() if d.sparse else t.clone() for t, d in zip(operands, self.described, strict=True)]
        found = (module or self.module)(*given)
        found = found.to_dense() if isinstance(found, Tensor) else found
        if "empty" in self.example.name:  # what is not initialised may be anything
            found = torch.zeros_like(found)
        return found if plain else [found] if isinstance(found, Tensor) else list(found)

    @property
    def operand_dims(self) -> list[tuple[Term, ...]]:
        return [self.propagation.dims[node] for node in self.places]

    @property
    def result_dims(self) -> list[tuple[Term, ...]]:
        found = self.propagation.dims[self.node]
        return list(found) if isinstance(found, list) else [found]


class Probe(Ruled):
    """A call whose operands are changed, and that is cut."""

    def __init__(self, example: Example) -> None:
        super().__init__(example)
        assert not self.refused, self.refused
        self.results = self.run(self.operands)
        settle_choices([*self.operand_dims, *self.result_dims])

    @property
    def free(self) -> list[Atom]:
        """The atoms that may be cut, of operands and results."""
        dims = [term for entry in (*self.operand_dims, *self.result_dims) for term in entry]
        found = dict.fromkeys(leaf for term in dims for leaf in terms.leaves(term))
        return [atom for atom in found if not atom.reasons and atom.size > 1]

    @property
    def separate(self) -> list[Atom]:
        """The atoms that are neither summed nor normed over: what a unit holds concerns that unit alone."""
        summed = {leaf for contraction in self.propagation.contractions for leaf in terms.leaves(contraction.summed)}
        return [atom for atom in self.free if atom not in summed and not atom.tags & {"norm", "own_norm"}]

    def change(self, number: int, place: tuple[Any, ...]) -> list[np.ndarray]:
        """Return which entries of each result move when entries of one operand do."""
        operands = list(self.operands)
        operands[number] = operands[number].clone()
        operands[number][place] = changed(operands[number], self.described[number].below)[place]
        pairs = zip(self.results, self.run(operands), strict=True)
        return [~((a == b) | ((a != a) & (b != b))).numpy() for a, b in pairs]

    def masked(self, kept: Mapping[Atom, Indices]) -> list[Tensor]:
        """Return the operands without the units that are summed over and not kept."""
        operands = [tensor.clone() for tensor in self.operands]
        for contraction in self.propagation.contractions:
            positions = evaluate(contraction.term, kept)
            if contraction.operand in self.places and positions is not None:
                gone = np.setdiff1d(np.arange(int(terms.size(contraction.term))), positions)
                operands[self.places.index(contraction.operand)].index_fill_(contraction.dim, torch.as_tensor(gone), 0)
        return operands

    def cut(self, kept: Mapping[Atom, Indices]) -> list[Tensor]:
        """Run the rewritten call on slices of the operands."""
        small = [sliced(tensor, dims, kept) for tensor, dims in zip(self.operands, self.operand_dims, strict=True)]
        return self.run(small, module=Rewriter(self.propagation, kept).copy(self.module))


def sliced(tensor: Tensor, dims: tuple[Term, ...], kept: Mapping[Atom, Indices]) -> Tensor:
    """Return the entries of a tensor that survive a cut."""
    for dim, term in enumerate(dims):
        positions = evaluate(term, kept)
        if positions is not None:
            tensor = tensor.index_select(dim, torch.as_tensor(positions))
    return tensor


def changed(tensor: Tensor, below: int) -> Tensor:
    """Return every entry with another value."""
    if tensor.dtype == torch.bool:
        return ~tensor
    return (tensor + 1) % below if below else 0.5 * tensor + 0.03


def unit_of(term: Term, atom: Atom) -> np.ndarray:
    """Return for each position of a dimension which unit of an atom it belongs to, -1 for none."""
    found = np.full(int(terms.size(term)), -1)
    if atom in terms.leaves(term):
        others = evaluate(term, {atom: np.arange(0)})
        for unit in range(int(atom.size)):
            found[np.setdiff1d(evaluate(term, {atom: np.array([unit])}), others)] = unit
    return found


def entries_of(dims: tuple[Term, ...], atom: Atom) -> list[np.ndarray]:
    """Return for each unit of an atom which entries of a tensor belong to it."""
    positions = [unit_of(term, atom) for term in dims]
    rank = len(dims)
    lines = [line.reshape([-1 if d == e else 1 for e in range(rank)]) for d, line in enumerate(positions)]
    return [np.any(np.broadcast_arrays(*(line == unit for line in lines)), axis=0) if lines else np.zeros((), bool)
            for unit in range(int(atom.size))]  # fmt: skip
