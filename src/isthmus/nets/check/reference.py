"""The masked whole: a traced network at full size, in float64, without what the units that are not kept give.

It is not the cut: the graph of the whole runs, and what is summed over cut units has zeros for those that are lacking.
A norm across a cut axis is restricted to the units kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from isthmus.nets.axes import terms
from isthmus.nets.axes.evaluation import evaluate
from isthmus.nets.axes.records import Propagation
from isthmus.nets.axes.structure import Structure
from isthmus.nets.axes.terms import Atom, Indices
from isthmus.nets.graph.sizes import size_of
from isthmus.nets.graph.writes import targets
from isthmus.nets.pieces.held import kept, missing_blocks
from isthmus.nets.pieces.rewrite import Rewriter
from isthmus.nets.pieces.runnable import GraphNetwork

_DOUBLE = {
    torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}  # fmt: skip
_RANDOM = ("bernoulli", "exponential", "multinomial", "normal", "rand", "randint", "randn", "randperm", "uniform")


def masked_whole(
    coupling: Structure, state: Mapping[str, Tensor], held: Mapping[str, Indices], mode: str, inputs: Sequence[Tensor]
) -> tuple[list[Any], dict[str, Tensor]]:
    """Run the whole network without the contributions of the units that ``held`` lacks.

    Returns the flat results, and the buffers that forward assigns; those that it writes to are changed in ``state``.
    """
    exported, propagation = coupling.exports[mode], coupling.propagations[mode]
    values = [state[name] if name in state else wide(coupling.constants[name]) for name in exported.state]
    removals = {block.removals[mode].node: block.removals[mode].skip for block in missing_blocks(coupling, held)}
    device = next((tensor.device for tensor in state.values()), None)
    runner = _MaskedWhole(exported.module, propagation, kept(coupling, held), removals, device)
    with _double_by_default():
        results = list(runner.run(*values, *inputs))
    return results[len(exported.mutated) :], dict(zip(exported.mutated, results, strict=False))


def run_mode(
    module: GraphNetwork, mode: str, state: Mapping[str, Tensor], inputs: Sequence[Tensor]
) -> tuple[list[Any], dict[str, Tensor]]:
    """Run a subnetwork's graph on given state, without dropout; return what :func:`masked_whole` returns."""
    chosen, taken = module.mode(mode)
    pairs = zip(chosen.state, taken, strict=True)
    values = [state[name] if name in state else wide(tensor) for name, tensor in pairs]
    with _double_by_default():
        results = list(_Exact(chosen.graph).run(*values, *inputs))
    return results[len(chosen.mutated) :], dict(zip(chosen.mutated, results, strict=False))


class _Exact(fx.Interpreter):
    """Runs a graph in float64, without dropout and without autocast; random numbers are all alike.

    Args:
        module: the graph.
        device: where tensors that it makes go, whatever device it was traced on.
    """

    def __init__(self, module: fx.GraphModule, device: torch.device | None = None) -> None:
        super().__init__(module)
        self.device = device

    def run_node(self, n: fx.Node) -> Any:
        if n.op == "call_function" and "dropout" in str(n.target):
            return self.env[n.all_input_nodes[0]]
        result = super().run_node(n)
        return _settled(result) if n.op == "call_function" and is_random(n.target) else result

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        regions = [arg for arg in args if isinstance(arg, fx.GraphModule)]
        if regions:
            inner = _Region(self, regions[0])
            if "autocast" in str(target):
                return inner(*args[args.index(regions[0]) + 1 :])
            return target(*(inner if arg is regions[0] else arg for arg in args), **kwargs)
        names = [argument.name for argument in target._schema.arguments] if hasattr(target, "_schema") else []
        args = [self._exact(name, value) for name, value in zip(names, args, strict=False)] if names else args
        if "rrelu" in str(target):  # in training it draws a slope per entry: take the mean slope instead
            args = args[: names.index("training")]
        return super().call_function(target, tuple(args), {name: self._exact(name, v) for name, v in kwargs.items()})

    def of(self, region: fx.GraphModule) -> _Exact:
        """Return a runner of a region's graph."""
        return _Exact(region, self.device)

    def _exact(self, name: str, value: Any) -> Any:
        """Return an operator's argument for a run in float64, without dropout, here."""
        if name in ("dropout", "dropout_p"):
            return 0.0
        if isinstance(value, torch.device) and self.device is not None:
            return self.device
        return _DOUBLE.get(value, value) if isinstance(value, torch.dtype) else value


class _Region(nn.Module):
    """A region's graph, run the same way."""

    def __init__(self, outer: _Exact, region: fx.GraphModule) -> None:
        super().__init__()
        self.make = lambda: outer.of(region)

    def forward(self, *args: Any) -> Any:
        return self.make().run(*args)


class _MaskedWhole(_Exact):
    """Runs a graph at full size; operands of sums lose the units that are not kept, norms see only those kept."""

    def __init__(
        self,
        module: fx.GraphModule,
        propagation: Propagation,
        kept: Mapping[Atom, Indices],
        removals: Mapping[fx.Node, fx.Node],
        device: torch.device | None = None,
    ) -> None:
        super().__init__(module, device)
        self.propagation, self.kept, self.removals = propagation, kept, removals
        self.opened: dict[Any, int] = {}  # what open sizes are
        self.sums: dict[fx.Node, list[Any]] = {}
        for contraction in propagation.contractions:
            self.sums.setdefault(contraction.node, []).append(contraction)

    def of(self, region: fx.GraphModule) -> _Exact:
        return _MaskedWhole(region, self.propagation, self.kept, self.removals, self.device)

    def run_node(self, n: fx.Node) -> Any:
        if n in self.removals:
            return self.env[self.removals[n]]
        if any(leaf in self.kept for term in self.propagation.norms.get(n, ()) for leaf in terms.leaves(term)):
            kept = {source: self.env[source] for source in targets(n)}
            self.env.update({source: value.clone() for source, value in kept.items()})
            try:
                whole = super().run_node(n)
            finally:
                self.env.update(kept)  # statistics are of the units that are kept, too
            return self._restricted(n, whole)
        saved: dict[fx.Node, Any] = {}
        for contraction in self.sums.get(n, ()):
            positions = evaluate(contraction.term, self.kept, self.opened)
            if positions is not None:
                saved.setdefault(contraction.operand, self.env[contraction.operand])
                self.env[contraction.operand] = _masked(self.env[contraction.operand], contraction.dim, positions)
        try:
            result = super().run_node(n)
        finally:
            self.env.update(saved)
        if n.op == "placeholder" and isinstance(result, Tensor):
            self.opened |= zip(map(size_of, n.meta["val"].shape), result.shape, strict=True)
            # A size that is a number in this mode's graph may be open in the other's, and so for both.
            dims = self.propagation.dims.get(n) or ()
            self.opened |= {terms.size(term): size for term, size in zip(dims, result.shape, strict=False)}
        return result

    def _restricted(self, node: fx.Node, whole: Any) -> Any:
        """Run one node on the kept units only, and put its results among those of the whole.

        What other units have reaches nothing; in place of it zeros might be divided by.
        """
        graph = fx.Graph()
        operands = list(node.all_input_nodes)
        new = {source: graph.placeholder(source.name) for source in operands}
        rewriter = Rewriter(self.propagation, self.kept)
        copied = rewriter.copy_node(graph, node, new, {})
        graph.output(copied)
        dims, given = self.propagation.dims, (self.kept, self.opened)
        sliced = [_sliced(self.env[source], dims.get(source), *given) for source in operands]
        result = fx.GraphModule(nn.Module(), graph)(*sliced)
        for source, part in zip(operands, sliced, strict=True):
            if source in targets(node) and part is not self.env[source]:
                whole_part = self.env[source]
                whole_part.copy_(_scattered(part, whole_part, dims[source], *given))
        result = _renumbered(result, self.propagation.positions.get(node), self.kept)
        return _scattered(result, whole, dims[node], *given)


def is_random(target: Any) -> bool:
    """Whether an operator draws the entries of its result (dropout apart, which draws what to leave out)."""
    name = getattr(getattr(target, "_schema", None), "name", "")
    return name.removeprefix("aten::").removesuffix("_").removesuffix("_like") in _RANDOM


def _settled(drawn: Tensor) -> Tensor:
    """Replace random entries, in place: a subnetwork draws fewer of them, so they could not agree with the whole's."""
    if drawn.dtype is torch.bool:
        return drawn.fill_(True)
    if drawn.is_floating_point() or drawn.is_complex():
        return drawn.fill_(0.5)
    return drawn.copy_(torch.arange(drawn.numel(), dtype=drawn.dtype).reshape(drawn.shape) % (drawn.max() + 1))


@contextlib.contextmanager
def _double_by_default() -> Iterator[None]:
    """Tensors that a graph makes without naming a type are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _masked(value: Tensor, dim: int, positions: Indices) -> Tensor:
    mask = torch.zeros(value.shape[dim], dtype=torch.bool, device=value.device)
    mask[torch.as_tensor(positions)] = True
    shape = [1] * value.dim()
    shape[dim] = -1
    return torch.where(mask.reshape(shape), value, torch.zeros_like(value))


def _sliced(value: Any, dims: Any, kept: Mapping[Atom, Indices], opened: Mapping[Any, int]) -> Any:
    if not isinstance(value, Tensor) or not isinstance(dims, tuple):
        return value
    for dim, term in enumerate(dims):
        positions = evaluate(term, kept, opened)
        if positions is not None:
            value = value.index_select(dim, torch.as_tensor(positions, device=value.device))
    return value


def _scattered(
    result: Any, whole: Any, dims: Any, kept: Mapping[Atom, Indices], opened: Mapping[Any, int]
) -> Any:
    """Return the whole with a result at the places of the units that are kept."""
    if isinstance(dims, list):
        return type(result)(_scattered(r, w, d, kept, opened) for r, w, d in zip(result, whole, dims, strict=True))
    here = torch.ones((1,) * whole.dim(), dtype=torch.bool, device=whole.device)
    for dim, term in enumerate(dims):
        positions = evaluate(term, kept, opened)
        if positions is not None:
            index = torch.as_tensor(positions, device=whole.device)
            shape = list(result.shape)
            shape[dim] = whole.shape[dim]
            result = result.new_zeros(shape).index_copy(dim, index, result)
            shape = [-1 if d == dim else 1 for d in range(whole.dim())]
            here = here & torch.zeros(whole.shape[dim], dtype=torch.bool, device=whole.device).index_fill(
                0, index, True
            ).reshape(shape)
    return torch.where(here, result, whole)


def _renumbered(result: Any, where: Any, kept: Mapping[Atom, Indices]) -> Any:
    """Return positions among the units kept as those among all."""
    if isinstance(where, list):
        return type(result)(_renumbered(r, w, kept) for r, w in zip(result, where, strict=True))
    among = None if where is None else evaluate(where, kept)
    return result if among is None else torch.as_tensor(among)[result]


def wide(tensor: Tensor) -> Tensor:
    """Return a tensor in float64, or complex128; whole numbers and truth values as they are."""
    if tensor.is_complex():
        return tensor.detach().to(torch.complex128, copy=True)
    return tensor.detach().double() if tensor.is_floating_point() else tensor.detach().clone()
