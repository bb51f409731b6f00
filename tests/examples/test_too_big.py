"""A network that fits nowhere, in small: its bare weights are refused, IST trains and exports it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.processes
def test_what_no_worker_can_hold_is_trained_and_exported() -> None:
    # A process of its own: workers that are forked from this one would find the memory that tests before have freed,
    # and a limit on what is asked for does not count it again.
    flags = ["--width", "6144", "--limit", "130", "--workers", "4", "--rounds", "1", "--strategies", "ist"]
    done = subprocess.run(
        [sys.executable, "-m", "examples.too_big", *flags],
        cwd=ROOT, env={**os.environ, "COLUMNS": "200"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in done.stdout.splitlines() if "│" in line]
    (bare, weights, limit, refused), (ist, planned, _, trained) = rows
    assert (bare, ist) == ("bare weights", "ist")
    assert int(weights) > int(limit) > int(planned)
    assert refused == "no: 151 MB were refused"
    assert trained.startswith("trained to an accuracy of ")
    assert trained.endswith("and exported (153 MB, readable)")
