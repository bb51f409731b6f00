"""torch.func.vmap: the mapped dimension is hidden from the operators inside, and whole."""

from __future__ import annotations

from typing import Any

from isthmus.nets.axes.call import Call
from isthmus.nets.axes.records import Dims
from isthmus.nets.axes.registry import rule

_REASON = "mapped over by vmap"


@rule("_add_batch_dim")
def hidden(call: Call) -> Dims:
    """Without the mapped dimension."""
    operand: Any = call.node.args[0]
    dims = list(call.dims(operand))
    call.freeze(dims.pop(int(call.node.args[1])), _REASON)  # type: ignore[arg-type]
    return tuple(dims)


@rule("_remove_batch_dim")
def shown(call: Call) -> Dims:
    """With the mapped dimension again."""
    operand: Any = call.node.args[0]
    dims, shape = list(call.dims(operand)), call.shape()
    place = int(call.node.args[3]) % len(shape)  # type: ignore[arg-type]
    dims.insert(place, call.whole(shape[place], _REASON))
    return tuple(dims)
