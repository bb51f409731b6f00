"""A package whose public names are loaded at first use, so that importing it loads neither torch nor scipy.

The package writes one table, {"train": "isthmus.trainer", "lab": "isthmus"} for ``from isthmus.trainer import train``
and ``from isthmus import lab``, and calls :func:`load_lazily` with it. It repeats the names in ``__all__`` and
the imports under ``if TYPE_CHECKING``, which is all that type checkers and editors read; ``tests/test_names.py`` holds
the three together.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

from isthmus.errors import missing_dependency


class _LazyPackage(ModuleType):
    _names: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        if name not in self._names:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        place = self._names[name]
        try:
            inside = place == self.__name__
            value = import_module(f"{place}.{name}") if inside else getattr(import_module(place), name)
        except ImportError as error:
            raise missing_dependency(f"{self.__name__}.{name}", error) from error
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._names})


def load_lazily(package: str, names: Mapping[str, str]) -> None:
    """Let ``package`` load each of ``names`` (name -> what it is imported from) when it is first asked for.

    Where a module needs an optional dependency that is not installed, asking for the name raises
    :class:`isthmus.errors.MissingDependency`.
    """
    module = sys.modules[package]
    module.__class__ = _LazyPackage
    vars(module)["_names"] = names
