"""Check that random cuts equal the whole network with the other units' contributions set to zero.

The reference is not the cut: it runs the traced graph of the whole, at full size, and sets to zero, at every operator
that sums over cut units, those the worker lacks. A norm across a cut axis is restricted to the units kept.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from isthmus.errors import InvalidInput
from isthmus.nets import terms
from isthmus.nets.coupling import Coupling
from isthmus.nets.exported import MODES
from isthmus.nets.faithful import NotRun, NotTraced, against_model, unseen
from isthmus.nets.merging import merging_errors
from isthmus.nets.outcome import Outcome, compared, gradients, nudged
from isthmus.nets.propagation import Propagation
from isthmus.nets.rewrite import Rewriter
from isthmus.nets.runnable import GraphNetwork
from isthmus.nets.sizes import size_of
from isthmus.nets.sizings import with_batch, with_sides
from isthmus.nets.subnetwork import Subnetwork, build, named_state
from isthmus.nets.terms import Atom, Indices
from isthmus.nets.verdict import Check, Unjudged, Verdict
from isthmus.nets.writes import targets, written

_DOUBLE = {
    torch.float16: torch.float64, torch.bfloat16: torch.float64, torch.float32: torch.float64,
    torch.complex64: torch.complex128,
}  # fmt: skip
_RANDOM = ("bernoulli", "exponential", "multinomial", "normal", "rand", "randint", "randn", "randperm", "uniform")
_FEW = 2  # samples of a quick verification


def verify(
    coupling: Coupling,
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    seeds: Sequence[int] = (0, 1),
    workers: int = 2,
    tolerance: float = 1e-5,
    quick: bool = False,
) -> Verdict:
    """Compare the traced whole with the network, random cuts with the masked whole, and merging with plain means.

    Compared are results of any form, gradients and all buffers, in training and evaluation, at the sizes of the call
    and at others that are open. Cuts are compared in float64, without dropout, with numbers that are moved a little, so
    that no zeros hide anything. The model is not changed, nor torch's random numbers.

    Args:
        coupling, model: the network.
        args, kwargs: a call of it.
        seeds: of the cuts that are compared.
        workers: how many share the network in them.
        tolerance: relative error of results that rounding does not move.
        quick: two samples and one cut.

    Raises:
        InvalidInput: a call that differs from the traced one in more than its tensors and open sizes.
        Unjudged: nothing can be said: the network is on the meta device, does not take the call, returns no numbers, or
            rounding moves its results too much.
    """
    state = {name: tensor.detach() for name, tensor in named_state(model)}
    if any(tensor.device.type == "meta" for tensor in state.values()):
        raise Unjudged("it is on the meta device and has no values")
    inputs = coupling.example.tensors_of(tuple(args), dict(kwargs or {}))
    whole = build(state, coupling, {}).module
    for mode in MODES:
        whole.mode(mode)[0].check(inputs)
    if quick:
        inputs = with_batch(coupling, inputs, _FEW) or inputs
    cuda = {tensor.device for tensor in state.values() if tensor.device.type == "cuda"}
    with torch.random.fork_rng(devices=sorted(cuda, key=str)):
        calls, checks, unjudged = _against_model(coupling, model, state, inputs, quick)
        if not all(check.passed for check in checks):  # what follows takes the trace for the network
            return Verdict(tuple(checks), (*unjudged, "cuts"))
        for seed in (seeds[:1] if quick else seeds) if coupling.cut_axes else ():
            checks += _compare_cuts(coupling, state, seed, workers, calls, tolerance)
        if coupling.cut_axes:
            checks += _compare_merging(coupling, state, seeds[0] if seeds else 0)
    return Verdict(tuple(checks), (*unjudged, *unseen(coupling)))


@dataclass(frozen=True)
class _Call:
    """A call of the network in one mode, and what to say of its sizes."""

    mode: str
    inputs: Sequence[Tensor]
    sizes: str = ""

    @property
    def label(self) -> str:
        return self.mode + self.sizes


def _against_model(
    coupling: Coupling, model: nn.Module, state: Mapping[str, Tensor], inputs: Sequence[Tensor], quick: bool
) -> tuple[list[_Call], list[Check], list[str]]:
    """Compare the traced whole with the network; return too the calls that the network takes, and what it does not."""
    taken: list[_Call] = []
    checks: list[Check] = []
    refused: list[str] = []

    def attempt(*calls: _Call) -> bool:
        """Compare in calls, unless the network does not take one: other sizes may be none for it."""
        try:
            found = [check for c in calls for check in against_model(coupling, model, state, c.mode, c.inputs, c.label)]
        except NotRun as failure:
            if isinstance(failure, NotTraced) and not calls[0].sizes:
                checks.append(Check(f"the traced network cannot be run ({calls[0].label}; {failure})", math.inf, False))
            else:  # what refuses a size is not wrong
                refused.append(f"{calls[0].label}, in which the network does not take this call ({failure})")
            return False
        checks.extend(found)
        taken.extend(calls)
        return True

    if quick:
        attempt(_Call("train", inputs))
        others = [_Call("eval", other, " at other sizes") for other in _others(coupling, inputs)]
        any(attempt(call) for call in (*others, _Call("eval", inputs)))
    else:
        for mode in MODES:
            attempt(_Call(mode, inputs))
    modes = list(dict.fromkeys(call.mode for call in taken))
    if not modes and not checks:
        raise Unjudged(f"in {refused[-1]}")
    unjudged = [each for each in refused if each.split(",")[0] in MODES]
    batch = None if quick or not modes or not inputs[0].dim() else with_batch(coupling, inputs, inputs[0].shape[0] + 1)
    if batch is not None:
        attempt(*(_Call(mode, batch, " at another batch size") for mode in modes))
    sides = () if quick or not modes else with_sides(coupling, inputs)
    any(attempt(*(_Call(mode, other, " at other sizes") for mode in modes)) for other in sides)
    return taken, checks, unjudged


def _others(coupling: Coupling, inputs: Sequence[Tensor]) -> Iterator[Sequence[Tensor]]:
    """Yield calls in which all open sizes are others, then those in which the batch alone is."""
    more = with_batch(coupling, inputs, inputs[0].shape[0] + 1) if inputs[0].dim() else None
    yield from with_sides(coupling, more or inputs)
    if more is not None:
        yield more


def _compare_cuts(
    coupling: Coupling, state: Mapping[str, Tensor], seed: int, workers: int, calls: Sequence[_Call], tolerance: float
) -> list[Check]:
    """Compare one cut with the masked whole, in all calls."""
    held = coupling.partition(workers, seed, law="overlapping").of(seed % workers)
    wide = {name: _wide(tensor) for name, tensor in _moved(coupling, state, seed).items()}
    try:
        sub = build(wide, coupling, held)
    except (InvalidInput, RuntimeError, IndexError) as failure:
        return [_broken(f"cut {seed}", failure)]
    checks = []
    for call in calls:
        label = f"{call.mode}, cut {seed}{call.sizes}"
        checks += _compare_cut(coupling, wide, sub, call.mode, list(map(_wide, call.inputs)), label, tolerance)
    return checks


def _compare_cut(
    coupling: Coupling,
    state: Mapping[str, Tensor],
    sub: Subnetwork,
    mode: str,
    inputs: Sequence[Tensor],
    label: str,
    tolerance: float,
) -> list[Check]:
    def reference(state: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> Outcome:
        leaves = _leaves(coupling, state)
        whole = _outcome(*masked_whole(coupling, leaves, sub.held, mode, inputs), leaves)
        sides = (whole.gradients, whole.buffers)
        mine = ({n: sub.slice(n, tensor) for n, tensor in side.items() if n in sub.indices} for side in sides)
        return Outcome(whole.outputs, *mine)

    try:
        expected = reference(state, inputs)
    except RuntimeError as failure:
        raise Unjudged(f"the whole cannot be computed in float64 ({label}; {_said(failure)})") from failure
    if not any(output.numel() and bool(output.isfinite().any()) for output in expected.outputs):
        raise Unjudged(f"it returns no finite number in float64 ({label}): there is nothing to compare")
    leaves = _leaves(coupling, sub.state())
    try:
        found = _outcome(*_run_mode(sub.module, mode, leaves, inputs), leaves)
    except (RuntimeError, TypeError, ValueError, IndexError) as failure:
        return [_broken(label, failure)]
    if [tuple(each.shape) for each in found.outputs] != [tuple(each.shape) for each in expected.outputs]:
        return [Check(f"outputs' shapes ({label})", math.inf, False)]

    def again() -> Outcome:
        generator = torch.Generator().manual_seed(0)
        moved = dict(zip(state, nudged(list(state.values()), generator), strict=True))
        return reference(moved, nudged(inputs, generator))

    limits = {"outputs": tolerance, "gradients": 10 * tolerance, "buffers": tolerance}
    return compared(found, expected, limits, lambda part: f"{part} ({label})", again)


def _compare_merging(coupling: Coupling, state: Mapping[str, Tensor], seed: int) -> list[Check]:
    """Compare what merging gives of three workers, who share a part of every axis."""
    found = []
    try:
        partition = coupling.partition(3, seed, law="overlapping", core=0.25)
        for what, error in merging_errors(coupling, state, partition):
            found.append(Check(what, error, error == 0.0))
    except (InvalidInput, RuntimeError, IndexError) as failure:
        found.append(_broken("merging", failure))
    return found


def _broken(label: str, failure: Exception) -> Check:
    return Check(f"a piece cannot be run ({label}; {_said(failure)})", math.inf, False)


def _said(failure: Exception) -> str:
    return f"{type(failure).__name__}: {' '.join(str(failure).split())[:120]}"


def _moved(coupling: Coupling, state: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return the state of a network that has been trained a little: no zeros, and no two numbers alike.

    Signs stay, and buffers that no forward pass writes to: they may be masks or positions.
    """
    generator = torch.Generator().manual_seed(seed)
    changing = written(coupling)
    aliases = {alias: entry.name for entry in coupling.entries.values() for alias in entry.aliases}
    moved: dict[str, Tensor] = {}
    for name, tensor in state.items():
        entry = coupling.entries.get(name)
        if entry is None:
            moved[name] = moved[aliases[name]]
        elif (entry.is_parameter or name in changing) and (tensor.is_floating_point() or tensor.is_complex()):
            share = torch.rand(tensor.shape, generator=generator, dtype=torch.float64).to(tensor.device)
            value = _wide(tensor)
            moved[name] = torch.where(value == 0, (0.02 + 0.05 * share).to(value.dtype), value * (1 + 0.2 * share))
        else:
            moved[name] = tensor
    return moved


def _leaves(coupling: Coupling, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return copies of a state that gradients are taken of."""
    copies = {name: tensor.detach().clone() for name, tensor in state.items() if name in coupling.entries}
    for name, tensor in copies.items():
        continuous = tensor.is_floating_point() or tensor.is_complex()
        tensor.requires_grad_(coupling.entries[name].is_parameter and continuous)
    return copies


def _outcome(results: Sequence[Any], changed: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Outcome:
    """Return what a run has given, its buffers those of the state or those it has assigned."""
    outputs = [result for result in results if isinstance(result, Tensor)]
    found = gradients(outputs, state)
    buffers = {name: tensor for name, tensor in state.items() if not tensor.is_leaf or not tensor.requires_grad}
    return Outcome([output.detach() for output in outputs], found, buffers | dict(changed))


def masked_whole(
    coupling: Coupling, state: Mapping[str, Tensor], held: Mapping[str, Indices], mode: str, inputs: Sequence[Tensor]
) -> tuple[list[Any], dict[str, Tensor]]:
    """Run the whole network without the contributions of the units that ``held`` lacks.

    Returns the flat results, and the buffers that forward assigns; those that it writes to are changed in ``state``.
    """
    exported, propagation = coupling.exports[mode], coupling.propagations[mode]
    values = [state[name] if name in state else _wide(coupling.constants[name]) for name in exported.state]
    removals = {block.removals[mode].node: block.removals[mode].skip for block in coupling.missing_blocks(held)}
    device = next((tensor.device for tensor in state.values()), None)
    runner = _MaskedWhole(exported.module, propagation, coupling.kept(held), removals, device)
    with _double_by_default():
        results = list(runner.run(*values, *inputs))
    return results[len(exported.mutated) :], dict(zip(exported.mutated, results, strict=False))


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
            positions = terms.evaluate(contraction.term, self.kept, self.opened)
            if positions is not None:
                saved.setdefault(contraction.operand, self.env[contraction.operand])
                self.env[contraction.operand] = _masked(self.env[contraction.operand], contraction.dim, positions)
        try:
            result = super().run_node(n)
        finally:
            self.env.update(saved)
        if n.op == "placeholder" and isinstance(result, Tensor):
            self.opened |= zip(map(size_of, n.meta["val"].shape), result.shape, strict=True)
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


def _run_mode(
    module: GraphNetwork, mode: str, state: Mapping[str, Tensor], inputs: Sequence[Tensor]
) -> tuple[list[Any], dict[str, Tensor]]:
    """Run a subnetwork's graph on given state, without dropout; return what :func:`masked_whole` returns."""
    chosen, taken = module.mode(mode)
    pairs = zip(chosen.state, taken, strict=True)
    values = [state[name] if name in state else _wide(tensor) for name, tensor in pairs]
    with _double_by_default():
        results = list(_Exact(chosen.graph).run(*values, *inputs))
    return results[len(chosen.mutated) :], dict(zip(chosen.mutated, results, strict=False))


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
        positions = terms.evaluate(term, kept, opened)
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
        positions = terms.evaluate(term, kept, opened)
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
    among = None if where is None else terms.evaluate(where, kept)
    return result if among is None else torch.as_tensor(among)[result]


def _wide(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return tensor.detach().to(torch.complex128, copy=True)
    return tensor.detach().double() if tensor.is_floating_point() else tensor.detach().clone()
