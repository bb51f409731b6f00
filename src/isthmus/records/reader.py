"""A run read back from its folder; what does not match is found before it is used."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from isthmus import frames
from isthmus.errors import RecordError
from isthmus.records.chain import Lines, begin, read_lines
from isthmus.records.files import JSON_MOST, LINES_MOST, read_file
from isthmus.records.manifest import MANIFEST, Manifest, Vouched

if TYPE_CHECKING:
    from pandas import DataFrame

CONFIG, ENVIRONMENT, SUMMARY = "config.json", "environment.json", "summary.json"
ROWS, EVENTS, MODEL = "rows.jsonl", "events.jsonl", "model.safetensors"
FORMAT = 2
_WITHOUT_CHECKSUMS = 1  # the format of runs that carry none
_MOST_FAULTS = 3  # lines of one file that are named


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
        events: what happened to workers and checkpoints, one dict each; see :meth:`RunWriter.event`.
    """

    path: Path
    kind: str
    command: str | None
    config: dict[str, Any]
    environment: dict[str, Any]
    rows: list[dict[str, Any]] = field(repr=False)
    summary: dict[str, Any] = field(repr=False)
    script: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list, repr=False)

    @property
    def status(self) -> str:
        """How it ended: "unfinished" when there is no summary."""
        return str(self.summary.get("status", "unfinished"))

    def to_frame(self) -> DataFrame:
        """Return the rows as a pandas table."""
        return frames.of_rows(self.rows)


def read_run(path: str | Path, rows: bool = True) -> Run:
    """Read a run's folder; a last line cut short by a kill is left out.

    Args:
        path: the folder.
        rows: whether to read rows and events too.

    Raises:
        RecordError: not a run's folder, or a file in it is not what was written (file and line named).
    """
    look = Look(Path(path))
    run = look.run(rows)
    if look.faults:
        raise RecordError(f"{look.folder} is damaged: {'; '.join(look.faults)}")
    return run


def is_run(folder: Path) -> bool:
    """Whether ``folder`` holds a run of this format, sound or not."""
    try:
        Look(folder).run_header()
    except RecordError:
        return False
    return True


class Look:
    """What is in a run's folder, and what is wrong with it.

    Attributes:
        folder: the run's.
        faults: of all that was read so far, each in words that name the file.
        manifest: what it vouches for; None of a run from before there were any, or if it is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: list[str] = []
        self.manifest: Manifest | None = None
        try:
            self.manifest = Manifest.read(folder)
        except RecordError as error:
            self.faults.append(str(error))

    @cached_property
    def said(self) -> dict[str, Any]:
        """What ``config.json`` says."""
        return self._object(CONFIG)

    @property
    def has_checksums(self) -> bool:
        """Whether the run is of a version that writes checksums."""
        return self.manifest is not None or self.said.get("format") == FORMAT

    @property
    def ended(self) -> bool:
        """Whether the run has said how it ended."""
        if self.has_checksums:
            return self.manifest is not None and SUMMARY in self.manifest.files
        return (self.folder / SUMMARY).exists()

    def run_header(self) -> Mapping[str, Any]:
        """Return ``config.json``.

        Raises:
            RecordError: it is not that of a run, or of a newer isthmus.
        """
        said = self.said
        fault = next((each for each in self.faults if CONFIG in each), None)
        if fault is not None:
            missing = fault.startswith("cannot read") and self.manifest is None
            what = f"{self.folder} is not a run of isthmus" if missing else f"{self.folder} is damaged"
            raise RecordError(f"{what}: {fault}")
        text = (str, NoneType)
        fields: dict[str, type | tuple[type, ...]] = {"kind": str, "command": text, "script": text, "config": dict}
        known = said.get("format") in (_WITHOUT_CHECKSUMS, FORMAT)
        if not known or not all(isinstance(said.get(name), kind) for name, kind in fields.items()):
            raise RecordError(f"{self.folder / CONFIG} was not written by isthmus, or by a newer one (format {FORMAT})")
        return said

    def run(self, rows: bool = True) -> Run:
        """Return the run, as far as it can be read, with rows and events or without.

        Raises:
            RecordError: it is none.
        """
        said = self.said
        if self.manifest is None and self.has_checksums and not self.faults:
            self.faults.append(f"{MANIFEST} is missing")
        environment = self._object(ENVIRONMENT)
        found = self.lines(ROWS).rows if rows else []
        events = self.lines(EVENTS).rows if rows and self._has_events() else []
        summary = self._object(SUMMARY) if self.ended else {}
        self.run_header()  # last, so that all that is wrong has been found
        return Run(
            path=self.folder,
            kind=said["kind"],
            command=said["command"],
            config=said["config"],
            environment=environment,
            rows=found,
            summary=summary,
            script=said.get("script"),
            events=events,
        )

    def lines(self, name: str) -> Lines:
        """Return what a file of lines holds."""
        try:
            data = self._read(name, LINES_MOST)
        except OSError as error:
            self.faults.append(f"cannot read {name} ({error.strerror})")
            return Lines()
        start = None if self.manifest is None else begin(self.manifest.run, name)
        found = read_lines(data, start, self.has_checksums)
        self.faults += [f"{name}, line {number}: {wrong}" for number, wrong in found.faults[:_MOST_FAULTS]]
        if len(found.faults) > _MOST_FAULTS:
            self.faults.append(f"{name}: {len(found.faults) - _MOST_FAULTS} more lines are wrong")
        if self.ended and not found.faults and self.manifest is not None and name in self.manifest.files:
            wrong = self.manifest.files[name].differs(Vouched.of(data))
            if wrong is not None:
                cut = "; its last line is cut short" if found.cut else ""
                self.faults.append(f"{name} was changed: {wrong}{cut}")
        return found

    def _has_events(self) -> bool:
        vouched = self.manifest is not None and EVENTS in self.manifest.files
        return vouched or (not self.ended and os.path.lexists(self.folder / EVENTS))

    def _object(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file, {} where there is none."""
        try:
            return self._parsed(name)
        except OSError as error:
            self.faults.append(f"cannot read {name} ({error.strerror})")
        except (ValueError, RecursionError) as error:
            self.faults.append(f"{name} is not JSON: {error}")
        except RecordError as error:
            self.faults.append(str(error))
        return {}

    def _parsed(self, name: str) -> dict[str, Any]:
        if self.manifest is not None and name in self.manifest.files:
            data = self.manifest.read_vouched(self.folder, name, JSON_MOST)
        else:
            data = self._read(name, JSON_MOST)
        found = json.loads(data.decode())
        if not isinstance(found, dict):
            raise RecordError(f"{name} must hold a JSON object")
        return found

    def _read(self, name: str, most: int) -> bytes:
        return read_file(self.folder / name, most)
