"""Run folders changed so that they still vouch for themselves, as if they had been written so."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.records.chain import FIELD, begin, sealed
from isthmus.records.manifest import Manifest, commit


def manifest_of(folder: Path) -> Manifest:
    found = Manifest.read(folder)
    assert found is not None
    return found


def rewrite(folder: Path, name: str, **changes: Any) -> Path:
    """Change entries of a JSON file of a run; a change to None stays as null."""
    said = json.loads((folder / name).read_text())
    commit(folder, manifest_of(folder), {name: json.dumps(said | changes)})
    return folder


def rewrite_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Give a run other rows."""
    manifest, lines = manifest_of(folder), []
    last = begin(manifest.run, "rows.jsonl")
    for row in rows:
        line, last = sealed(last, json.dumps({key: value for key, value in row.items() if key != FIELD}))
        lines.append(line)
    commit(folder, manifest, {"rows.jsonl": "".join(lines)})
    return folder


def without_end(folder: Path) -> Path:
    """Leave a run as a kill would have: with no summary and nothing that is made at the end."""
    manifest = manifest_of(folder)
    kept = {name: each for name, each in manifest.files.items() if name in ("config.json", "environment.json")}
    for name in manifest.files:
        if name not in (*kept, "rows.jsonl", "events.jsonl"):
            (folder / name).unlink()
    commit(folder, Manifest(manifest.run, kept), {})
    return folder
