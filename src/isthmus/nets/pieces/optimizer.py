"""Optimizer state (momentum, moments) cut and merged by the same index sets as the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from isthmus.nets.pieces.ownership import Held, merge_into, slice_tensor
from isthmus.nets.pieces.subnetwork import Subnetwork


def cut_optimizer(optimizer: Optimizer, model: nn.Module, subnetwork: Subnetwork, target: Optimizer) -> Optimizer:
    """Fill a subnetwork's optimizer with its part of the whole's state, and return it.

    Args:
        optimizer: of the whole network ``model``.
        model: the whole network.
        subnetwork: cut from it.
        target: a new optimizer of the same class over ``subnetwork.module.parameters()``.
    """
    whole = dict(model.named_parameters(remove_duplicate=False))
    for name, part in _parameters(subnetwork).items():
        entries = optimizer.state.get(whole[name], {})
        target.state[part] = {key: _cut(value, whole[name], subnetwork.indices[name]) for key, value in entries.items()}
    return target


def merge_optimizer(
    optimizer: Optimizer, model: nn.Module, parts: Sequence[tuple[Subnetwork, Optimizer]]
) -> Optimizer:
    """Write the subnetworks' optimizer states back into the whole's, and return it.

    Tensors shaped like their parameter are merged as parameters are; where the whole had none it starts from zero.
    Counters of steps become the largest of the holders'.
    """
    for name, parameter in model.named_parameters():
        holders: list[tuple[dict[str, Any], Subnetwork]] = []
        for subnetwork, part in parts:
            mine = _parameters(subnetwork).get(name)
            if mine is not None and part.state.get(mine):
                holders.append((part.state[mine], subnetwork))
        for key in dict.fromkeys(key for entries, _ in holders for key in entries):
            values = [(entries[key], sub.indices[name]) for entries, sub in holders if key in entries]
            state = optimizer.state[parameter]
            state[key] = _merged(state.get(key), values, parameter)
    return optimizer


def _parameters(subnetwork: Subnetwork) -> dict[str, nn.Parameter]:
    named = dict(subnetwork.module.named_parameters(remove_duplicate=False))
    return {name: named[name] for name in subnetwork.indices if name in named}


def _cut(value: Any, whole: Tensor, held: Held) -> Any:
    if isinstance(value, Tensor):
        return slice_tensor(value, held) if value.shape == whole.shape and value.dim() else value.clone()
    return value


def _merged(old: Any, values: Sequence[tuple[Any, Held]], parameter: Tensor) -> Any:
    first = values[0][0]
    shaped = isinstance(first, Tensor) and first.dim() == parameter.dim() and parameter.dim() > 0
    if not shaped:
        candidates = [value for value, _ in values] + ([] if old is None else [old])
        return max(candidates, key=float) if all(c is not None for c in candidates) else first
    target = torch.zeros_like(parameter, dtype=first.dtype) if old is None else old
    merge_into(target, values)
    return target
