"""Whether a script can be run by workers that import it: found out here, where one line can say what is missing."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import FrameType
from typing import Any

from isthmus.errors import InvalidInput


def interactive() -> bool:
    """Whether the main module has no file that a worker could import: a notebook, a shell, a script from a pipe."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return file is None or not Path(file).exists()


def check_guarded() -> None:
    """Refuse to start workers from the top level of a script.

    Every worker imports the script to find the function in it; without the guard it would start workers again.

    Raises:
        InvalidInput: no ``if __name__ == "__main__":`` around the call.
    """
    if interactive():
        return
    main = sys.modules["__main__"]
    place = Path(str(main.__file__))
    if main.__spec__ is not None or place.suffix != ".py":  # python -m: its module guards itself
        return
    frame: FrameType | None = sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(main)):
        frame = frame.f_back
    if frame is None:
        return
    line = frame.f_lineno
    for statement in ast.parse(place.read_text(encoding="utf-8")).body:
        if statement.lineno <= line <= (statement.end_lineno or statement.lineno):
            names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}
            if not (isinstance(statement, ast.If) and "__name__" in names):
                raise InvalidInput(
                    f"isthmus.launch must be called under `if __name__ == \"__main__\":` ({place.name}, line {line}): "
                    "every worker imports the script first"
                )


def check_importable(function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """Refuse what cannot be handed to another process.

    Raises:
        InvalidInput: a function inside another, a lambda, or an argument that holds one.
    """
    if interactive():
        return  # forked: everything is there already
    for value, what in ((function, "the function"), *((each, "an argument") for each in arguments)):
        try:
            ForkingPickler.dumps(value)
        except Exception as error:
            said = " ".join(str(error).split())
            raise InvalidInput(
                f"isthmus.launch cannot hand {what} to other processes ({said}): define functions at the top level of "
                "the script or a module"
            ) from error
