"""A module that runs exported graphs over parameters of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn

from isthmus.errors import InvalidInput
from isthmus.nets.graph.conditions import Remainder
from isthmus.nets.graph.example import Example
from isthmus.nets.graph.exported import Limits
from isthmus.nets.graph.state import StateEntry
from isthmus.nets.pieces.shells import shell


@dataclass(frozen=True)
class Mode:
    """One graph, and what it takes and returns.

    Attributes:
        graph, state, mutated: the graph, names of the state it takes, and of the buffers whose new values it returns.
        out_spec: the tree of the result.
        fixed: sizes of inputs it is bound to, by input and dimension.
        limits: the least and the largest (None: any) of open ones, where there are such.
        remainders: what has to hold of theirs.
    """

    graph: fx.GraphModule
    state: tuple[str, ...]
    mutated: tuple[str, ...]
    out_spec: Any
    fixed: Mapping[tuple[int, int], int] = field(default_factory=dict)
    limits: Limits = field(default_factory=dict)
    remainders: Sequence[Remainder] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Mode:
        return self  # shared between all pieces of the same sizes; it holds no parameters

    def check(self, tensors: Sequence[Tensor]) -> None:
        """Refuse inputs of other sizes than those the graph is bound to: it might run, and be wrong."""
        for (i, d), size in self.fixed.items():
            shape = tensors[i].shape
            if len(shape) <= d or shape[d] != size:
                raise InvalidInput(
                    f"input {i} must have size {size} in dimension {d}, as the network was traced, got shape "
                    f"{tuple(shape)}: trace it again with the sizes it is called with"
                )

        for (i, d), (least, most) in self.limits.items():
            size = tensors[i].shape[d] if d < tensors[i].dim() else 0
            if size < least or (most is not None and size > most):
                wanted = f"of {least} or more" if most is None else f"from {least} to {most}"
                raise InvalidInput(
                    f"input {i} must have a size {wanted} in dimension {d}, got {size}: the network asks for that size "
                    "and may do otherwise elsewhere; trace it again with the sizes it is called with"
                )

        for remainder in self.remainders:
            if not remainder.holds(tensors):
                _, i, d = remainder.places[0]
                raise InvalidInput(
                    f"input {i} has size {tensors[i].shape[d]} in dimension {d}, by which the network does otherwise "
                    f"than it was traced ({remainder.condition}): trace it again with the sizes it is called with"
                )

    def result(self, outputs: Sequence[Any]) -> Any:
        """Return what the network returns, put together from the flat outputs."""
        return outputs[0] if self.out_spec.is_leaf() else pytree.tree_unflatten(list(outputs), self.out_spec)


@dataclass(frozen=True)
class Outline:
    """What all pieces of a network have in common.

    Attributes:
        entries: parameters and buffers of the whole; what else a graph takes is a constant.
        example: the call the network was traced with.
        classes: of its submodules, by path, those that are torch's own.
    """

    entries: Mapping[str, StateEntry]
    example: Example
    classes: Mapping[str, type[nn.Module]] = field(default_factory=dict)

    def __deepcopy__(self, memo: dict[int, Any]) -> Outline:
        return self


class GraphNetwork(nn.Module):
    """Runs like the network it was made from: the same call, parameter names, train and eval modes.

    It can become another cut of the same network in place (:meth:`become`): the module, its submodules and its
    parameters stay the objects they are, so optimizers, schedulers and hooks go on working. Submodules that are torch's
    own are found by ``isinstance`` too, but hold parameters only; all others are plain modules. Any
    name will do for a submodule: one called like a method of this class is in ``_modules`` all the same.

    Args:
        outline: what all pieces of the network have in common.
        modes: the graphs of "train" and "eval".
        state: what they take, by name: of parameters and buffers those it holds, and all constants.

    Attributes:
        parameter_objects: every parameter of the network by its first name, those it lacks at present (of residual
            blocks that were cut out) as empty tensors without a gradient, which an optimizer passes over.
    """

    def __init__(self, outline: Outline, modes: Mapping[str, Mode], state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.__outline = outline
        self.__holders: dict[str, list[tuple[nn.Module, str]]] = {}
        self.__constants: dict[str, Tensor] = {}  # no buffers: the network has none of these names
        self.parameter_objects: dict[str, nn.Parameter] = {}
        self.__modes: dict[str, Mode] = {}
        self.__held: frozenset[str] = frozenset()
        self.__registered: list[tuple[dict[str, Any], str, nn.Parameter]] = []
        device = next((tensor.device for tensor in state.values()), None)
        for name, entry in outline.entries.items():
            self.__holders[name] = [self._holder(alias) for alias in (name, *entry.aliases)]
            if entry.is_parameter:
                tensor = state[name] if name in state else torch.zeros(
                    [0] * len(entry.shape), dtype=entry.dtype, device=device
                )
                self.parameter_objects[name] = nn.Parameter(tensor, requires_grad=entry.trained)
        self.become(modes, state)

    def become(self, modes: Mapping[str, Mode], state: Mapping[str, Tensor]) -> None:
        """Be the cut that has these graphs and this state; gradients are dropped, everything else stays in place."""
        alike = self.__modes == modes and self.__held == state.keys()
        for name, parameter in self.parameter_objects.items():
            if parameter.grad is not None:
                parameter.grad = None
            values = state[name] if name in state else parameter.data.new_empty([0] * parameter.dim())
            if not alike and values.shape != parameter.shape:
                _forget_graphs(parameter)
            parameter.data = values
        if not (alike and all(table.get(leaf) is parameter for table, leaf, parameter in self.__registered)):
            self._take(modes, state)
            return
        for name in self.__others:
            if name not in self.__holders:
                self.__constants[name] = state[name]
            for holder, leaf in self.__holders.get(name, ()):
                holder._buffers[leaf] = state[name]

    def _take(self, modes: Mapping[str, Mode], state: Mapping[str, Tensor]) -> None:
        """Register what is held, in the order of the whole, and look up where the graphs find it."""
        for name, entry in self.__outline.entries.items():
            for holder, leaf in self.__holders[name]:
                _unregister(holder, leaf)
                if name in state:
                    _register(holder, leaf, self.parameter_objects.get(name, state[name]), entry.persistent)
        self.__constants.update({name: tensor for name, tensor in state.items() if name not in self.__holders})
        self.__modes, self.__held = dict(modes), frozenset(state)
        self.__others = [name for name in state if name not in self.parameter_objects]
        held = ((name, parameter) for name, parameter in self.parameter_objects.items() if name in state)
        self.__registered = [(h._parameters, leaf, each) for name, each in held for h, leaf in self.__holders[name]]
        self.__taken = {mode: [self._slot(name) for name in graph.state] for mode, graph in modes.items()}
        self.__written = {mode: [self._slot(name) for name in graph.mutated] for mode, graph in modes.items()}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph of the present mode.

        Raises:
            InvalidInput: another call than the traced one, or sizes that were fixed at tracing.
        """
        key = "train" if self.training else "eval"
        mode = self.__modes[key]
        tensors = self.__outline.example.tensors_of(args, kwargs)
        mode.check(tensors)
        outputs = mode.graph.forward(*self._state(key), *tensors)
        written = self.__written[key]
        if written:
            with torch.no_grad():
                for (table, leaf), value in zip(written, outputs, strict=False):
                    table[leaf].copy_(value)
            outputs = outputs[len(written) :]
        return mode.result(outputs)

    @contextlib.contextmanager
    def complete(self) -> Iterator[None]:
        """Show the parameters it lacks in their places, empty: to make an optimizer over all there ever are."""
        lacking = [name for name in self.parameter_objects if not _has(*self.__holders[name][0])]
        places = [(name, *place) for name in lacking for place in self.__holders[name]]
        for name, holder, leaf in places:
            holder._parameters[leaf] = self.parameter_objects[name]
        try:
            yield
        finally:
            for _, holder, leaf in places:
                del holder._parameters[leaf]

    def mode(self, name: str) -> tuple[Mode, list[Tensor]]:
        """Return the graph of "train" or "eval", and the tensors it takes before the inputs."""
        return self.__modes[name], self._state(name)

    def _state(self, key: str) -> list[Tensor]:
        try:
            return [table[leaf] for table, leaf in self.__taken[key]]
        except KeyError:  # a parametrization took the place of a parameter
            places = ((name, self.__holders.get(name)) for name in self.__modes[key].state)
            return [self.__constants[name] if place is None else getattr(*place[0]) for name, place in places]

    def _slot(self, name: str) -> tuple[dict[str, Any], str]:
        """Return the table that has a tensor, and its key there: looked up every step, and fast."""
        if name not in self.__holders:
            return self.__constants, name
        holder, leaf = self.__holders[name][0]
        return (holder._parameters if leaf in holder._parameters else holder._buffers), leaf

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GraphNetwork:
        """Move constants where parameters and buffers are moved: to a device, a type."""
        super()._apply(fn, recurse)
        self.__constants.update({name: fn(tensor) for name, tensor in self.__constants.items()})
        return self

    def _holder(self, path: str) -> tuple[nn.Module, str]:
        """Return the submodule that holds a tensor, made if it is not there, and the tensor's name in it."""
        *parents, leaf = path.split(".")
        holder: nn.Module = self
        for depth, part in enumerate(parents, start=1):
            if part not in holder._modules:
                holder._modules[part] = shell(self.__outline.classes.get(".".join(parents[:depth]), nn.Module))
            holder = holder._modules[part]  # type: ignore[assignment]
        return holder, leaf


def _has(holder: nn.Module, leaf: str) -> bool:
    return leaf in holder._parameters or leaf in holder._buffers


def _forget_graphs(parameter: nn.Parameter) -> None:
    """Part a parameter from the graphs it was in.

    A graph that is still alive, by the last loss that a loop holds, would have it expect gradients of its old shape
    for ever. Torch parts the two where the type of the values changes.
    """
    other = torch.float16 if parameter.dtype == torch.float32 else torch.float32
    parameter.data = parameter.data.new_empty(0, dtype=other)


def _register(holder: nn.Module, leaf: str, tensor: Tensor, persistent: bool) -> None:
    """Put a tensor in a module's table, under a name that may be one of its methods too."""
    if isinstance(tensor, nn.Parameter):
        holder._parameters[leaf] = tensor
        return
    holder._buffers[leaf] = tensor
    if not persistent:
        holder._non_persistent_buffers_set.add(leaf)


def _unregister(holder: nn.Module, leaf: str) -> None:
    holder._parameters.pop(leaf, None)
    holder._buffers.pop(leaf, None)
    holder._non_persistent_buffers_set.discard(leaf)
