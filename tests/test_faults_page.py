"""The tables of docs/faults.md are what was measured: the rows behind them are kept, and they are all there."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from chaos import faults

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "measured" / "faults"


def kept(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (KEPT / f"{name}.jsonl").read_text().splitlines()]


def test_the_tables_are_those_of_the_rows() -> None:
    command = [sys.executable, "tools/chaos.py", "show", "--out", str(KEPT)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    page = (ROOT / "docs" / "faults.md").read_text()
    begin, end = "<!-- python tools/chaos.py show -->\n", "<!-- end of what it shows -->"
    assert page.split(begin)[1].split(end)[0] == shown


def test_every_fault_was_made_as_often_as_is_asked_for() -> None:
    made = Counter(row["name"] for row in kept("table"))
    for fault in faults():
        assert made[fault.name] >= (20 if fault.kill else 5), fault.name


def test_no_row_names_a_folder() -> None:
    for path in KEPT.glob("*.jsonl"):
        assert "/" not in path.read_text()
