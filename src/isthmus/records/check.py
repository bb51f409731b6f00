"""What is in a run's folder, held against what was written."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from isthmus.errors import RecordError
from isthmus.records.files import open_file
from isthmus.records.lock import is_locked
from isthmus.records.manifest import MANIFEST, Manifest
from isthmus.records.reader import CONFIG, ENVIRONMENT, EVENTS, MODEL, ROWS, SUMMARY, Look

_HEADER_MOST = 100_000_000  # bytes, as the library safetensors has it


@dataclass(frozen=True)
class Finding:
    """What a check of one run's folder found.

    Attributes:
        path: the folder.
        status: how the run ended, "unfinished" if it did not; None if it could not be read.
        faults: what does not match, each in words that name the file; none if all is as written.
        notes: what else is worth knowing.
    """

    path: Path
    status: str | None
    faults: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_run(path: str | Path) -> Finding:
    """Compare all that a run has written, but checkpoints, with its checksums; nothing is raised for what is wrong."""
    folder = Path(path)
    look, status = Look(folder), None
    try:
        status = look.run().status
    except RecordError as error:
        if not any(each in str(error) for each in look.faults):
            look.faults.append(str(error))
    faults = [*look.faults, *made_faults(folder)]
    ended = look.manifest is None or look.ended
    strays = [SUMMARY, *([EVENTS] if look.ended else [])]
    vouched = () if look.manifest is None else look.manifest.files
    if look.manifest is not None:
        faults += [f"{name} is not in {MANIFEST}: the run did not write it" for name in strays
                   if name not in vouched and os.path.lexists(folder / name)]  # fmt: skip
    notes = []
    if not look.has_checksums:
        notes.append("no checksums, as it was written before there were any: only whether it can be read was looked at")
    if not ended:
        writes = "it is being written" if is_locked(folder) else "no process writes it"
        notes.append(f"unfinished ({writes}): that its last rows are all there cannot be told")
    if look.manifest is not None and all(any(name in fault for fault in faults) for name in look.manifest.files):
        faults.append(f"{MANIFEST} vouches for none of the files that are there: it is another run's")
    return Finding(folder, status, tuple(faults), tuple(notes))


def made_faults(folder: Path) -> list[str]:
    """Return what is wrong with what else a run has made: its network and its pictures."""
    try:
        manifest = Manifest.read(folder)
    except RecordError:  # said by whoever reads the run
        return []
    files = {} if manifest is None else manifest.files
    made = [name for name in files if name not in (CONFIG, ENVIRONMENT, SUMMARY, ROWS, EVENTS)]
    faults = [] if manifest is None else [fault for name in made if (fault := manifest.fault(folder, name))]
    if not faults and os.path.lexists(folder / MODEL):
        wrong = _header_fault(folder / MODEL)
        faults += [] if wrong is None else [f"{MODEL} is no safetensors file: {wrong}"]
    return faults


def _header_fault(path: Path) -> str | None:
    """Return what is wrong with the header of a safetensors file: its tensors must fill the file one after another."""
    try:
        with open_file(path) as place:
            size, begins = os.fstat(place).st_size, os.pread(place, 8, 0)
            length = int.from_bytes(begins, "little")
            if length > min(size - 8, _HEADER_MOST):
                return f"its header would have {length:,} bytes"
            said = json.loads(os.pread(place, length, 8))
        said.pop("__metadata__", None)
        spans = sorted(tuple(entry["data_offsets"]) for entry in said.values())
        at = 0
        for begin, end in spans:
            if begin != at or end < begin:
                return "its tensors overlap, or leave gaps"
            at = end
    except OSError as error:
        return str(error.strerror)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "its header cannot be read"
    return None if 8 + length + at == size else f"its tensors have {at:,} bytes of {size - 8 - length:,}"
