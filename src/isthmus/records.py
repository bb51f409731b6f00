"""A run's folder: what was asked, where it ran, what happened row by row, and how it ended.

::

    RUN/
      config.json       the resolved configuration and the exact command that reproduces the run; if it was made from
                        Python, null instead of the command, and the name of the script (null in a notebook); the
                        commands by which it went on
      environment.json  versions, platform, commit
      rows.jsonl        one JSON object a line, appended and flushed while the run goes on
      checkpoints/      of a training: the last few places to go on from (isthmus.trainer.checkpoint)
      summary.json      written last: {"status": "finished" | "diverged" | "interrupted" | "failed", ...}

Plain JSON throughout, readable by pandas (``pd.read_json("rows.jsonl", lines=True)``); never a pickle. A run that was
killed has no ``summary.json``; its rows so far are intact. Not-a-number and infinities are written as null.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from isthmus import frames
from isthmus.errors import RecordError

if TYPE_CHECKING:
    from pandas import DataFrame

FORMAT = 1
_VERSIONS = ("isthmus", "numpy", "scipy", "scikit-learn", "torch")


def to_json(value: Any) -> Any:
    """Return ``value`` as plain JSON data: arrays as lists, numbers that are not finite as None."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_json(value.tolist())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    if isinstance(value, np.generic):
        return to_json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


class RunWriter:
    """Writes one run's folder; use as a context manager so that a failure is recorded too.

    Args:
        path: the folder; must not exist, or be empty, or (with ``replace``) hold an earlier run.
        kind: "analyze", "train", ...
        config: the resolved configuration, JSON-able.
        command: argument list that reproduces the run; None where no single command does, as for a run made from
            Python: then the name of the script is recorded.
        replace: remove an earlier run in this place first. Anything that is not a run is never removed.

    Raises:
        RecordError: the folder is taken or cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        kind: str,
        config: Mapping[str, Any],
        command: list[str] | None = None,
        replace: bool = False,
    ) -> None:
        self.path = Path(path)
        self._closed = False
        _claim(self.path, replace)
        made = {"command": None, "script": _script()} if command is None else {"command": shlex.join(command)}
        _write_json(self.path / "config.json", {"format": FORMAT, "kind": kind, **made, "config": to_json(config)})
        _write_json(self.path / "environment.json", environment())
        self._rows = (self.path / "rows.jsonl").open("a", encoding="utf-8")

    @classmethod
    def attach(cls, path: str | Path) -> RunWriter:
        """Return a writer that appends rows to the folder another process has begun and will finish."""
        writer = cls.__new__(cls)
        writer.path = Path(path)
        writer._closed = False
        writer._rows = (writer.path / "rows.jsonl").open("a", encoding="utf-8")
        return writer

    @classmethod
    def again(cls, path: str | Path, config: Mapping[str, Any], command: list[str] | None) -> RunWriter:
        """Return a writer that goes on with an earlier run: it is unfinished again.

        Args:
            path: its folder.
            config: as it is from now on.
            command: argument list by which it goes on; noted after those before.
        """
        folder = Path(path)
        said = _read_json(folder / "config.json")
        shown = None if command is None else shlex.join(command)
        said |= {"config": to_json(config), "resumed": [*said.get("resumed", []), shown]}
        _write_json(folder / "config.json", said)
        (folder / "summary.json").unlink(missing_ok=True)
        return cls.attach(folder)

    def rewind(self, most: int) -> list[dict[str, Any]]:
        """Drop the rows after a round, and what a kill left of a last one; return those before."""
        path = self.path / "rows.jsonl"
        rows = [row for row in _read_rows(path) if row["round"] <= most]
        self._rows.close()
        partial = path.with_name("rows.jsonl.partial")
        partial.write_text("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows), encoding="utf-8")
        partial.replace(path)
        self._rows = path.open("a", encoding="utf-8")
        return rows

    def append(self, row: Mapping[str, Any]) -> None:
        """Append one row and flush it, so that a killed run keeps what it had."""
        self._rows.write(json.dumps(to_json(row), allow_nan=False) + "\n")
        self._rows.flush()

    def finish(self, summary: Mapping[str, Any], status: str = "finished") -> None:
        """Write ``summary.json`` and close; the first call counts, later ones do nothing."""
        if self._closed:
            return
        self._closed = True
        self._rows.close()
        _write_json(self.path / "summary.json", {"status": status, **to_json(summary)})

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.finish({})
        elif isinstance(error, KeyboardInterrupt):
            self.finish({"error": "interrupted"}, status="interrupted")
        else:
            self.finish({"error": f"{error}"}, status="failed")


def fresh_folder(name: str) -> Path:
    """Return ``runs/NAME``, or ``runs/NAME-2``, ``runs/NAME-3``, ... : the first that is not there yet."""
    names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(folder for folder in (Path("runs") / name for name in names) if not folder.exists())


@dataclass(frozen=True)
class Run:
    """A run read back from its folder.

    Attributes:
        path: the folder.
        kind: "analyze", "train", ...
        command: the exact command that reproduces it; None if it was made from Python.
        config: the resolved configuration.
        environment: versions, platform, commit.
        rows: one dict a line.
        summary: empty if the run was killed before its end.
        script: the file name of the script that made it, if it was made from Python and not in a notebook.
    """

    path: Path
    kind: str
    command: str | None
    config: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, Any]] = field(repr=False)
    summary: dict[str, Any] = field(repr=False)
    script: str | None = None

    @property
    def status(self) -> str:
        """How it ended: "unfinished" when there is no summary."""
        return str(self.summary.get("status", "unfinished"))

    def to_frame(self) -> DataFrame:
        """Return the rows as a pandas table."""
        return frames.of_rows(self.rows)


def read_run(path: str | Path) -> Run:
    """Read a run's folder; a last line cut short by a kill is left out.

    Raises:
        RecordError: not a run's folder, or a file in it is not what it should be (file and line named).
    """
    folder = Path(path)
    config = _read_json(folder / "config.json")
    if not is_run(folder):
        raise RecordError(f"{folder / 'config.json'} was not written by isthmus, or by a newer one (format {FORMAT})")
    summary = folder / "summary.json"
    return Run(
        path=folder,
        kind=config["kind"],
        command=config["command"],
        config=config["config"],
        environment=_read_json(folder / "environment.json"),
        rows=_read_rows(folder / "rows.jsonl"),
        summary=_read_json(summary) if summary.exists() else {},
        script=config.get("script"),
    )


def is_run(folder: Path) -> bool:
    """Whether ``folder`` holds a run of this format."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    text = (str, NoneType)
    fields: dict[str, type | tuple[type, ...]] = {"kind": str, "command": text, "script": text, "config": dict}
    return (
        isinstance(config, dict)
        and config.get("format") == FORMAT
        and all(isinstance(config.get(name), kind) for name, kind in fields.items())
    )


def environment() -> dict[str, Any]:
    """Return versions, platform and commit, for ``environment.json``."""
    versions = {"python": platform.python_version()}
    for name in _VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "commit": _commit(),
    }


def _script() -> str | None:
    """The file name of the script that runs, without its folder: a record is shown to others."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(path).name if path else None


def _commit() -> str | None:
    git = shutil.which("git")
    here = Path(__file__).resolve().parent
    if git is None:
        return None
    tracked = subprocess.run([git, "-C", here, "ls-files", "--error-unmatch", __file__], capture_output=True)
    if tracked.returncode != 0:
        return None
    done = subprocess.run([git, "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or None


def _claim(path: Path, replace: bool) -> None:
    try:
        if path.is_dir() and any(path.iterdir()):
            if not is_run(path):
                raise RecordError(f"{path} exists and is not a run of isthmus: choose another folder")
            if not replace:
                raise RecordError(
                    f"{path} already holds a run: choose another folder, or add --replace to replace it "
                    "(in Python: replace=True)"
                )
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror}") from error


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".json.partial")
    partial.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"cannot read {path.name} ({error.strerror})"
        raise RecordError(f"{path.parent} is not a run of isthmus: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict):
        raise RecordError(f"{path} must hold a JSON object")
    return data


def _read_rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is not text: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):  # no newline after it: the run was killed while it wrote this row
                break
            raise RecordError(f"{path}, line {number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise RecordError(f"{path}, line {number}: must hold a JSON object")
        rows.append(row)
    return rows
