"""A network as two exported graphs, in training and in evaluation mode, over one set of parameters.

The export is torch's own (``torch.export``, non-strict, operators not decomposed). It works on the meta device, so a
network that no machine holds is read without allocating it. A few operators are brought to a form in which every
size that a cut may change is written out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind

from isthmus.errors import InvalidInput
from isthmus.nets.graph.asides import Asides
from isthmus.nets.graph.conditions import TooMuchFollows, few_conditions, remainders
from isthmus.nets.graph.custom import CustomFunctions
from isthmus.nets.graph.example import Example
from isthmus.nets.graph.exported import ExportedGraph, Pinned, module_path
from isthmus.nets.graph.failures import explain, place_of
from isthmus.nets.graph.keeping import alike, plain_tensors, refuse_kept, refuse_reshaped
from isthmus.nets.graph.loops import AllFound
from isthmus.nets.graph.made import keep_made
from isthmus.nets.graph.normalize import normalize
from isthmus.nets.graph.plain import ByShapes, own_names
from isthmus.nets.graph.results import opened
from isthmus.nets.graph.sizes import size_of
from isthmus.nets.graph.surroundings import as_it_was, idle_moves, in_mode, lean, quiet, without_autocast
from isthmus.nets.graph.traceable import traceable
from isthmus.nets.graph.writes import writes

_PREFIX = "inner."
_OPEN = 2  # the least that torch takes a size for that it leaves open, whatever a graph does
_RESULTS = (Tensor, int, float, bool, str, type(None), torch.SymInt, torch.SymFloat, torch.SymBool)


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
    with as_it_was(model), in_mode(model, mode == "train"), traceable(model) as notes, quiet():
        found = _export(wrapper, example, closed)
    if wrapper.aside.draws and not notes:  # layers that are all run draw in vain
        _refuse_chance(model, example, mode, closed)
    other = next((each for each in wrapper.result.custom if not wrapper.functions.stated(each)), None)
    if other is not None:
        raise InvalidInput(
            f"`model` uses the custom autograd function {other.__qualname__!r}, whose backward is not the derivative "
            "of its forward (or cannot be compared with it), and a traced graph does not keep it: write it with plain "
            "operators, or register it with torch.library.custom_op"
        )
    refuse_reshaped(wrapper.result.reshaped)
    module = found.graph_module
    own_names(module)
    normalize(module)
    _refuse_branches(module)
    exported = _exported_graph(found, module, wrapper, names)
    exported.notes = notes
    _refuse_written_inputs(exported)
    refuse_kept(exported, wrapper.result.renewed)
    keep_made(exported)
    return exported


class _Result:
    """The tree of the result; an object of its own, because an export resets what a forward assigns to its module."""

    spec: Any = None
    paths: Sequence[str] = ()
    custom: Sequence[type] = ()
    assigned: Sequence[str] = ()
    reshaped: str | None = None
    renewed: Sequence[str] = ()
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
        self.functions = CustomFunctions()

    def forward(self, *tensors: Tensor) -> tuple[Any, ...]:
        args, kwargs = self.example.call(tensors)
        before, plain = dict(self.inner.named_buffers()), plain_tensors(self.inner)
        with ByShapes(), AllFound(), self.aside, self.functions:
            result = self.inner(*args, **kwargs)
        after = dict(self.inner.named_buffers())
        self.result.assigned = [name for name, tensor in before.items() if after.get(name) is not tensor]
        self.result.reshaped = next((n for n in self.result.assigned if not alike(before[n], after.get(n))), None)
        now = plain_tensors(self.inner)
        self.result.renewed = [name for name, tensor in plain.items() if now.get(name) is not tensor]
        keyed, self.result.spec = pytree.tree_flatten_with_path(opened(result))
        self.result.paths = [pytree.keystr(path) or "output" for path, _ in keyed]
        self.result.dropped = [
            f"{name} ({type(leaf).__name__})"
            for (_, leaf), name in zip(keyed, self.result.paths, strict=True)
            if not isinstance(leaf, _RESULTS)
        ]
        leaves = tuple(leaf if isinstance(leaf, _RESULTS) else None for _, leaf in keyed)
        self.result.custom = _custom_functions(leaves)
        return (*(after[name] for name in self.result.assigned if name in after), *leaves)


def _export(wrapper: _Flat, example: Example, closed: Pinned) -> torch.export.ExportedProgram:
    """Export with every dimension open, unless too much follows from it; then with open batches only; then as given."""
    auto = torch.export.Dim.AUTO
    doubled = tuple(t.repeat(2, *[1] * (t.dim() - 1)) if t.dim() and t.shape[0] == 1 else t for t in example.tensors)
    attempts = [(doubled, None), (doubled, 1), (doubled, 0), (example.tensors, 0)]
    inner = frozenset((i, d) for i, tensor in enumerate(doubled) for d in range(1, tensor.dim()))
    failure: Exception | None = None
    for tensors, dims in attempts:
        shapes = tuple(
            {d: auto for d in range(t.dim()) if (dims is None or d < dims) and (i, d) not in closed and t.shape[d] > 1}
            for i, t in enumerate(tensors)
        )
        try:
            with (
                torch.enable_grad(), without_autocast(), idle_moves(),
                lean(dims is None), few_conditions(dims is None),
            ):  # fmt: skip
                found = torch.export.export(wrapper, tensors, dynamic_shapes=(shapes,), strict=False)
            wrapper.given_up = frozenset() if dims is None else inner
            return found
        except TooMuchFollows:
            pass
        except Exception as error:  # torch raises a dozen kinds here; the first is the one that explains
            failure = failure or error
    assert failure is not None
    if not any(tensor.dim() for tensor in example.tensors):
        raise InvalidInput("`args` must hold a batch of samples, got a tensor without dimensions") from failure
    raise InvalidInput(explain(failure, wrapper.inner, wrapper.aside.differentiates)) from failure


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
    given = [node.meta["val"].shape for node in module.graph.nodes if node.op == "placeholder"][len(state) :]
    shapes = [[size_of(entry) for entry in shape] for shape in given]
    fixed = {(i, d): size for i, shape in enumerate(shapes) for d, size in enumerate(shape) if isinstance(size, int)}
    limits = {(i, d): limit for i, shape in enumerate(shapes) for d, size in enumerate(shape)
              if (limit := _limit(found.range_constraints.get(size))) is not None}  # fmt: skip
    result = wrapper.result
    mutated += [names[name] for name in result.assigned]
    return ExportedGraph(
        module, state, constants, inputs, mutated, result.paths, result.spec, fixed,
        limits=limits, remainders=remainders({(i, d): s for i, shape in enumerate(given) for d, s in enumerate(shape)}),
        dropped=result.dropped, given_up=wrapper.given_up,
    )  # fmt: skip


def _limit(known: Any) -> tuple[int, int | None] | None:
    """Return the least and the largest an open size may be; None if any does (torch takes none to be 0 or 1)."""
    if known is None or (known.lower <= _OPEN and not known.upper.is_Integer):
        return None
    return (0 if known.lower <= _OPEN else int(known.lower)), (int(known.upper) if known.upper.is_Integer else None)


def _refuse_chance(model: nn.Module, example: Example, mode: str, closed: Pinned) -> None:
    """Refuse numbers of generators that a graph does not draw from: it would keep those of the tracing for ever."""
    wrapper = _Flat(model, example, lines=True)
    with as_it_was(model), in_mode(model, mode == "train"), traceable(model), quiet():
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


def _custom_functions(outputs: Sequence[Any]) -> list[type]:
    """Return the custom autograd functions that outputs were computed with."""
    stack = [leaf.grad_fn for leaf in outputs if isinstance(leaf, Tensor)]
    seen = set(stack)
    found: list[type] = []
    while stack:
        node = stack.pop()
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            made_by = node._forward_cls
            if not made_by.__module__.startswith("torch."):
                found.append(made_by)
        for below, _ in () if node is None else node.next_functions:
            if below not in seen:
                seen.add(below)
                stack.append(below)
    return found
