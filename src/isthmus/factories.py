"""A user's own function by name, ``MODULE:FACTORY``, for networks and for data; and what it returns, checked."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from isthmus.errors import InvalidInput, IsthmusError


def load_factory(target: str, flag: str = "model") -> Callable[..., Any]:
    """Return the function that ``target`` names; the current folder is searched first.

    The current folder stays on the module search path, as with ``python -m``: the function may import its neighbours
    when it is called, and processes started from here find it too.

    Args:
        target: MODULE:FACTORY, MODULE a dotted name (``mynets``, ``package.mynets``).
        flag: what messages call the value.

    Raises:
        InvalidInput: not MODULE:FACTORY, no such module or function, or a module that fails while it is imported.

    >>> load_factory("math:sqrt")(9.0)
    3.0
    """
    name, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in (*name.split("."), attribute)):
        raise InvalidInput(f"`{flag}` must be MODULE:FACTORY (mynets:small, not a path), got {target!r}")
    module = _import(name, target, flag)
    found = getattr(module, attribute, None)
    if found is None:
        known = [key for key, value in vars(module).items() if callable(value)]
        near = difflib.get_close_matches(attribute, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InvalidInput(f"`{flag}` must name a function: module {name!r} has no {attribute!r}{hint}")
    if not callable(found):
        raise InvalidInput(f"`{flag}` must name a function, got {target!r} of type {type(found).__name__}")
    return found


def call_factory(factory: Callable[[], Any], called: str) -> Any:
    """Return what a user's function returns.

    Args:
        factory: to call.
        called: what messages call it ("`model` 'mynets:small'").

    Raises:
        InvalidInput: it raises; the message is one line.
    """
    try:
        return factory()
    except IsthmusError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        raise InvalidInput(f"{called} fails: {type(error).__name__}: {said}") from error


def network_and_call(made: Any, called: str) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """Return the network, and the arguments of an example call of it, that a user's function returned.

    Raises:
        InvalidInput: not (network, args) or (network, args, kwargs).

    >>> network_and_call(("network", [1, 2]), "`model` 'mynets:small'")
    ('network', (1, 2), {})
    """
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise InvalidInput(f"{called} must return (network, args) or (network, args, kwargs)")
    network, args, *rest = made
    kwargs = rest[0] if rest and rest[0] is not None else {}
    if not isinstance(args, (tuple, list)) or not isinstance(kwargs, Mapping):
        raise InvalidInput(
            f"{called} must return (network, args) or (network, args, kwargs), args a tuple as in (x,) and "
            f"kwargs a dictionary, got {type(args).__name__} and {type(kwargs).__name__}"
        )
    return network, tuple(args), dict(kwargs)


def _import(name: str, target: str, flag: str) -> ModuleType:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()  # the file may be younger than the last look into the folder
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise InvalidInput(
                f"`{flag}` must be MODULE:FACTORY with a module that exists, got {target!r}: no module "
                f"{error.name!r} in {folder} or among the installed packages"
            ) from error
        said = " ".join(str(error).split())
        raise InvalidInput(f"`{flag}` {target!r}: importing {name!r} fails: {type(error).__name__}: {said}") from error
