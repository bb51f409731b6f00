"""A network as two exported graphs, in training and in evaluation mode, over one set of parameters.

The export is torch's own (``torch.export``, non-strict, operators not decomposed). It works on the meta device, so a
network that no machine holds is read without allocating it. A few operators are brought to a form in which every
size that a cut may change is written out.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind

from isthmus.errors import InvalidInput
from isthmus.nets.asides import Asides
from isthmus.nets.example import Example
from isthmus.nets.failures import explain, place_of
from isthmus.nets.loops import AllFound
from isthmus.nets.normalize import normalize
from isthmus.nets.results import opened
from isthmus.nets.sizes import size_of
from isthmus.nets.traceable import traceable
from isthmus.nets.writes import writes

MODES = ("train", "eval")
Pinned = frozenset[tuple[int, int]]
_PREFIX = "inner."
_GUARDS = 100  # ResNet, ConvNeXt, ViT and Segformer leave 10 to 64; Swin passes 150 in its first layers
_TABLES = ("_modules", "_parameters")
_CHATTER = {"torch.fx.experimental.symbolic_shapes": logging.ERROR, "torch._subclasses.fake_tensor": logging.CRITICAL}
_RESULTS = (Tensor, int, float, bool, str, type(None), torch.SymInt, torch.SymFloat, torch.SymBool)


@dataclass(frozen=True)
class StateEntry:
    """A parameter or buffer as the network holds it.

    Attributes:
        name: as in ``named_parameters`` or ``named_buffers``.
        shape, dtype: of the whole.
        is_parameter, trained, persistent: parameter or buffer; requires a gradient; part of the state dict.
        aliases: further names of the same tensor (tied weights).
        shares_memory: another name whose tensor overlaps it in memory without being the same.
        sparse: not every entry has a place in memory.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    is_parameter: bool
    trained: bool
    persistent: bool
    aliases: tuple[str, ...] = ()
    shares_memory: str | None = None
    sparse: bool = False


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
        replaced: buffers that forward assigns tensors of another shape or type.
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
    replaced: Sequence[str] = ()
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


def read_state(model: nn.Module) -> dict[str, StateEntry]:
    """Return every parameter and buffer of a network, tied ones once under their first name.

    Raises:
        InvalidInput: a lazy layer that has not run yet.
    """
    for path, module in model.named_modules():
        if any(map(nn.parameter.is_lazy, (*module.parameters(recurse=False), *module.buffers(recurse=False)))):
            layer = f"{type(module).__name__}{path and ' in '}{path}"
            todo = "run it once on a batch, then trace it"
            raise InvalidInput(f"`model` has a layer without sizes yet ({layer}): {todo}")
    persistent = set(model.state_dict(keep_vars=True))
    names: dict[int, list[str]] = {}
    tensors: dict[int, Tensor] = {}
    for name, tensor in _named_state(model):
        names.setdefault(id(tensor), []).append(name)
        tensors[id(tensor)] = tensor
    overlaps = _memory_overlaps(names, tensors)
    entries = {}
    for key, (name, *aliases) in names.items():
        tensor = tensors[key]
        entries[name] = StateEntry(
            name=name,
            shape=tuple(tensor.shape),
            dtype=tensor.dtype,
            is_parameter=isinstance(tensor, nn.Parameter),
            trained=tensor.requires_grad,
            persistent=name in persistent,
            aliases=tuple(aliases),
            shares_memory=overlaps.get(name),
            sparse=tensor.layout != torch.strided,
        )
    return entries


def export_graph(
    model: nn.Module, example: Example, mode: str, names: Mapping[str, str], closed: Pinned = frozenset()
) -> ExportedGraph:
    """Export one mode of a network.

    Args:
        model, example, mode: what to export.
        names: maps every name of a tensor to its first one.
        closed: (input, dimension) pairs whose sizes stay as given.

    Raises:
        InvalidInput: the network cannot be exported (it branches on values), or loses a custom backward.
    """
    wrapper = _Flat(model, example)
    with _as_it_was(model), _in_mode(model, mode == "train"), traceable(model) as notes, _quiet():
        found = _export(wrapper, example, closed)
    if wrapper.aside.draws and not notes:  # layers that are all run draw in vain
        _refuse_chance(model, example, mode, closed)
    if wrapper.result.custom:
        raise InvalidInput(
            f"`model` uses the custom autograd function {wrapper.result.custom[0]!r}, whose backward a traced graph "
            "does not keep: write it with plain operators, or register it with torch.library.custom_op"
        )
    module = found.graph_module
    normalize(module)
    _refuse_branches(module)
    exported = _exported_graph(found, module, wrapper, names)
    exported.notes = notes
    _refuse_written_inputs(exported)
    return exported


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


class _Result:
    """The tree of the result; an object of its own, because an export resets what a forward assigns to its module."""

    spec: Any = None
    paths: Sequence[str] = ()
    custom: Sequence[str] = ()
    assigned: Sequence[str] = ()
    replaced: Sequence[str] = ()
    dropped: Sequence[str] = ()


class _Flat(nn.Module):
    """Takes the tensors of a call and returns the buffers that forward assigns, then the tensors of its result."""

    def __init__(self, inner: nn.Module, example: Example, lines: bool = False) -> None:
        super().__init__()
        self.inner = inner
        self.example = example
        self.given_up: Pinned = frozenset()
        self.result = _Result()
        self.aside = Asides(inner, lines)

    def forward(self, *tensors: Tensor) -> tuple[Any, ...]:
        args, kwargs = self.example.call(tensors)
        before = dict(self.inner.named_buffers())
        with AllFound(), self.aside:
            result = self.inner(*args, **kwargs)
        after = dict(self.inner.named_buffers())
        changed = [name for name, tensor in before.items() if after.get(name) is not tensor]
        self.result.assigned = [name for name in changed if name in after and _alike(before[name], after[name])]
        self.result.replaced = [name for name in changed if name not in self.result.assigned]
        keyed, self.result.spec = pytree.tree_flatten_with_path(opened(result))
        self.result.paths = [pytree.keystr(path) or "output" for path, _ in keyed]
        self.result.dropped = [
            f"{name} ({type(leaf).__name__})"
            for (_, leaf), name in zip(keyed, self.result.paths, strict=True)
            if not isinstance(leaf, _RESULTS)
        ]
        leaves = tuple(leaf if isinstance(leaf, _RESULTS) else None for _, leaf in keyed)
        self.result.custom = _custom_functions(leaves)
        return (*(after[name] for name in self.result.assigned), *leaves)


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype


def _export(wrapper: _Flat, example: Example, closed: Pinned) -> torch.export.ExportedProgram:
    """Export with every dimension open, unless too much follows from it; then with open batches only; then as given."""
    auto = torch.export.Dim.AUTO
    doubled = tuple(t.repeat(2, *[1] * (t.dim() - 1)) if t.dim() and t.shape[0] == 1 else t for t in example.tensors)
    attempts = [(doubled, None), (doubled, 1), (doubled, 0), (example.tensors, 0)]
    failure: Exception | None = None
    for tensors, dims in attempts:
        shapes = tuple(
            {d: auto for d in range(t.dim()) if (dims is None or d < dims) and (i, d) not in closed and t.shape[d] > 1}
            for i, t in enumerate(tensors)
        )
        try:
            with torch.enable_grad(), _without_autocast(), _idle_moves(), _few_guards(wrapper.inner, dims is None):
                return torch.export.export(wrapper, tensors, dynamic_shapes=(shapes,), strict=False)
        except _TooManyGuards:
            wrapper.given_up = frozenset((i, d) for i, t in enumerate(tensors) for d in range(1, t.dim()))
        except Exception as error:  # torch raises a dozen kinds here; the first is the one that explains
            failure = failure or error
    assert failure is not None
    if not any(tensor.dim() for tensor in example.tensors):
        raise InvalidInput("`args` must hold a batch of samples, got a tensor without dimensions") from failure
    raise InvalidInput(explain(failure, wrapper.inner, wrapper.aside.differentiates)) from failure


class _TooManyGuards(Exception):
    """What torch would have to show of open sizes grows without bound."""


@contextlib.contextmanager
def _few_guards(model: nn.Module, wanted: bool) -> Iterator[None]:
    """Inside, a module that is called after too many guards on open sizes raises; the same on every machine.

    With windows over an image, say, whose sides are rounded up to whole ones at every level, every comparison of sizes
    leaves a guard, and each next one is held against all before it: minutes, after which the sizes are closed anyway.
    """

    def check(module: nn.Module, args: tuple[Any, ...]) -> None:
        sizes: Iterator[Any] = (size for value in args if isinstance(value, Tensor) for size in value.shape)
        opened = next((size for size in sizes if isinstance(size, torch.SymInt)), None)
        if opened is not None and len(opened.node.shape_env.guards) > _GUARDS:
            raise _TooManyGuards

    hooks = [module.register_forward_pre_hook(check) for module in model.modules()] if wanted else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _exported_graph(
    found: torch.export.ExportedProgram, module: fx.GraphModule, wrapper: _Flat, names: Mapping[str, str]
) -> ExportedGraph:
    signature = found.graph_signature
    state, constants, inputs = [], {}, 0
    for spec in signature.input_specs:
        target = (spec.target or "").removeprefix(_PREFIX)
        if spec.kind == InputKind.USER_INPUT:
            inputs += 1
        elif spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            state.append(names[target])
        elif spec.kind == InputKind.CONSTANT_TENSOR:
            constants[target] = found.constants[spec.target or ""]
            state.append(target)
        else:
            raise InvalidInput(f"`model` takes an input of kind {spec.kind.name}, which cannot be traced")
    mutated = []
    for output in signature.output_specs:
        if output.kind == OutputKind.BUFFER_MUTATION:
            mutated.append(names[(output.target or "").removeprefix(_PREFIX)])
        elif output.kind != OutputKind.USER_OUTPUT:
            raise InvalidInput(f"`model` writes to its inputs ({output.kind.name}), which cannot be traced")
    placeholders = [node for node in module.graph.nodes if node.op == "placeholder"]
    shapes = [[size_of(entry) for entry in node.meta["val"].shape] for node in placeholders[len(state) :]]
    fixed = {(i, d): size for i, shape in enumerate(shapes) for d, size in enumerate(shape) if isinstance(size, int)}
    result = wrapper.result
    mutated += [names[name] for name in result.assigned]
    return ExportedGraph(
        module, state, constants, inputs, mutated, result.paths, result.spec, fixed,
        replaced=result.replaced, dropped=result.dropped, given_up=wrapper.given_up,
    )  # fmt: skip


def _refuse_chance(model: nn.Module, example: Example, mode: str, closed: Pinned) -> None:
    """Refuse numbers of generators that a graph does not draw from: it would keep those of the tracing for ever."""
    wrapper = _Flat(model, example, lines=True)
    with _as_it_was(model), _in_mode(model, mode == "train"), traceable(model), _quiet():
        _export(wrapper, example, closed)
    raise InvalidInput(
        "`model` must draw random numbers from torch alone, it asks Python or NumPy for some in "
        f"{wrapper.aside.drawing}: what it does with them would be the same in every step"
    )


def _refuse_written_inputs(exported: ExportedGraph) -> None:
    inputs = exported.input_nodes
    for writer, origin in writes(exported.module):
        if origin in inputs:
            where = place_of(writer, module_path(writer))
            raise InvalidInput(f"`model` must not write to its input {inputs.index(origin)}, it does so in {where}")


def _refuse_branches(module: fx.GraphModule) -> None:
    for node in module.graph.nodes:
        name = getattr(node.target, "__name__", "")
        if node.op == "call_function" and name in ("cond", "while_loop"):
            where = place_of(node, module_path(node))
            instead = "torch.where chooses without a branch"
            raise InvalidInput(f"`model` must not branch on values, it calls torch.{name} in {where}; {instead}")


def _named_state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _memory_overlaps(names: Mapping[int, list[str]], tensors: Mapping[int, Tensor]) -> dict[str, str]:
    """Return, for tensors that are not the same but share a storage, the name of another one."""
    by_storage: dict[Any, list[str]] = {}
    for key, (name, *_) in names.items():
        tensor = tensors[key]
        if tensor.device.type != "meta" and tensor.layout == torch.strided and tensor.numel():
            by_storage.setdefault(tensor.untyped_storage().data_ptr(), []).append(name)
    groups = [group for group in by_storage.values() if len(group) > 1]
    return {name: next(other for other in group if other != name) for group in groups for name in group}


@contextlib.contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Give all submodules the attributes back that they had, whatever a forward assigns to them.

    Raises:
        InvalidInput: it makes submodules or parameters.
    """
    before = [(path, module, dict(vars(module))) for path, module in model.named_modules()]
    tables = [(path, module, kind, dict(getattr(module, kind))) for path, module, _ in before for kind in _TABLES]
    made = ""
    try:
        yield
    finally:
        for path, module, kind, table in tables:
            now: dict[str, Any] = getattr(module, kind)
            new = (name for name, value in now.items() if value is not None and name not in table)
            made = made or next((f"{path}.{name}".strip(".") for name in new), "")
            now.clear()
            now.update(table)
        for _, module, attributes in before:
            vars(module).clear()
            vars(module).update(attributes)
        if made:
            raise InvalidInput(f"`model` makes {made} when it first runs: run it once on a batch, then trace it")


@contextlib.contextmanager
def _in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    flags = {module: module.training for module in model.modules()}
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one fused operator for a whole layer, in evaluation only
    try:
        model.train(training)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, flag in flags.items():
            module.training = flag


@contextlib.contextmanager
def _without_autocast() -> Iterator[None]:
    """A graph holds no casts but the network's own, so it can be run under autocast or not, like the network."""
    with contextlib.ExitStack() as stack:
        for device in ("cpu", "cuda"):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextlib.contextmanager
def _idle_moves() -> Iterator[None]:
    """A forward that moves a submodule to the type and the device that it has already does nothing."""
    before = nn.Module.to

    def to(self: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
        device, dtype, _, memory = torch._C._nn._parse_to(*args, **kwargs)
        state = [*self.parameters(), *self.buffers()]
        floats = [tensor for tensor in state if tensor.is_floating_point() or tensor.is_complex()]
        same = all(tensor.device == (device or tensor.device) for tensor in state)
        if same and memory is None and all(tensor.dtype == (dtype or tensor.dtype) for tensor in floats):
            return self
        return before(self, *args, **kwargs)

    nn.Module.to = to  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        nn.Module.to = before  # type: ignore[method-assign]


def _custom_functions(outputs: Sequence[Any]) -> list[str]:
    """Return the names of the custom autograd functions that outputs were computed with."""
    stack = [leaf.grad_fn for leaf in outputs if isinstance(leaf, Tensor)]
    seen = set(stack)
    names: list[str] = []
    while stack:
        node = stack.pop()
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            made_by = node._forward_cls
            if not made_by.__module__.startswith("torch."):
                names.append(made_by.__qualname__)
        for below, _ in () if node is None else node.next_functions:
            if below not in seen:
                seen.add(below)
                stack.append(below)
    return names


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the export's own chatter (attributes set, duplicate guards, graphs that failed) off the terminal."""
    loggers = {logging.getLogger(name): level for name, level in _CHATTER.items()}
    before = {logger: logger.level for logger in loggers}
    try:
        for logger, level in loggers.items():
            logger.setLevel(level)
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):  # it prints what it could not export
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in before.items():
            logger.setLevel(level)
