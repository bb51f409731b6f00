"""What a user brings to a command: a problem, a sketch or a method by ``MODULE:FACTORY``, or a problem's arrays.

A factory of a problem takes nothing, one of a sketch or a method takes the problem. A file of arrays is NumPy's own:
``.npz`` with L [n, d, d] and b [n, d] of a quadratic, or A and y of least squares, and a start x0 [d] if one is wanted;
``.npy`` with L alone (b = 0).
"""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from collections.abc import Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isthmus.errors import DataError, InvalidInput, check_choice
from isthmus.factories import call_factory, load_factory
from isthmus.lab.arrays import Array, check_array
from isthmus.lab.methods import CountedMethod, Method
from isthmus.lab.problems import LeastSquares, Problem, Samples
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Sketch, as_sketch

FILES = (".npz", ".npy")


def is_own(value: str) -> bool:
    """Whether a flag's value is ``MODULE:FACTORY`` or a file of arrays, not one of the names isthmus has.

    >>> [is_own(value) for value in ("gaussian", "mine:problem", "runs/a.npz")]
    [False, True, True]
    """
    return ":" in value or Path(value).suffix in FILES


def check_name(flag: str, value: str, names: Sequence[str]) -> None:
    """Check that ``value`` is one of ``names``, or the user's own.

    Raises:
        InvalidInput: neither.
    """
    if not is_own(value):
        check_choice(flag, value, [*names, "MODULE:FACTORY"])


def own_problem(place: str, workers: int, seed: int = 0, ridge: float = 0.0) -> tuple[Problem, Array | None]:
    """Return the problem in a file of arrays or from a factory, and a start x0 [d] where one comes with it.

    Args:
        place: a file, or MODULE:FACTORY, a function without arguments that returns a problem or (problem, x0).
        workers: to deal the samples of A [m, d] and y [m] to; what is given by worker has its own number.
        seed: of that deal.
        ridge: of least squares.

    Raises:
        InvalidInput: the function cannot be found, fails, or returns something else.
        DataError: the file cannot be read, or holds other arrays or ones that do not fit.
    """
    problem, x0 = _of_arrays(place, workers, seed, ridge) if Path(place).suffix in FILES else _of_factory(place)
    if isinstance(problem, Quadratic) and problem.spectrum[-1] == 0.0:
        raise InvalidInput(f"`problem` {place!r} must have some curvature, got an f that is the same everywhere")
    return problem, x0


def _of_factory(place: str) -> tuple[Problem, Array | None]:
    called = f"`problem` {place!r}"
    made = call_factory(load_factory(place, "problem"), called)
    problem, x0 = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    needed = ("workers", "dim", "gap", "gradient", "worker_gradients")
    _check_has(called, "a problem (a Quadratic, LeastSquares, Logistic, ...) or (problem, x0)", problem, needed)
    return problem, None if x0 is None else check_array("x0", x0, problem.dim)


def own_sketch(target: str, problem: Problem) -> Sketch:
    """Return the sketch that the function ``target`` makes for ``problem``.

    Raises:
        InvalidInput: it cannot be found, fails, returns no sketch or one of another size.
    """
    called = f"`sketch` {target!r}"
    made = _made(target, "sketch", called, problem)
    _check_has(called, "a sketch", made, ("sample",))
    sketch: Sketch = call_factory(lambda: as_sketch(made), called)
    if (sketch.workers, sketch.dim) != (problem.workers, problem.dim):
        raise InvalidInput(
            f"{called} must return a sketch of the problem's {problem.workers} workers and {problem.dim} coordinates, "
            f"got one of {sketch.workers} and {sketch.dim}"
        )
    return sketch


def own_method(target: str, problem: Problem, flag: str = "method") -> Method:
    """Return the method that the function ``target`` makes for ``problem``.

    Raises:
        InvalidInput: it cannot be found, fails, or returns something that is not a dataclass with a method's functions.
    """
    called = f"`{flag}` {target!r}"
    made: Method = _made(target, flag, called, problem)
    _check_has(called, "a method", made, ("stepsize", "init", "step"))
    if not is_dataclass(made):
        raise InvalidInput(f"{called} must return a dataclass, whose stepsize can be replaced, got {_kind(made)}")
    return made


def own_counted_method(target: str, problem: Problem) -> CountedMethod:
    """Return the same, with a method's stated costs.

    Raises:
        InvalidInput: as for :func:`own_method`, or it states no costs.
    """
    made: Any = own_method(target, problem, "methods")
    _check_has(f"`methods` {target!r}", "a method that states its costs", made, ("cost", "start_cost"))
    counted: CountedMethod = made
    return counted


def fingerprint(value: str) -> str | None:
    """Return the SHA-256 of the file that the user's own ``value`` comes from; None for a name of isthmus.

    Of a module it is the file itself: what that imports in turn is not looked at.
    """
    if not is_own(value):
        return None
    path: str | None = value
    if Path(value).suffix not in FILES:
        load_factory(value)  # finds the module as the command will
        spec = importlib.util.find_spec(value.partition(":")[0])
        path = spec.origin if spec is not None else None
    try:
        return hashlib.sha256(Path(str(path)).read_bytes()).hexdigest()
    except OSError:
        return None


def _made(target: str, flag: str, called: str, problem: Problem) -> Any:
    factory = load_factory(target, flag)
    return call_factory(lambda: factory(problem), called)


def _check_has(called: str, what: str, made: Any, needed: Sequence[str]) -> None:
    missing = [name for name in needed if not hasattr(made, name)]
    if missing or isinstance(made, type):
        lacks = f", which has no `{missing[0]}`" if missing else ", a class and no instance of it"
        raise InvalidInput(f"{called} must return {what}, got {_kind(made)}{lacks}")


def _kind(made: Any) -> str:
    return made.__name__ if isinstance(made, type) else type(made).__name__


def _of_arrays(place: str, workers: int, seed: int, ridge: float) -> tuple[Problem, Array | None]:
    arrays = _arrays(place)
    kinds = ({"L", "b", "x0"}, {"A", "y", "x0"})
    if not (("L" in arrays and set(arrays) <= kinds[0]) or ({"A", "y"} <= set(arrays) <= kinds[1])):
        found = ", ".join(arrays) or "nothing"
        raise DataError(f"{place}: must hold L and b, or A and y, and x0 if wanted, got {found}")
    try:
        problem = _quadratic(arrays, ridge) if "L" in arrays else _least_squares(arrays, workers, seed, ridge)
        x0 = check_array("x0", arrays["x0"], problem.dim) if "x0" in arrays else None
    except InvalidInput as error:
        raise DataError(f"{place}: {error}") from error
    return problem, x0


def _arrays(place: str) -> dict[str, Any]:
    try:
        loaded = np.load(place, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"L": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{place}: not a file of NumPy arrays: {error}") from error


def _quadratic(arrays: dict[str, Any], ridge: float) -> Quadratic:
    if ridge:
        raise InvalidInput(f"`ridge` has no effect on matrices that are given, got {ridge:g}")
    L = check_array("L", arrays["L"], "n", "d", "d")
    return Quadratic(L, arrays.get("b", np.zeros(L.shape[:2])))


def _least_squares(arrays: dict[str, Any], workers: int, seed: int, ridge: float) -> LeastSquares:
    if np.ndim(arrays["A"]) == 2:
        return LeastSquares(Samples.split(arrays["A"], arrays["y"], workers, seed), ridge)
    A = check_array("A", arrays["A"], "n", "m", "d")
    y = check_array("y", arrays["y"], *A.shape[:2])
    return LeastSquares(Samples.of_shares(list(zip(A, y, strict=True))), ridge)
