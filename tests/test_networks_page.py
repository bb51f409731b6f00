"""The counts and the table of docs/networks.md are what its rows say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROWS = ROOT / "docs" / "measured" / "networks.jsonl"


def test_the_page_shows_the_rows() -> None:
    command = [sys.executable, "benchmarks/public_networks.py", "show", "--out", str(ROWS)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    counts, table = shown.split("\n\n", 1)
    page = (ROOT / "docs" / "networks.md").read_text()
    assert f"\n{counts}\n" in page
    assert table.strip() == page[page.index("| network | of |") :].strip()


def test_what_the_words_say_is_what_was_counted() -> None:
    rows = [json.loads(line) for line in ROWS.read_text().splitlines()]
    verdicts = Counter(row["verdict"] for row in rows)
    page = (ROOT / "docs" / "networks.md").read_text()
    assert f"- {verdicts['useless']} ({100 * verdicts['useless'] / len(rows):.1f} %) leave" in page
    assert not [row["name"] for row in rows if row["verdict"] in ("wrong", "crash", "slow", "not compared", "not run")]
    assert max(row["seconds"] for row in rows if "share" in row) <= 15
    refused = {row["name"] for row in rows if row["verdict"] == "refused"}
    assert refused == {"pyg RGCNConv", "hf NystromformerForMaskedLM"}


def test_no_row_names_a_folder_of_the_machine() -> None:
    assert not [word for word in ("/tmp/", "/work/", "/home/", "/root/") if word in ROWS.read_text()]
