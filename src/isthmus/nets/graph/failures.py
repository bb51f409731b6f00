"""Why a network cannot be traced, and where in the user's own code."""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
import textwrap
import traceback
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import FrameType

import torch
from torch import fx, nn

_LIBRARY = sysconfig.get_path("stdlib") + os.sep
_INSTALLED = ("site-packages", "dist-packages")  # folders that may lie in it
_NOT_THEIRS = (  # torch, what it counts sizes with, this package
    f"{Path(torch.__file__).parent}{os.sep}",
    f"{Path(torch.__file__).parents[1] / 'sympy'}{os.sep}",
    f"{Path(__file__).parents[1]}{os.sep}",
)
_NUMBERS = re.compile(r"\.item\(\)|\.tolist\(\)|\b(int|float)\(")
_VALUES = ("DataDependent", "data-dependent", "_local_scalar_dense")


def explain(failure: BaseException, model: nn.Module, differentiates: str = "") -> str:
    """Return one line that says why the export of a network failed, with the submodule, the file and the line.

    Args:
        failure: of the export.
        model: the network.
        differentiates: where its forward calls autograd, if it does: the failure itself says nothing of it.
    """
    where, code = _place(failure, model)
    where = where and f" in {where}"
    reason = textwrap.shorten(str(failure).strip().split("\n")[0], 200)
    if any(mark in f"{type(failure).__name__} {reason}" for mark in _VALUES):
        if _NUMBERS.search(code):
            return f"`model` cannot be traced: it turns a tensor into a Python number{where}; keep it a tensor"
        return f"`model` cannot be traced: it branches on values{where}; torch.where chooses without a branch"
    if differentiates:
        return (
            f"`model` cannot be traced: it differentiates itself in {differentiates}, which a graph cannot hold; "
            "torch.func.jvp can be traced"
        )
    if isinstance(failure, TypeError | AttributeError) and "NoneType" in reason:
        return (
            f"`model` cannot be traced{where} ({reason}): give it what the call leaves out (a mask, say), which it may "
            "make by itself only where it is not traced"
        )
    return (
        f"`model` cannot be traced{where} ({type(failure).__name__}: {reason}): networks that branch on values, call "
        ".item() or fail on the example input are out of reach"
    )


def place_of(node: fx.Node, path: str) -> str:
    """Return where a node was traced: the submodule, and the innermost line of the user's own code."""
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]+)', str(node.meta.get("stack_trace", "")))
    theirs = [frame for frame in frames if is_theirs(frame[0])]
    shown = f" ({_line(theirs[-1][0], int(theirs[-1][1]), theirs[-1][2])})" if theirs else ""
    return f"{_named(path)}{shown}"


@lru_cache(maxsize=4096)
def is_theirs(file: str) -> bool:
    """Whether a file is the user's: not Python's own, torch's nor ours."""
    pythons = file.startswith(_LIBRARY) and not any(folder in file for folder in _INSTALLED)
    return not pythons and not file.startswith((*_NOT_THEIRS, "<"))


def place_now(frame: FrameType, model: nn.Module) -> str:
    """Return where in the user's code a frame is, called from a network's forward; "" if nowhere in it."""
    frames: list[tuple[FrameType, int]] = []
    inner: FrameType | None = frame
    while inner is not None:
        frames.append((inner, inner.f_lineno))
        inner = inner.f_back
    return _innermost(reversed(frames), {id(module): path for path, module in model.named_modules()})[0]


def _place(failure: BaseException, model: nn.Module) -> tuple[str, str]:
    """Return where in the user's code an exception came from, and the line of code; ("", "") if nowhere in it."""
    paths = {id(module): path for path, module in model.named_modules()}
    found = ("", "")
    for error in _chain(failure):
        inner = _innermost(traceback.walk_tb(error.__traceback__), paths)
        found = inner if inner[1] or not found[0] else found
    return found


def _innermost(frames: Iterable[tuple[FrameType, int]], paths: dict[int, str]) -> tuple[str, str]:
    """Return the last line of the user's code among frames, outermost first, and the line; a submodule without one."""
    found, path = ("", ""), None
    for frame, number in frames:
        path = _path(frame, paths, path)
        file = frame.f_code.co_filename
        if is_theirs(file) and path is not None:
            code = linecache.getline(file, number).strip()
            found = f"{_named(path)} ({_line(file, number, code)})", code
    return (_named(path), "") if path and not found[0] else found


def _path(frame: FrameType, paths: dict[int, str], outer: str | None) -> str | None:
    """Return the path of the submodule whose method a frame runs; that of the frames around it for a function."""
    owner = frame.f_locals.get("self")
    return paths.get(id(owner), outer) if isinstance(owner, nn.Module) else outer


def _chain(failure: BaseException) -> Iterator[BaseException]:
    error: BaseException | None = failure
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _named(path: str) -> str:
    return f"`{path}`" if path else "its forward"


def _line(file: str, number: int, code: str) -> str:
    return f"{Path(file).name}:{number}: `{textwrap.shorten(code, 80)}`"
