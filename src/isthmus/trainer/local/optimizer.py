"""A user's optimizer, kept for a whole run while the parameters under it change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from isthmus.errors import InvalidInput
from isthmus.nets.pieces.runnable import GraphNetwork
from isthmus.trainer.local.sharded import local, sharded_as


def adopt(module: nn.Module, make: Callable[[nn.Module], Optimizer]) -> Optimizer:
    """Return the optimizer that a user's function makes of a module.

    A piece that lacks whole blocks shows their parameters, empty, while it is made: they come later, as the same
    objects, and the optimizer must know them. It skips what has no gradient.

    Raises:
        InvalidInput: something else than an optimizer.
    """
    if isinstance(module, GraphNetwork):
        with module.complete():
            made = make(module)
    else:
        made = make(module)
    if not isinstance(made, Optimizer):
        raise InvalidInput(f"`optimizer` must return a torch optimizer, got {type(made).__name__}")
    return made


def forget(module: nn.Module, optimizer: Optimizer, names: Collection[str] | None) -> None:
    """Drop the optimizer's state of the named parameters of a piece, or of all: they start at zero."""
    if names is None:
        optimizer.state.clear()
    elif isinstance(module, GraphNetwork):
        for name in names:
            parameter = module.parameter_objects.get(name)
            if parameter is not None:
                optimizer.state.pop(parameter, None)


def state_of(optimizer: Optimizer) -> dict[str, Any]:
    """Return an optimizer's state, of what is sharded this worker's rows."""
    found: dict[str, Any] = pytree.tree_map(
        lambda leaf: local(leaf) if isinstance(leaf, Tensor) else leaf, optimizer.state_dict()
    )
    return found


def take_up(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Have an optimizer go on from what :func:`state_of` has returned."""
    optimizer.load_state_dict(dict(state))
    for parameter, kept in optimizer.state.items():
        held = local(parameter)
        for key, value in kept.items() if held is not parameter else ():
            if isinstance(value, Tensor) and value.shape == held.shape and value.dim():
                kept[key] = sharded_as(value, parameter)
