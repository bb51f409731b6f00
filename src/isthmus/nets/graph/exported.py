"""One mode of a network as torch exports it: the graph, what it takes and what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from isthmus.nets.graph.conditions import Remainder

MODES = ("train", "eval")
Pinned = frozenset[tuple[int, int]]
Limits = Mapping[tuple[int, int], tuple[int, int | None]]


@dataclass
class ExportedGraph:
    """One exported graph.

    Attributes:
        module: its graph takes state, constants and input tensors, in this order, and returns a flat tuple.
        state: for each leading placeholder the name of the parameter, buffer or constant it takes.
        constants: tensors created while tracing, by name.
        inputs: number of input tensors.
        mutated: names of the buffers whose new values lead the outputs, updated in place or assigned.
        outputs: one name per remaining output, for messages.
        out_spec: how the outputs are put together again.
        fixed: sizes of inputs the graph is bound to, by input and dimension.
        limits: between which an open size has to be where that is said, by input and dimension: what the network asked
            of sizes while it was traced (a branch on one) is answered so there alone.
        remainders: what has to hold of those of open sizes by a number.
        dropped: results of unknown types (a cache object), None in their place.
        notes: what the graph does otherwise than the network.
        given_up: (input, dimension) pairs whose sizes were not opened because too much follows from them.
    """

    module: fx.GraphModule
    state: list[str]
    constants: dict[str, Tensor]
    inputs: int
    mutated: list[str]
    outputs: Sequence[str]
    out_spec: Any
    fixed: Mapping[tuple[int, int], int] = field(default_factory=dict)
    limits: Limits = field(default_factory=dict)
    remainders: Sequence[Remainder] = ()
    dropped: Sequence[str] = ()
    notes: Sequence[str] = ()
    given_up: Pinned = frozenset()

    @property
    def state_nodes(self) -> dict[fx.Node, str]:
        """The leading placeholders, each with the name of the parameter, buffer or constant it takes."""
        return dict(zip(self._placeholders(), self.state, strict=False))

    @property
    def input_nodes(self) -> list[fx.Node]:
        """The placeholders of the input tensors."""
        return self._placeholders()[len(self.state) :]

    @property
    def used(self) -> set[str]:
        """Names of the parameters, buffers and constants that the graph really uses."""
        return {name for node, name in self.state_nodes.items() if node.users}

    def _placeholders(self) -> list[fx.Node]:
        return [node for node in self.module.graph.nodes if node.op == "placeholder"]


def places_of(exported: ExportedGraph, pinned: Iterable[frozenset[Any]]) -> Pinned:
    """Return (input, dimension) pairs to close, given the symbols of every open size that has to be one number.

    A size that holds the batch and something else (batch x windows) has the something else closed.
    """
    sizes = [node.meta["val"].shape for node in exported.input_nodes]
    symbols = {
        (i, d): entry.node.expr.free_symbols
        for i, shape in enumerate(sizes)
        for d, entry in enumerate(shape)
        if not isinstance(entry, int)
    }
    inner = {symbol for (_, d), found in symbols.items() if d > 0 for symbol in found}
    closing = {symbol for found in pinned for symbol in (found & inner or found)}
    return frozenset(place for place, found in symbols.items() if found & closing)


def module_path(node: fx.Node) -> str:
    """Return the path of the submodule a node was traced in; "" for the network itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = stack[-1][0] if stack else ""
    return path.removeprefix("inner").removeprefix(".") if path.startswith("inner") else ""
