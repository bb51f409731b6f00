"""Writing a run's folder, whatever the disk does meanwhile."""

from __future__ import annotations

import json
import logging
import os
import secrets
import shlex
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from isthmus.errors import RecordError
from isthmus.records.chain import FIELD, begin, sealed
from isthmus.records.environment import environment, script
from isthmus.records.files import write_aside
from isthmus.records.journal import Journal, save_spare
from isthmus.records.lock import Lock
from isthmus.records.manifest import Manifest, Vouched, commit
from isthmus.records.place import claim
from isthmus.records.plain import to_json
from isthmus.records.reader import CONFIG, ENVIRONMENT, EVENTS, FORMAT, MODEL, ROWS, SUMMARY, Look

_log = logging.getLogger("isthmus")


class RunWriter:
    """Writes one run's folder; use as a context manager so that a failure is recorded too.

    Whoever makes it holds the folder's lock until :meth:`finish` or :meth:`close`.

    Args:
        path: the folder; must not exist, or be empty, or (with ``replace``) hold an earlier run.
        kind: "analyze", "train", ...
        config: the resolved configuration, JSON-able.
        command: argument list that reproduces the run; None where no single command does, as for a run made from
            Python: then the name of the script is recorded.
        replace: remove an earlier run in this place first. What isthmus did not write is never removed.
        spare: a folder for what cannot be written to this one in the end.

    Raises:
        RecordError: the folder is taken, or another process writes it, or it cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        kind: str,
        config: Mapping[str, Any],
        command: list[str] | None = None,
        replace: bool = False,
        spare: Path | None = None,
    ) -> None:
        folder = Path(path)
        lock = claim(folder, replace)
        made = {"command": None, "script": script()} if command is None else {"command": shlex.join(command)}
        said = {"format": FORMAT, "kind": kind, **made, "config": to_json(config)}
        texts = {CONFIG: _text(said), ENVIRONMENT: _text(environment())}
        try:
            manifest = commit(folder, Manifest(secrets.token_hex(16)), texts)
            (folder / ROWS).touch()
        except OSError as error:
            lock.release()
            raise RecordError(f"cannot write {folder}: {error.strerror}") from error
        self._open(folder, manifest, lock, spare)

    def _open(self, folder: Path, manifest: Manifest, lock: Lock | None, spare: Path | None) -> None:
        self.path, self.spare = folder, spare
        self._manifest, self._lock = manifest, lock
        self._rows, self._events = (Journal(folder / name, begin(manifest.run, name)) for name in (ROWS, EVENTS))
        self._closed = False
        self._start = time.monotonic()

    @classmethod
    def attach(cls, path: str | Path, spare: Path | None = None) -> RunWriter:
        """Return a writer that appends rows to the folder another process has begun, holds, and will finish.

        Raises:
            RecordError: the folder's manifest is missing or damaged.
        """
        writer = cls.__new__(cls)
        writer._open(Path(path), _manifest(Path(path)), None, spare)
        return writer

    @classmethod
    def again(
        cls, path: str | Path, config: Mapping[str, Any], command: list[str] | None, spare: Path | None = None
    ) -> RunWriter:
        """Return a writer that goes on with an earlier run: it is unfinished again.

        Args:
            path: its folder.
            config: as it is from now on.
            command: argument list by which it goes on; noted after those before.
            spare: a folder for what cannot be written to this one in the end.

        Raises:
            RecordError: it is damaged, or another process writes it, or it cannot be written.
        """
        folder = Path(path)
        try:
            lock = Lock(folder)
            try:
                manifest = _begin_again(folder, config, None if command is None else shlex.join(command))
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            raise RecordError(f"cannot write {folder}: {error.strerror}") from error
        writer = cls.__new__(cls)
        writer._open(folder, manifest, lock, spare)
        return writer

    def rewind(self, most: int) -> list[dict[str, Any]]:
        """Drop the rows after a round, and what a kill left of a last one; return those before.

        Raises:
            RecordError: rows are damaged, or cannot be written.
        """
        look = Look(self.path)
        found = look.lines(ROWS)
        if look.faults:
            raise RecordError(f"{self.path} is damaged: {'; '.join(look.faults)}")
        kept = sum(row["round"] <= most for row in found.rows)
        try:
            self._rows.rewind(*(found.ends[kept - 1] if kept else (0, None)))
        except OSError as error:
            raise RecordError(f"cannot write {self._rows.path}: {error.strerror}") from error
        return found.rows[:kept]

    def append(self, row: Mapping[str, Any]) -> None:
        """Append one row, so that a killed run keeps what it had; a disk that is full or gone never raises here."""
        self._rows.append(row)

    def event(
        self, event: str, text: str, round: int | None = None, worker: int | None = None, seconds: float | None = None
    ) -> None:
        """Append what has happened beside the rounds; several processes may do so.

        Args:
            event: "lost", "joined", "late", "refused", "restored", "checkpoint", ...
            text: one line for people.
            round: in which.
            worker: which one it is about.
            seconds: since the start of the run; by default since this writer was made.
        """
        spent = time.monotonic() - self._start if seconds is None else seconds
        self._events.append({"event": event, "round": round, "seconds": spent, "worker": worker, "text": text})

    def close(self) -> None:
        """Write what still waits and let go of the folder, without an end: the run reads as unfinished.

        Raises:
            RecordError: rows are missing in the file, as it still cannot be written; says where they are.
        """
        if self._closed:
            return
        self._closed = True
        missing = self._settle()
        self._release()
        if missing is not None:
            raise RecordError(missing)

    def finish(self, summary: Mapping[str, Any], status: str = "finished", files: Iterable[Path] = ()) -> None:
        """Write ``summary.json`` and the manifest, and close; the first call counts, later ones do nothing.

        Args:
            summary: how it ended.
            status: in a word.
            files: what else the run has made in its folder, such as pictures.

        Raises:
            RecordError: rows or the summary could not be written; says where they are.
        """
        if self._closed:
            return
        self._closed = True
        said = {"status": status, **to_json(summary)}
        missing = self._settle()
        if missing is not None:
            said |= {"status": "failed", "error": missing}
        try:
            whole = [ROWS] if missing is None else []  # else it may be made whole later: its own checksums vouch for it
            names = [*whole, EVENTS, MODEL, *(path.name for path in files)]
            made = {name: Vouched.of_file(self.path / name) for name in names if (self.path / name).exists()}
            commit(self.path, Manifest(self._manifest.run, {**self._manifest.files, **made}), {SUMMARY: _text(said)})
        except OSError as error:
            where = save_spare(self.spare, SUMMARY, _text(said))
            unwritten = f"{self.path} has no summary, which could not be written ({error.strerror}); {where}"
            missing = unwritten if missing is None else f"{missing}; {unwritten}"
        finally:
            self._release()
        if missing is not None:
            raise RecordError(missing)

    def _settle(self) -> str | None:
        """Write what waits; return what is missing in the end, in words."""
        missing = [said for journal in (self._rows, self._events) if (said := journal.close(self.spare)) is not None]
        return "; ".join(missing) or None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> RunWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._end(error)
        except RecordError as missing:
            if error is None:
                raise
            _log.warning("isthmus: %s", missing)

    def _end(self, error: BaseException | None) -> None:
        if self._lock is None:
            self.close()
        elif error is None:
            self.finish({})
        elif isinstance(error, KeyboardInterrupt):
            self.finish({"error": "interrupted"}, status="interrupted")
        else:
            self.finish({"error": f"{error}"}, status="failed")


def _begin_again(folder: Path, config: Mapping[str, Any], command: str | None) -> Manifest:
    """Make an earlier run unfinished again; one from before there were checksums gets them now."""
    look = Look(folder)
    run = look.run()
    if look.faults:
        raise RecordError(f"{folder} is damaged: {'; '.join(look.faults)}")
    said = look.run_header()
    more = {"format": FORMAT, "config": to_json(config), "resumed": [*said.get("resumed", []), command]}
    texts = {CONFIG: _text({**said, **more}), ENVIRONMENT: _text(run.environment)}
    number = secrets.token_hex(16) if look.manifest is None else look.manifest.run
    if look.manifest is None:
        os.replace(write_aside(folder / ROWS, _sealed(begin(number, ROWS), run.rows)), folder / ROWS)
    after = commit(folder, Manifest(number), texts)
    (folder / SUMMARY).unlink(missing_ok=True)
    return after


def _sealed(before: str, rows: Iterable[Mapping[str, Any]]) -> str:
    lines = []
    for row in rows:
        own = {name: value for name, value in row.items() if name != FIELD}
        line, before = sealed(before, json.dumps(own, allow_nan=False))
        lines.append(line)
    return "".join(lines)


def _manifest(folder: Path) -> Manifest:
    try:
        found = Manifest.read(folder)
    except RecordError as error:
        raise RecordError(f"{folder} is damaged: {error}") from None
    if found is None:
        raise RecordError(f"{folder} is not a run of isthmus that goes on: it has no manifest.json")
    return found


def _text(data: Mapping[str, Any]) -> str:
    return json.dumps(data, indent=2, allow_nan=False) + "\n"
