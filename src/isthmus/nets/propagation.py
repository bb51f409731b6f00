"""One pass over an exported graph: the term of every dimension, and what a cut has to change.

Each operator's rule (``isthmus.nets.rules``) states how the dimensions of its results follow from those of its
operands. An operator without a rule freezes all it touches, naming itself and the submodule it was called in.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sympy
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from isthmus.nets import terms
from isthmus.nets.exported import ExportedGraph, module_path
from isthmus.nets.moves import MOVES, SAME
from isthmus.nets.registry import Rule, find_rule
from isthmus.nets.sizes import size_of
from isthmus.nets.terms import Atom, Cat, Indices, Term

Dims = tuple[Term, ...]
Value = Any  # Dims of a tensor, a list of values, or None for numbers


class NoRule(Exception):
    """A rule does not cover this call; what it touches is frozen with the message as reason."""


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
        places = terms.evaluate(self.term, kept)
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
        from_state: nodes computed from parameters and buffers alone.
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


class Call:
    """One call of an operator, as its rule sees it."""

    def __init__(self, node: fx.Node, propagation: Propagation, owner: fx.GraphModule) -> None:
        self.node = node
        self.propagation = propagation
        self.owner = owner
        self.arguments = _arguments(node)
        self.understood: set[fx.Node] = set()

    @property
    def where(self) -> str:
        """The operator and the submodule that called it, for reasons."""
        path = module_path(self.node)
        return f"{operator_name(self.node)} in {path}" if path else operator_name(self.node)

    def __getitem__(self, name: str) -> Any:
        """Return an argument by its name in the operator's schema, defaults filled in."""
        return self.arguments.get(name)

    def dims(self, operand: Any) -> Dims:
        """Return the terms of a tensor operand."""
        value = self.propagation.dims.get(operand)
        if not isinstance(value, tuple):
            raise NoRule("an operand is not a tensor it knows")
        return value

    def is_tensor(self, operand: Any) -> bool:
        """Whether an argument is a tensor."""
        return isinstance(operand, fx.Node) and isinstance(self.propagation.dims.get(operand), tuple)

    def tensors(self) -> list[fx.Node]:
        """Return all tensor operands, those in lists included."""
        return [node for node in self.node.all_input_nodes if self.is_tensor(node)]

    def shape(self, index: int | None = None) -> list[Any]:
        """Return the sizes of the result (of one of the results)."""
        value = self.node.meta["val"]
        return [size_of(size) for size in (value if index is None else value[index]).shape]

    def count(self, name: str) -> Any:
        """Return an integer argument as a size: a number, or the expression behind an open one (groups of a batch)."""
        value = self[name]
        return size_of(value.meta["val"]) if isinstance(value, fx.Node) else value

    def unify(self, a: Term, b: Term) -> None:
        """State that two dimensions hold the same units."""
        first, second = terms.size(a), terms.size(b)
        if isinstance(first, int) != isinstance(second, int):
            self.propagation.pinned.add(frozenset((second if isinstance(first, int) else first).free_symbols))
        terms.unify(a, b, f"two layouts of its units meet at {self.where} and cannot be aligned")

    def freeze(self, term: Term, reason: str) -> None:
        """Keep a dimension whole."""
        terms.freeze(term, f"{reason} ({self.where})")

    def whole(self, size: Any, reason: str) -> Term:
        """Return a new dimension that is kept whole."""
        return terms.fresh(size, f"{reason} ({self.where})")

    def resize(self, argument: str, term: Term, index: int | None = None, offset: int = 0) -> None:
        """Note that an integer argument is the size of ``term``, plus an offset, and has to follow it."""
        self.propagation.sizes.append(SizeConstant(self.node, argument, index, term, offset))

    def positions(self, operand: Any) -> Term | None:
        """Return the term along which the entries of an operand are positions, if they are and it may be cut.

        Who asks takes them for positions; where nobody does, the numbers themselves matter, and the term is kept whole.
        """
        found = self.propagation.positions.get(operand)
        self.understood.add(operand)
        return None if found is None or isinstance(found, list) else found

    def point(self, *results: Term | None) -> None:
        """Note along which terms the entries of the results are positions."""
        self.propagation.positions[self.node] = list(results) if len(results) > 1 else results[0]

    def place(self, argument: str, term: Term, position: Any, reason: str) -> None:
        """Note that an argument is a place along ``term``, which is kept whole unless its units are experts."""
        if isinstance(position, int) and self.owner is self.propagation.whole and not terms.is_hard(term):
            terms.choose(term, f"{reason} ({self.where})")
            self.propagation.places.append(Place(self.node, argument, term, position % terms.size(term)))
        else:
            self.freeze(term, reason)

    def look_up(self, operand: Any, term: Term, reason: str) -> None:
        """Note that the entries of an operand are places in a dimension, which is whole unless they are known ones."""
        where = self.positions(operand)
        if where is None:
            self.freeze(term, reason)
        else:
            self.unify(term, where)

    def choose(self, term: Term, reason: str) -> None:
        """Note that the operator chooses or weighs along a dimension: it is kept whole unless its units are experts."""
        terms.choose(term, f"{reason} ({self.where})")
        terms.tag(term, "routed")
        self.propagation.norms.setdefault(self.node, []).append(term)

    def contract(
        self,
        operand: fx.Node,
        dim: int,
        kind: str,
        summed: Term | None = None,
        weight: tuple[fx.Node, int] | None = None,
    ) -> None:
        """Note that the operator sums over a dimension of an operand, against a dimension of ``weight`` if named."""
        dims = self.dims(operand)
        term = dims[dim]
        if weight is None and operand in self.propagation.from_state:
            weight = operand, dim
        if kind != "weight":
            weight = None
        node, place = (None, 0) if weight is None else (weight[0], weight[1] % len(self.dims(weight[0])))
        self.propagation.contractions.append(
            Contraction(
                self.node, operand, dim % len(dims), term, term if summed is None else summed, kind, node, place
            )
        )

    def against(self, other: fx.Node) -> str:
        """Return the kind of a contraction against ``other``."""
        return "weight" if other in self.propagation.from_state else "activation"

    def norm(self, term: Term) -> None:
        """Note that the operator normalises across a dimension: a subnetwork normalises over what it keeps.

        A norm of weights alone (weight norm, spectral norm) is one of the piece's own weights; it keeps nothing whole.
        Nor does a mean over heads that is only returned (attention weights).
        """
        if leaves := terms.leaves(term):
            of_weights = all(tensor in self.propagation.from_state for tensor in self.tensors())
            if not of_weights and not (all("head" in leaf.tags for leaf in leaves) and _only_returned(self.node)):
                terms.tag(term, "norm")
            else:
                terms.tag(term, "own_norm")
            self.propagation.norms.setdefault(self.node, []).append(term)

    def broadcast(self, operands: Sequence[Dims]) -> Dims:
        """Return the dimensions of operands aligned from the right; those of size 1 stretch."""
        rank = max((len(dims) for dims in operands), default=0)
        result: list[Term] = []
        for position in range(-rank, 0):
            here = [dims[position] for dims in operands if len(dims) >= -position]
            wide = [term for term in here if terms.size(term) != 1]
            for other in wide[1:]:
                self.unify(wide[0], other)
            result.append(wide[0] if wide else terms.ONE)
        return tuple(result)


def propagate(exported: ExportedGraph, state: Mapping[str, Dims]) -> Propagation:
    """Propagate the dimensions of parameters and buffers through a graph; atoms are bound on the way."""
    propagation = Propagation(whole=exported.module)
    for node, name in exported.state_nodes.items():
        propagation.dims[node] = state[name]
        propagation.from_state.add(node)
    for number, node in enumerate(exported.input_nodes):
        propagation.dims[node] = tuple(terms.fresh(size_of(s), f"input {number}") for s in node.meta["val"].shape)
    results = _visit(exported.module, propagation)
    for index, result in enumerate(results):
        extra = index - len(exported.mutated)
        if extra < 0:
            _unify_all(propagation.dims.get(result), state[exported.mutated[index]])
        else:
            reason = f"returned by the network ({exported.outputs[extra]})"
            _freeze_value(propagation.dims.get(result), reason)
            _freeze_value([propagation.positions.get(result)], reason)
    return propagation


def visit_region(call: Call, module: fx.GraphModule, operands: Sequence[Any]) -> list[Value]:
    """Visit the graph of a region (autocast, no_grad) with the dimensions of its operands; return those it returns."""
    propagation = call.propagation
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    for node, operand in zip(placeholders, operands, strict=True):
        if isinstance(operand, fx.Node):
            propagation.dims[node] = propagation.dims.get(operand)
            if (known := call.positions(operand)) is not None:
                propagation.positions[node] = known
            if operand in propagation.from_state:
                propagation.from_state.add(node)
    results = _visit(module, propagation)
    call.point(*(propagation.positions.get(result) for result in results), None)
    return [propagation.dims.get(result) for result in results]


def operator_name(node: fx.Node) -> str:
    """Return the operator of a node as people write it: ``aten.softmax``."""
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return str(schema.name).replace("::", ".")
    name = getattr(node.target, "__name__", None)
    return str(node.target) if name is None else str(name)


def _visit(module: fx.GraphModule, propagation: Propagation) -> list[Any]:
    for node in module.graph.nodes:
        if node.op == "call_function":
            propagation.dims[node] = _result(Call(node, propagation, module))
            inputs = [i for i in node.all_input_nodes if propagation.dims.get(i) is not None]
            if inputs and all(i in propagation.from_state for i in inputs):
                propagation.from_state.add(node)
        elif node.op == "output":
            return list(node.args[0])
    raise AssertionError("a graph without outputs")


def _result(call: Call) -> Value:
    node = call.node
    if node.target is operator.getitem:
        value = call.propagation.dims.get(node.args[0])  # type: ignore[arg-type]
        known = call.propagation.positions.get(node.args[0])  # type: ignore[arg-type]
        if isinstance(known, list) and known[node.args[1]] is not None:  # type: ignore[index]
            call.point(known[node.args[1]])  # type: ignore[index]
        return value[node.args[1]] if isinstance(value, list) else None  # type: ignore[index]
    if not _has_tensors(node.meta.get("val")) and not any(i.op == "get_attr" for i in node.all_input_nodes):
        if not node.users and call.tensors():
            _freeze_call(call, "used by an operator without a result")
        return None
    rule = find_rule(node)
    records: tuple[list[Any], ...] = (
        call.propagation.sizes,
        call.propagation.contractions,
        call.propagation.places,
        call.propagation.picks,
    )
    marks = [len(each) for each in records]
    try:
        if rule is None:
            raise NoRule("no rule for this operator")
        value = _applied(rule, call)
        _check(value, node.meta["val"], call.propagation)
        _follow_positions(call, value)
    except NoRule as problem:
        call.understood.clear()
        call.propagation.positions.pop(node, None)
        for each, mark in zip(records, marks, strict=True):
            del each[mark:]
        return _freeze_call(call, str(problem))
    return value


def _applied(rule: Rule, call: Call) -> Value:
    """A rule that fails on a call (on an open size where it counts on a number, or one of values) does not cover it."""
    try:
        return rule(call)
    except (TypeError, ValueError, LookupError, ArithmeticError, GuardOnDataDependentSymNode) as failure:
        raise NoRule(f"its rule does not cover this call, {type(failure).__name__}") from failure


def _freeze_call(call: Call, problem: str) -> Value:
    reason = f"{problem} ({call.where})"
    if reason not in call.propagation.problems:
        call.propagation.problems.append(reason)
    for tensor in call.tensors():
        _freeze_value(call.propagation.dims[tensor], reason)
        _freeze_value([call.propagation.positions.get(tensor)], reason)
    for nested in call.node.all_input_nodes:
        if isinstance(call.propagation.dims.get(nested), list):
            _freeze_value(call.propagation.dims[nested], reason)
    return _fresh_value(call.node.meta.get("val"), reason)


def _follow_positions(call: Call, value: Value) -> None:
    """Pass on which entries are positions where they only move; freeze what they say where they are numbers."""
    name = str(getattr(call.node.target, "_schema", call.node.target)).partition("(")[0]
    moved = name.removeprefix("aten::").partition(".")[0].rstrip("_") in MOVES | SAME
    for number, tensor in enumerate(call.tensors()):
        where = None if tensor in call.understood else call.propagation.positions.get(tensor)
        if where is None or isinstance(where, list):
            continue
        if moved and number == 0:
            call.point(*([where] * max(2, len(value)) if isinstance(value, list) else [where]))
        elif not moved:
            call.freeze(where, "positions used as values")


def _fresh_value(value: Any, reason: str) -> Value:
    if isinstance(value, Tensor):
        return tuple(terms.fresh(size_of(size), reason) for size in value.shape)
    if isinstance(value, (list, tuple)):
        return [_fresh_value(item, reason) for item in value]
    return None


def _freeze_value(value: Value, reason: str) -> None:
    for item in value or ():
        if isinstance(item, (tuple, list)):
            _freeze_value(item, reason)
        elif item is not None:
            terms.freeze(item, reason)


def _unify_all(value: Value, dims: Dims) -> None:
    for a, b in zip(value or (), dims, strict=False):
        terms.unify(a, b)


def _only_returned(node: fx.Node) -> bool:
    """Whether a value goes to the outputs, meeting nothing else on the way."""
    seen, stack = {node}, [node]
    while stack:
        for user in stack.pop().users:
            if user.op != "output" and not all(source in seen for source in user.all_input_nodes):
                return False
            if user.op != "output" and user not in seen:
                seen.add(user)
                stack.append(user)
    return True


def _has_tensors(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(_has_tensors(item) for item in value)
    return isinstance(value, Tensor)


def _check(value: Value, expected: Any, propagation: Propagation) -> None:
    """A rule whose sizes do not agree with the traced shapes does not apply; an open size traced as a number is one."""
    if isinstance(expected, Tensor):
        shape = [size_of(size) for size in expected.shape]
        sizes = [terms.size(term) for term in value] if isinstance(value, tuple) else None
        for found, traced in zip(sizes or (), shape, strict=False):
            if isinstance(traced, int) and not isinstance(found, int):
                propagation.pinned.add(frozenset(found.free_symbols))
        if sizes is None or len(sizes) != len(shape) or not all(map(_same, sizes, shape)):
            raise NoRule("its rule does not cover this call")
    elif isinstance(expected, (list, tuple)):
        if not isinstance(value, list) or len(value) != len(expected):
            raise NoRule("its rule does not cover this call")
        for item, each in zip(value, expected, strict=True):
            _check(item, each, propagation)


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) or (not (isinstance(a, int) and isinstance(b, int)) and sympy.expand(a - b) == 0)


def _arguments(node: fx.Node) -> dict[str, Any]:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return dict(node.kwargs)
    filled = {argument.name: argument.default_value for argument in schema.arguments}
    filled.update({argument.name: value for argument, value in zip(schema.arguments, node.args, strict=False)})
    filled.update(node.kwargs)
    return filled
