"""Compare what runs have written, rows, summary, network, pictures and checkpoints, with its checksums."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from isthmus.cli import status
from isthmus.records import Finding, check_run, find_runs
from isthmus.trainer.checkpoint.manifest import checkpoints, fault
from isthmus.trainer.config.again import FOLDER


@dataclass(frozen=True)
class Options:
    """The flags of `isthmus check`.

    Attributes:
        runs: Run folders, or folders that hold some.
        json: Print one JSON list instead of lines.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def run(options: Options, command: list[str]) -> None:
    """Say of every run whether it is sound, and if not what does not match; exit code 1 where one is not."""
    found = [check(path) for path in find_runs(options.runs)]
    if options.json:
        print(json.dumps([_said(one) for one in found], indent=2))
    else:
        print("\n".join(line for one in found for line in _lines(one)))
    if any(one.faults for one in found):
        raise SystemExit(status.DAMAGED)


def check(path: Path) -> Finding:
    """Return what is wrong with a run, with its checkpoints."""
    found, place = check_run(path), path / FOLDER
    if place.is_symlink():
        return replace(found, faults=(*found.faults, f"{FOLDER} is a symbolic link: what it leads to is not the run's"))
    saved = checkpoints(place)
    wrong = [said for each in saved if (said := fault(each)) is not None]
    counted = [f"{len(saved)} checkpoints"] if saved else []
    return replace(found, faults=(*found.faults, *wrong), notes=(*found.notes, *counted))


def _lines(found: Finding) -> list[str]:
    notes = "".join(f"; {note}" for note in found.notes)
    return [f"{found.path}: {fault}" for fault in found.faults] or [f"{found.path}: sound ({found.status}{notes})"]


def _said(found: Finding) -> dict[str, Any]:
    return {
        "run": str(found.path), "sound": not found.faults, "status": found.status, "faults": found.faults,
        "notes": found.notes,
    }  # fmt: skip
