"""A module that runs exported graphs over parameters of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn

from isthmus.errors import InvalidInput
from isthmus.nets.program import Example, StateEntry


@dataclass(frozen=True)
class Mode:
    """One graph, and what it takes and returns.

    Attributes:
        graph, state, mutated: the graph, names of the state it takes, and of the buffers whose new values it returns.
        out_spec: the tree of the result.
        fixed: sizes of inputs it is bound to, by input and dimension.
    """

    graph: fx.GraphModule
    state: tuple[str, ...]
    mutated: tuple[str, ...]
    out_spec: Any
    fixed: Mapping[tuple[int, int], int] = field(default_factory=dict)

    def check(self, tensors: Sequence[Tensor]) -> None:
        """Refuse inputs of other sizes than those the graph is bound to: it might run, and be wrong."""
        for (i, d), size in self.fixed.items():
            shape = tuple(tensors[i].shape)
            if len(shape) <= d or shape[d] != size:
                raise InvalidInput(
                    f"input {i} must have size {size} in dimension {d}, as the network was traced, got shape {shape}: "
                    "trace it again with the sizes it is called with"
                )


class GraphNetwork(nn.Module):
    """Runs like the network it was made from: the same call, parameter names, train and eval modes.

    Args:
        modes: the graphs of "train" and "eval".
        state: parameters, buffers and constants by name.
        entries: what the named tensors are; a name without an entry is a constant.
        example: the call the network was traced with.
    """

    def __init__(
        self,
        modes: Mapping[str, Mode],
        state: Mapping[str, Tensor],
        entries: Mapping[str, StateEntry],
        example: Example,
    ) -> None:
        super().__init__()
        self._modes = dict(modes)
        self._example = example
        self._places: dict[str, tuple[nn.Module, str]] = {}
        for name, tensor in state.items():
            entry = entries.get(name)
            if entry is None:
                self._register(f"_constants.{name.replace('.', '_').replace(':', '_')}", tensor, name, False)
            else:
                shown = nn.Parameter(tensor, requires_grad=entry.trained) if entry.is_parameter else tensor
                for alias in (name, *entry.aliases):
                    self._register(alias, shown, name, entry.persistent)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the graph of the present mode.

        Raises:
            InvalidInput: another call than the traced one, or sizes that were fixed at tracing.
        """
        mode = self._modes["train" if self.training else "eval"]
        tensors = self._example.tensors_of(args, kwargs)
        mode.check(tensors)
        places = self._places
        state = [getattr(*places[name]) for name in mode.state]
        results = mode.graph(*state, *tensors)
        split = len(mode.mutated)
        with torch.no_grad():
            for name, value in zip(mode.mutated, results[:split], strict=True):
                getattr(*places[name]).copy_(value)
        return pytree.tree_unflatten(list(results[split:]), mode.out_spec)

    def _register(self, path: str, tensor: Tensor, key: str, persistent: bool) -> None:
        *parents, leaf = path.split(".")
        holder: nn.Module = self
        for part in parents:
            if part not in holder._modules:
                holder.add_module(part, nn.Module())
            holder = holder._modules[part]  # type: ignore[assignment]
        if isinstance(tensor, nn.Parameter):
            holder.register_parameter(leaf, tensor)
        else:
            holder.register_buffer(leaf, tensor, persistent=persistent)
        self._places[key] = (holder, leaf)
