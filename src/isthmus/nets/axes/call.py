"""One call of an operator, as its rule sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import fx

from isthmus.nets.axes import terms
from isthmus.nets.axes.records import Contraction, Dims, Place, Propagation, SizeConstant
from isthmus.nets.axes.terms import Term
from isthmus.nets.graph.exported import module_path
from isthmus.nets.graph.sizes import size_of


class NoRule(Exception):
    """A rule does not cover this call; what it touches is frozen with the message as reason."""


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


def operator_name(node: fx.Node) -> str:
    """Return the operator of a node as people write it: ``aten.softmax``."""
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return str(schema.name).replace("::", ".")
    name = getattr(node.target, "__name__", None)
    return str(node.target) if name is None else str(name)


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


def _arguments(node: fx.Node) -> dict[str, Any]:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return dict(node.kwargs)
    filled = {argument.name: argument.default_value for argument in schema.arguments}
    filled.update({argument.name: value for argument, value in zip(schema.arguments, node.args, strict=False)})
    filled.update(node.kwargs)
    return filled
