"""Whether a network is traced, and answers, batch by batch: a sample by itself is not what training calls it with."""

from __future__ import annotations

from typing import Any

from torch import fx

from isthmus.errors import InvalidInput
from isthmus.nets.axes import terms
from isthmus.nets.axes.records import Contraction, Propagation
from isthmus.nets.graph.example import Example
from isthmus.nets.graph.exported import ExportedGraph
from isthmus.nets.graph.sizes import size_of


def check_batch(exported: ExportedGraph, propagation: Propagation, example: Example) -> None:
    """Refuse an example that is certainly one sample: a vector of features, an image whose first dimension is channels.

    The nodes of a graph are no batch either, but they are legal: only the first dimension of an input that weights sum
    over tells.

    Raises:
        InvalidInput: such an example.
    """
    if _batch_symbols(exported):
        return
    weights = [contraction for contraction in propagation.contractions if contraction.kind == "weight"]
    for number, node in enumerate(exported.input_nodes):
        value = example.tensors[number]
        if value.is_floating_point() and any(_sums_first(c, node, propagation) for c in weights):
            raise InvalidInput(
                f"`args` must hold a batch of samples, got one sample in input {number} of shape {tuple(value.shape)}: "
                "its first dimension is that of the features; add one for the batch before it"
            )


def batch_problem(exported: ExportedGraph) -> str | None:
    """Return what there is to say if no result of a network called with batches follows the batch, not even a loss."""
    symbols = _batch_symbols(exported)
    results = [r.meta["val"] for r in _results(exported) if hasattr(r.meta.get("val"), "shape")]
    if not symbols or not results or any(value.dim() == 0 for value in results):
        return None
    if any(_symbols(size) & symbols for value in results for size in value.shape):
        return None
    return f"no result has a size that follows the batch (result {exported.outputs[0]}: {tuple(results[0].shape)})"


def _sums_first(contraction: Contraction, node: fx.Node, propagation: Propagation) -> bool:
    """Whether an operator sums over the first dimension of an input where that of a batch had to be before it."""
    value, operand = node.meta["val"], contraction.operand
    first = set(terms.leaves(propagation.dims[node][0])) if value.dim() else set()
    if not (first & set(terms.leaves(contraction.term)) or (operand is node and contraction.dim == 0)):
        return False
    if value.dim() == 1:
        return True
    is_convolution = "conv" in str(contraction.node.target)
    return is_convolution and contraction.dim == 0 and operand.meta["val"].dim() == value.dim()


def _results(exported: ExportedGraph) -> list[fx.Node]:
    output = next(node for node in reversed(exported.module.graph.nodes) if node.op == "output")
    returned: Any = output.args[0]
    return [result for result in returned[len(exported.mutated) :] if isinstance(result, fx.Node)]


def _batch_symbols(exported: ExportedGraph) -> set[Any]:
    """Return the symbols of the open first sizes of the inputs; none if nothing was open to be a batch."""
    return {symbol for node in exported.input_nodes for size in node.meta["val"].shape[:1] for symbol in _symbols(size)}


def _symbols(size: Any) -> set[Any]:
    found = size_of(size)
    return set() if isinstance(found, int) else set(found.free_symbols)
