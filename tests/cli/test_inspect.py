"""``isthmus inspect`` as a person runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NETS = """
import torch
def small():
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)), (torch.zeros(3, 8),)
def number():
    return 3
def fails(width):
    return width
def bare():
    return small()[0], torch.zeros(3, 8)
"""


def inspect(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "isthmus", "inspect", *flags]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "COLUMNS": "120"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mynets.py").write_text(NETS)
    return tmp_path


def test_tables_and_json_agree(folder: Path) -> None:
    shown = inspect(folder, "mynets:small")
    assert shown.returncode == 0, shown.stderr
    assert "- input 0: " in shown.stdout
    data = json.loads(inspect(folder, "mynets:small", "--json", "--workers", "2", "32").stdout)
    assert data["axes"][0]["size"] == 16
    assert data["workers"]["2"]["parameters"] == 8 * 8 + 8 + 8 * 4 + 4
    assert "too few for 32 workers" in data["workers"]["32"]["problem"]
    assert "108" in shown.stdout


@pytest.mark.parametrize(
    "target", ["", "mynets", "nothing:small", *(f"mynets:{name}" for name in ("nothing", "number", "fails", "bare"))]
)
def test_bad_targets_are_one_line(folder: Path, target: str) -> None:
    done = inspect(folder, target)
    assert done.returncode == 2
    assert done.stderr.startswith("isthmus: `target`")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [(["--workers", "2", "0"], "`workers` must be at least 1, got 0"), (["--core", "2"], "`core` must be at most 1.0")],
)
def test_bad_flags_are_one_line(folder: Path, flags: list[str], message: str) -> None:
    done = inspect(folder, "mynets:small", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
