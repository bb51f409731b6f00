"""Many comparisons over one setting, resumable by content: a cell that has been computed is read, not computed."""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Iterator
from concurrent import futures
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from isthmus.errors import InvalidInput, RecordError, check_choice, check_integer
from isthmus.lab.compare.result import compare_one
from isthmus.lab.compare.roster import ROSTER
from isthmus.lab.compare.settings import Comparison
from isthmus.lab.own import check_name, fingerprint
from isthmus.progress import progress, silence
from isthmus.version import __version__

SWEPT = ("step_factors", "workers", "keep", "local_steps", "heterogeneity", "period", "condition_number", "dim")


@dataclass(frozen=True)
class Cell:
    """One method under one setting."""

    settings: Comparison
    method: str

    @property
    def key(self) -> str:
        """SHA-256 of everything the result depends on."""
        alone = asdict(replace(self.settings, methods=(self.method,)))
        own = [fingerprint(value) for value in (self.method, self.settings.problem, self.settings.sketch)]
        whole = {"isthmus": __version__, "method": self.method, "own": own, **alone}
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


def cells_of(settings: Comparison, over: str | None = None, values: tuple[float, ...] = ()) -> list[Cell]:
    """Return a cell for every method, at every value of the setting ``over``.

    Raises:
        InvalidInput: an unknown method or setting, no values, or a value that breaks the setting's rule.
    """
    for name in settings.methods:
        check_name("methods", name, list(ROSTER))
    if over is None:
        return [Cell(settings, name) for name in settings.methods]
    check_choice("over", over, SWEPT)
    if not values:
        raise InvalidInput("`values` must hold at least one number to sweep over, got none")
    swept = [replace(settings, **{over: _typed(over, value)}) for value in values]
    return [Cell(one, name) for one in swept for name in settings.methods]


def _typed(over: str, value: float) -> Any:
    kind = next(field.type for field in fields(Comparison) if field.name == over)
    if over == "step_factors":
        return (value,)
    return int(value) if kind == "int" and float(value).is_integer() else value


def run_cells(cells: list[Cell], store: Path | None = None, processes: int = 1) -> list[dict[str, Any]]:
    """Return the cells' results in their order, each computed once and kept in ``store``.

    Interrupted, it keeps the cells that are done; run again, it computes the others. The results are the same bits
    however often it was interrupted and however many processes share the work.

    Args:
        cells: what to compute.
        store: a folder, one file a cell named by its content; None keeps nothing.
        processes: how many share the work; each runs its linear algebra on one thread.

    Raises:
        InvalidInput: fewer than one process, or settings that do not fit their data.
        RecordError: a file of the store cannot be read or written.
    """
    check_integer("processes", processes, at_least=1)
    results: dict[Cell, dict[str, Any]] = {}
    with progress("comparing", len(cells)) as advance:
        for cell in cells:
            kept = _read(store, cell)
            if kept is not None:
                results[cell] = kept
                advance()
        missing = [cell for cell in dict.fromkeys(cells) if cell not in results]
        for cell, result in _computed(missing, min(processes, max(len(missing), 1))):
            _write(store, cell, result)
            results[cell] = result
            advance(note=cell.method)
    return [results[cell] for cell in cells]


def _computed(cells: list[Cell], processes: int) -> Iterator[tuple[Cell, dict[str, Any]]]:
    if processes == 1:
        for cell in cells:
            yield cell, compare_one(cell.settings, cell.method)
        return
    with futures.ProcessPoolExecutor(processes, get_context("spawn"), initializer=_help) as pool:
        waiting: dict[futures.Future[dict[str, Any]], Cell] = {
            pool.submit(compare_one, cell.settings, cell.method): cell for cell in cells
        }
        try:
            while waiting:
                done, _ = futures.wait(waiting, return_when=futures.FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _help() -> None:
    """Be a helping process: Ctrl-C ends it at once, and the one that started it says that and how far all of it is."""
    silence()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read(store: Path | None, cell: Cell) -> dict[str, Any] | None:
    if store is None:
        return None
    path = store / f"{cell.key}.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is not a cell of a sweep: {error}; remove it to compute it again") from error
    if not isinstance(result, dict):
        raise RecordError(f"{path} must hold a JSON object; remove it to compute it again")
    return result


def _write(store: Path | None, cell: Cell, result: dict[str, Any]) -> None:
    if store is None:
        return
    path = store / f"{cell.key}.json"
    partial = path.with_suffix(".partial")
    try:
        store.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(result, allow_nan=False), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error
