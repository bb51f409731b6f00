"""Check that random cuts equal the whole network with the other units' contributions set to zero.

The reference is not the cut: it runs the traced graph of the whole, at full size, and sets to zero, at every operator
that sums over cut units, those the worker lacks. A norm across a cut axis is restricted to the units kept.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn
from torch.func import functional_call

from isthmus.errors import InvalidInput
from isthmus.nets import terms
from isthmus.nets.coupling import Coupling
from isthmus.nets.example import example_of
from isthmus.nets.exported import MODES
from isthmus.nets.propagation import Propagation
from isthmus.nets.rewrite import Rewriter
from isthmus.nets.sizes import size_of
from isthmus.nets.subnetwork import build, named_state
from isthmus.nets.terms import Atom, Indices

_DOUBLE = {torch.float32: torch.float64, torch.complex64: torch.complex128}
_RANDOM = ("bernoulli", "exponential", "multinomial", "normal", "rand", "randint", "randn", "randperm", "uniform")


@dataclass(frozen=True)
class Check:
    """One comparison: what was compared, the relative error, and whether it is within the tolerance."""

    what: str
    error: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """All comparisons of a verification."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all comparisons are within the tolerance."""
        return all(check.passed for check in self.checks)

    @property
    def worst(self) -> float:
        """The largest relative error."""
        return max((check.error for check in self.checks), default=0.0)

    def summary(self) -> str:
        """Return one line that says what differs, or that nothing does."""
        failed = [check for check in self.checks if not check.passed]
        if not failed:
            return f"{len(self.checks)} comparisons agree, largest relative error {self.worst:.1e}"
        shown = "; ".join(f"{check.what}: {check.error:.1e}" for check in failed[:3])
        return f"{len(failed)} of {len(self.checks)} comparisons differ ({shown})"


def verify(
    coupling: Coupling,
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None = None,
    *,
    seeds: Sequence[int] = (0, 1),
    workers: int = 2,
    tolerance: float = 1e-5,
) -> Verdict:
    """Compare random cuts with the masked whole network, in float64, in training (without dropout) and evaluation.

    Compared are, per mode: the traced whole with the model itself; outputs and gradients of the subnetwork with those
    of the masked whole; and, where the batch size is open, outputs at twice the batch.

    Raises:
        InvalidInput: a model on the meta device, which has no values to compare.
    """
    state = {name: tensor.detach() for name, tensor in named_state(model)}
    if any(tensor.device.type == "meta" for tensor in state.values()):
        raise InvalidInput("`model` must have values to be verified, it is on the meta device")
    wide = {name: _wide(tensor) for name, tensor in state.items()}
    inputs = [_wide(tensor) for tensor in example_of(model, tuple(args), kwargs).tensors]
    checks: list[Check] = _against_model(coupling, model, state, args, kwargs)
    batches = {"": inputs}
    doubled = _doubled(coupling, inputs)
    if doubled is not None:
        batches[" at another batch size"] = doubled
    cut = coupling.cut_axes
    for seed in seeds if cut else ():
        partition = coupling.partition(workers, seed, law="overlapping")
        held = partition.of(seed % workers)
        sub = build(wide, coupling, held)
        for mode in MODES:
            for what, tensors in batches.items():
                label = f"{mode}, cut {seed}{what}"
                checks += _compare_cut(coupling, wide, sub, held, mode, tensors, label, tolerance)
    return Verdict(tuple(checks))


def masked_whole(
    coupling: Coupling, state: Mapping[str, Tensor], held: Mapping[str, Indices], mode: str, inputs: Sequence[Tensor]
) -> list[Any]:
    """Run the whole network without the contributions of the units that ``held`` lacks; return the flat results."""
    exported, propagation = coupling.exports[mode], coupling.propagations[mode]
    values = [state[name] if name in state else _wide(coupling.constants[name]) for name in exported.state]
    removals = {block.removals[mode].node: block.removals[mode].skip for block in coupling.missing_blocks(held)}
    runner = _MaskedWhole(exported.module, propagation, coupling.kept(held), removals)
    with _double_by_default():
        results = runner.run(*values, *inputs)
    return list(results)[len(exported.mutated) :]


class _Exact(fx.Interpreter):
    """Runs a graph in float64, without dropout and without autocast; random numbers are all alike."""

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
        args = [_exact(name, value) for name, value in zip(names, args, strict=False)] if names else args
        if "rrelu" in str(target):  # in training it draws a slope per entry: take the mean slope instead
            args = args[: names.index("training")]
        return super().call_function(target, tuple(args), {name: _exact(name, v) for name, v in kwargs.items()})

    def of(self, region: fx.GraphModule) -> _Exact:
        """Return a runner of a region's graph."""
        return _Exact(region)


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
    ) -> None:
        super().__init__(module)
        self.propagation, self.kept, self.removals = propagation, kept, removals
        self.norms = set(propagation.norms)
        self.sums: dict[fx.Node, list[Any]] = {}
        for contraction in propagation.contractions:
            self.sums.setdefault(contraction.node, []).append(contraction)

    def of(self, region: fx.GraphModule) -> _Exact:
        return _MaskedWhole(region, self.propagation, self.kept, self.removals)

    def run_node(self, n: fx.Node) -> Any:
        if n in self.removals:
            return self.env[self.removals[n]]
        if n in self.norms and self._is_cut(n):
            return self._restricted(n)
        saved: dict[fx.Node, Any] = {}
        for contraction in self.sums.get(n, ()):
            positions = terms.evaluate(contraction.term, self.kept)
            if positions is not None:
                saved.setdefault(contraction.operand, self.env[contraction.operand])
                self.env[contraction.operand] = _masked(self.env[contraction.operand], contraction.dim, positions)
        try:
            return super().run_node(n)
        finally:
            self.env.update(saved)

    def _is_cut(self, node: fx.Node) -> bool:
        dims = [d for source in node.all_input_nodes for d in _flat_dims(self.propagation.dims.get(source))]
        return any(leaf in self.kept for term in dims for leaf in terms.leaves(term))

    def _restricted(self, node: fx.Node) -> Any:
        """Run one node on the kept units only, and put its results back among zeros."""
        graph = fx.Graph()
        operands = list(node.all_input_nodes)
        new = {source: graph.placeholder(source.name) for source in operands}
        rewriter = Rewriter(self.propagation, self.kept)
        copied = rewriter.copy_node(graph, node, new, {})
        graph.output(copied)
        sliced = [_sliced(self.env[source], self.propagation.dims.get(source), self.kept) for source in operands]
        result = fx.GraphModule(nn.Module(), graph)(*sliced)
        result = _renumbered(result, self.propagation.positions.get(node), self.kept)
        return _scattered(result, self.propagation.dims[node], self.kept)


def is_random(target: Any) -> bool:
    """Whether an operator draws the entries of its result (dropout apart, which draws what to leave out)."""
    name = getattr(getattr(target, "_schema", None), "name", "")
    return name.removeprefix("aten::").removesuffix("_").removesuffix("_like") in _RANDOM


def relative_error(value: Tensor, reference: Tensor, scale: float | None = None) -> float:
    """Return max |value - reference| / (max |reference| + floor); infinite for different shapes."""
    if value.shape != reference.shape:
        return float("inf")
    if not value.numel():
        return 0.0
    if value.is_complex() and reference.is_complex():
        return relative_error(torch.view_as_real(value), torch.view_as_real(reference), scale)
    if not value.is_floating_point():
        return 0.0 if torch.equal(value, reference) else float("inf")
    same = (value == reference) | (value.isnan() & reference.isnan())
    difference = torch.where(same, torch.zeros_like(value), (value - reference).abs()).max().item()
    finite = torch.where(reference.isfinite(), reference.abs(), torch.zeros_like(reference))
    bound = max(finite.max().item(), scale or 0.0, 1e-6)
    error = difference / bound
    return error if error == error else float("inf")


def _against_model(
    coupling: Coupling,
    model: nn.Module,
    state: Mapping[str, Tensor],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
) -> list[Check]:
    """Compare the traced whole with the model itself: outputs, and the gradient of their sum, in evaluation mode."""
    sub = build(state, coupling, {})
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # forward may write to them
    training = {module: module.training for module in model.modules()}
    results = []
    try:
        for module, changing in ((model.eval(), buffers), (sub.module.eval(), {})):
            with torch.random.fork_rng(devices=()):
                torch.manual_seed(0)  # both draw the same random numbers
                flat, _ = pytree.tree_flatten(functional_call(module, changing, tuple(args), dict(kwargs or {})))
            outputs = [leaf for leaf in flat if isinstance(leaf, Tensor)]
            results.append((outputs, _gradients(module, _loss(outputs))))
    except RuntimeError as failure:  # one that keeps results of an earlier call, whose graph is gone
        said = str(failure).split(".")[0]
        return [Check(f"the network itself cannot be run and differentiated twice ({said})", float("inf"), False)]
    finally:
        for module, flag in training.items():
            module.training = flag
    checks = []
    (outputs, grads), (traced, traced_grads) = results
    error = max((relative_error(a.detach(), b.detach()) for a, b in zip(traced, outputs, strict=True)), default=0.0)
    checks.append(Check("the traced network against the model, outputs", error, error < 1e-4))
    scale = max((g.abs().max().item() for g in grads.values() if g.numel()), default=0.0)
    worst = 0.0
    for name in coupling.entries:
        a, b = traced_grads.get(name), grads.get(name)
        if a is not None or b is not None:
            worst = max(worst, relative_error(*_both(a, b), scale))
    checks.append(Check("the traced network against the model, gradients", worst, worst < 1e-3))
    return checks


def _gradients(module: nn.Module, loss: Tensor | None) -> dict[str, Tensor]:
    """Return the gradients by name, without touching those the parameters have."""
    named = {n: p for n, p in module.named_parameters(remove_duplicate=False) if p.requires_grad}
    if loss is None or not named:
        return {}
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {name: grad for name, grad in zip(named, found, strict=True) if grad is not None}


def _both(a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor]:
    if a is None:
        assert b is not None
        return torch.zeros_like(b), b
    return a, torch.zeros_like(a) if b is None else b


def _compare_cut(
    coupling: Coupling,
    state: Mapping[str, Tensor],
    sub: Any,
    held: Mapping[str, Indices],
    mode: str,
    inputs: Sequence[Tensor],
    label: str,
    tolerance: float,
) -> list[Check]:
    whole = {name: tensor.clone() for name, tensor in state.items()}
    for name, entry in coupling.entries.items():
        continuous = whole[name].is_floating_point() or whole[name].is_complex()
        whole[name].requires_grad_(entry.is_parameter and continuous)
    expected = [r for r in masked_whole(coupling, whole, held, mode, inputs) if isinstance(r, Tensor)]
    parts = {name: tensor.clone() for name, tensor in sub.state().items()}
    for name, tensor in parts.items():
        tensor.requires_grad_(whole[name].requires_grad)
    results = [r for r in _run_mode(sub.module, mode, parts, inputs) if isinstance(r, Tensor)]
    pairs = list(zip(results, expected, strict=True))
    error = max((relative_error(a.detach(), b.detach()) for a, b in pairs), default=0.0)
    checks = [Check(f"outputs ({label})", error, error <= tolerance)]
    for loss in (_loss(expected), _loss(results)):
        if loss is not None:
            loss.backward()
    error = _gradient_error(sub, parts, whole)
    return [*checks, Check(f"gradients ({label})", error, error <= 10 * tolerance)]


def _gradient_error(sub: Any, parts: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> float:
    grads = [tensor.grad for tensor in whole.values() if tensor.grad is not None]
    scale = max((grad.abs().max().item() for grad in grads if grad.numel()), default=0.0)
    worst = 0.0
    for name, part in parts.items():
        grad = whole[name].grad
        expected = None if grad is None else sub.slice(name, grad)
        if part.grad is not None or expected is not None:
            worst = max(worst, relative_error(*_both(part.grad, expected), scale))
    return worst


def _run_mode(module: Any, mode: str, state: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> list[Any]:
    """Run a subnetwork's graph on given state, without dropout."""
    chosen, taken = module.mode(mode)
    pairs = zip(chosen.state, taken, strict=True)
    values = [state[name] if name in state else _wide(tensor) for name, tensor in pairs]
    with _double_by_default():
        results = _Exact(chosen.graph).run(*values, *inputs)
    return list(results)[len(chosen.mutated) :]


def _exact(name: str, value: Any) -> Any:
    """Return an operator's argument for a run in float64 and without dropout."""
    if name in ("dropout", "dropout_p"):
        return 0.0
    return _DOUBLE.get(value, value) if isinstance(value, torch.dtype) else value


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


def _loss(outputs: Sequence[Tensor]) -> Tensor | None:
    """A scalar in which every entry of the outputs counts with a weight of its own."""
    total: Tensor | None = None
    for output in outputs:
        if output.is_complex():
            output = torch.view_as_real(output)
        if output.requires_grad and output.is_floating_point() and output.numel():
            weights = torch.linspace(0.5, 1.5, output.numel(), dtype=output.dtype).reshape(output.shape)
            finite = torch.where(output.isfinite(), output, torch.zeros_like(output))
            total = (finite * weights).sum() if total is None else total + (finite * weights).sum()
    return total


def _masked(value: Tensor, dim: int, positions: Indices) -> Tensor:
    mask = torch.zeros(value.shape[dim], dtype=torch.bool)
    mask[torch.as_tensor(positions)] = True
    shape = [1] * value.dim()
    shape[dim] = -1
    return torch.where(mask.reshape(shape), value, torch.zeros_like(value))


def _sliced(value: Any, dims: Any, kept: Mapping[Atom, Indices]) -> Any:
    if not isinstance(value, Tensor) or not isinstance(dims, tuple):
        return value
    for dim, term in enumerate(dims):
        positions = terms.evaluate(term, kept)
        if positions is not None:
            value = value.index_select(dim, torch.as_tensor(positions))
    return value


def _scattered(result: Any, dims: Any, kept: Mapping[Atom, Indices]) -> Any:
    if isinstance(dims, list):
        return type(result)(_scattered(r, d, kept) for r, d in zip(result, dims, strict=True))
    for dim, term in enumerate(dims):
        positions = terms.evaluate(term, kept)
        if positions is not None:
            shape = list(result.shape)
            shape[dim] = int(terms.size(term))
            result = result.new_zeros(shape).index_copy(dim, torch.as_tensor(positions), result)
    return result


def _renumbered(result: Any, where: Any, kept: Mapping[Atom, Indices]) -> Any:
    """Return positions among the units kept as those among all."""
    if isinstance(where, list):
        return type(result)(_renumbered(r, w, kept) for r, w in zip(result, where, strict=True))
    among = None if where is None else terms.evaluate(where, kept)
    return result if among is None else torch.as_tensor(among)[result]


def _flat_dims(dims: Any) -> list[Any]:
    return list(dims) if isinstance(dims, tuple) else []


def _doubled(coupling: Coupling, inputs: Sequence[Tensor]) -> list[Tensor] | None:
    """Return the inputs at twice the batch: every dimension that is open and of the first input's first size.

    A mask that is only indexed with positions has a size of its own: its first dimension counts as the batch too.
    """
    shapes = []
    for exported in coupling.exports.values():
        shapes.append([[size_of(size) for size in node.meta["val"].shape] for node in exported.input_nodes])
    first = [shape[0][0] if shape[0] else 0 for shape in shapes]
    if any(isinstance(size, int) or not size.is_Symbol for size in first):
        return None
    result = list(inputs)
    for i, tensor in enumerate(inputs):
        for d in range(tensor.dim()):
            same = all(shape[i][d] == size for shape, size in zip(shapes, first, strict=True))
            alike = d == 0 and tensor.shape[0] == inputs[0].shape[0]
            if same or (alike and not any(isinstance(shape[i][0], int) for shape in shapes)):
                result[i] = torch.cat([result[i], result[i].flip(d)], d)
    return result


def _wide(tensor: Tensor) -> Tensor:
    if tensor.is_complex():
        return tensor.detach().to(torch.complex128, copy=True)
    return tensor.detach().double() if tensor.is_floating_point() else tensor.detach().clone()
