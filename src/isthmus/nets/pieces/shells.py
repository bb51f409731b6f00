"""Submodules that hold the parameters of a piece: instances of the original's class in name only."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn

_NOT_TAKEN = {"__module__", "__dict__", "__weakref__", "__doc__", "__annotations__", "__annotate__"}


def module_classes(model: nn.Module) -> dict[str, type[nn.Module]]:
    """Return the class of every submodule that is torch's own, by path; all others count as plain modules."""
    named = ((path, type(module)) for path, module in model.named_modules(remove_duplicate=False))
    return {path: cls for path, cls in named if path and cls.__module__.startswith("torch.nn.modules.")}


def shell(cls: type[nn.Module]) -> nn.Module:
    """Return an empty module that ``isinstance`` takes for one of ``cls``.

    So an optimizer's parameter groups can be chosen by class, as is usual ("no decay for LayerNorm"). All it does is
    what a plain module does: it has no sizes, no options and no forward of its own.

    >>> norm = shell(nn.LayerNorm)
    >>> isinstance(norm, nn.LayerNorm), norm
    (True, LayerNorm())
    """
    made = _bare(cls)
    nn.Module.__init__(made)
    return made


@cache
def _shell_class(cls: type[nn.Module]) -> type[nn.Module]:
    """A subclass in which everything that a plain module does is done as a plain module does it."""
    plain = {name: value for name, value in vars(nn.Module).items() if name not in _NOT_TAKEN}
    return type(cls.__name__, (cls,), {**plain, "__reduce__": lambda self: (_bare, (cls,), self.__dict__)})


def _bare(cls: type[nn.Module]) -> Any:
    return nn.Module.__new__(nn.Module if cls is nn.Module else _shell_class(cls))  # type: ignore[arg-type]
