"""What a forward keeps in its modules from call to call, and is no buffer of a lasting shape: refused."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput
from isthmus.nets.graph.exported import ExportedGraph, module_path
from isthmus.nets.graph.failures import place_of
from isthmus.nets.graph.writes import writes

_DETACH = torch.ops.aten.detach_.default  # in place, and changes nothing


def plain_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that are attributes of submodules, but neither parameters nor buffers, by path."""
    found = ((path, name, value) for path, module in model.named_modules() for name, value in vars(module).items())
    return {f"{path}.{name}".lstrip("."): value for path, name, value in found if isinstance(value, Tensor)}


def alike(a: Tensor, b: Tensor | None) -> bool:
    """Whether two tensors are of one shape and type."""
    return b is not None and a.shape == b.shape and a.dtype == b.dtype


def refuse_reshaped(buffer: str | None) -> None:
    """Refuse a buffer that forward replaces by a tensor of another shape or type: no row of it would know its place.

    Many are made for the sizes of the first call (relative positions, say), and stay as they are at the next.
    """
    if buffer is not None:
        raise InvalidInput(
            f"`model` gives its buffer {buffer} another shape or type in forward: run it once on a batch of these "
            "sizes, then trace it; if every call changes it, let it be no buffer but an input and a result"
        )


def refuse_kept(exported: ExportedGraph, renewed: Iterable[str]) -> None:
    """Refuse a tensor that forward reads, and assigns or writes anew, if it is no buffer: a graph would not see it.

    What is only assigned, attention weights to look at, is of no use to the next call.

    Args:
        exported: a graph, with the names of constants as the network has them.
        renewed: attributes that forward assigns.
    """
    constants = {node: name for node, name in exported.state_nodes.items() if name in exported.constants}
    for name in renewed:
        if any(name == constant and node.users for node, constant in constants.items()):
            raise InvalidInput(f"`model` reads its attribute {name} and assigns it anew in forward: {_INSTEAD}")
    for writer, origin in writes(exported.module):
        if origin in constants and writer.target is not _DETACH:
            where = place_of(writer, module_path(writer))
            raise InvalidInput(f"`model` writes to a tensor that it keeps in {where}: {_INSTEAD}")


_INSTEAD = "make it a buffer (register_buffer), so that subnetworks have it and merging returns it"
