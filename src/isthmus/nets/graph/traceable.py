"""What a network is made to do while it is traced, so that nothing in it depends on a value or on chance."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_LAYERDROP = "layerdrop"
_COMPARED = {"lt": False, "le": False, "less": False, "gt": True, "ge": True, "greater": True}  # a number with a rate


@contextlib.contextmanager
def traceable(model: nn.Module) -> Iterator[list[str]]:
    """Make a network traceable, and yield a list that holds afterwards what a traced graph does otherwise.

    Batch norms with cumulative averages count in tensors; layers that training leaves out by chance are all run
    (``layerdrop``).
    """
    notes: list[str] = []
    forwards: list[nn.Module] = []
    for module in model.modules():
        if type(module).forward is _BatchNorm.forward and module.momentum is None and module.training:
            module.forward = MethodType(_cumulative, module)
            forwards.append(module)
    try:
        with all_run(model) as dropped:
            yield notes
    finally:
        for module in forwards:
            del module.forward
    if dropped and model.training:
        notes.append("layerdrop is 0 in a subnetwork: which layers are left out cannot depend on chance, all are run")


@contextlib.contextmanager
def all_run(model: nn.Module) -> Iterator[bool]:
    """Have a network leave out no layers by chance; yield whether it would."""
    dropped = [(owner, name, value) for owner in _owners(model) for name, value in _dropping(owner)]
    try:
        for owner, name, _ in dropped:
            setattr(owner, name, _Never())
        yield any(value > 0 for _, _, value in dropped)
    finally:
        for owner, name, value in dropped:
            setattr(owner, name, value)


def _owners(model: nn.Module) -> list[Any]:
    """Return all submodules and their configurations, each once."""
    modules = list(model.modules())
    configs = [vars(module).get("config") for module in modules]
    return list({id(owner): owner for owner in (*modules, *configs) if hasattr(owner, "__dict__")}.values())


def _dropping(owner: Any) -> list[tuple[str, float]]:
    """Return the rates at which layers are left out."""
    named = ((name, value) for name, value in vars(owner).items() if name.endswith(_LAYERDROP))
    return [(name, value) for name, value in named if isinstance(value, (int, float))]


class _Never(float):
    """A chance of 0; that a random number is below it needs not be looked up (a graph cannot)."""

    def __new__(cls) -> _Never:
        return super().__new__(cls, 0.0)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "").strip("_")
        if name in _COMPARED:
            return _COMPARED[name] == isinstance(args[1], cls)
        plain = (float(arg) if isinstance(arg, cls) else arg for arg in args)
        return func(*plain, **(kwargs or {}))


def _cumulative(norm: Any, x: Tensor) -> Tensor:
    """Batch norm whose running statistics are the means over all batches so far."""
    norm._check_input_dim(x)
    if not norm.track_running_stats:
        return F.batch_norm(x, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
    norm.num_batches_tracked.add_(1)
    mean, var = torch.zeros_like(norm.running_mean), torch.zeros_like(norm.running_var)
    result = F.batch_norm(x, mean, var, norm.weight, norm.bias, True, 1.0, norm.eps)
    share = norm.num_batches_tracked.to(mean.dtype).reciprocal()
    with torch.no_grad():
        norm.running_mean.lerp_(mean, share)
        norm.running_var.lerp_(var, share)
    return result
