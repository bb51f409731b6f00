"""The parameters and buffers of a network, before anything is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput


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
