"""The recipe for a strategy in CONTRIBUTING.md, followed to the letter in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import isthmus

ROOT = Path(__file__).parents[2]
FORGOTTEN = "test_every_strategy_is_registered_and_can_run"
ROWS = ("STRATEGIES", "export", "PARTS")
THREE_RUNS = """
from isthmus.cli import main
for strategy, executor in (("shrinking", "serial"), ("shrinking", "processes"), ("local-sgd", "serial")):
    flags = ["--strategy", strategy, "--executor", executor, "--workers", "2", "--rounds", "2", "--widths", "32"]
    main(["train", *flags, "--out", f"{strategy}-{executor}", "--json"])
"""


def recipe() -> list[str]:
    """The code of the section: what a user chooses, and what a worker does."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## How to add a training strategy")[2]
    found = re.findall(r"```python\n(.*?)```", section.partition("\n## ")[0], re.DOTALL)
    return [textwrap.dedent(code) for code in found]


def append(path: Path, after: str, what: str) -> None:
    """Put text after a place in a file."""
    text = path.read_text()
    assert text.count(after) == 1
    path.write_text(text.replace(after, after + what))


def copy_with(folder: Path, rows: tuple[str, ...]) -> None:
    """Copy package and tests, and add the strategy with some of its rows."""
    shutil.copytree(Path(isthmus.__file__).parent, folder / "src" / "isthmus")
    shutil.copytree(ROOT / "tests", folder / "tests")
    package = folder / "src" / "isthmus"
    chosen, done = recipe()
    (package / "strategies" / "shrinking.py").write_text(chosen)
    (package / "trainer" / "strategies" / "shrinking.py").write_text(done)
    line = "from isthmus.strategies.narrow import Narrow\n"
    own = "from isthmus.strategies.shrinking import Shrinking\n"
    if "STRATEGIES" in rows:
        append(package / "strategies" / "choose.py", line, own)
        append(package / "strategies" / "choose.py", "LocalSGD, PostLocalSGD", ", Shrinking")
    if "export" in rows:
        append(package / "strategies" / "__init__.py", line, own)
        append(package / "strategies" / "__init__.py", '"Narrow", ', '"Shrinking", ')
    if "PARTS" in rows:
        table = package / "trainer" / "strategies" / "__init__.py"
        part = "from isthmus.trainer.strategies.shrinking import ShrinkingPart\n"
        append(table, "from isthmus.trainer.strategies.narrow import NarrowPart\n", own + part)
        append(table, "    DataParallel: DataParallelPart,\n", "    Shrinking: ShrinkingPart,\n")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python on the copy."""
    places = f"{folder / 'tests'}{os.pathsep}{folder / 'src'}"
    surroundings = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, cwd=folder, env=surroundings, check=False
    )


@pytest.mark.parametrize("missing", ["STRATEGIES", "PARTS", None])
def test_a_strategy_in_the_package_needs_its_rows(tmp_path: Path, missing: str | None) -> None:
    copy_with(tmp_path, tuple(row for row in ROWS if row != missing))
    done = run(tmp_path, "-c", f"import test_registries; test_registries.{FORGOTTEN}()")
    assert (done.returncode == 0) == (missing is None), done.stderr
    assert missing is None or f"in {FORGOTTEN}\n" in done.stderr
    assert missing is None or "AssertionError: " in done.stderr


@pytest.mark.processes
def test_it_trains_under_its_name_and_gives_the_same_bits_over_processes(tmp_path: Path) -> None:
    copy_with(tmp_path, ROWS)
    done = run(tmp_path, "-c", THREE_RUNS)
    assert done.returncode == 0, done.stderr
    in_turn, over_processes, plain = re.findall(r'"weights_sha256": "(\w+)"', done.stdout)
    assert in_turn == over_processes != plain
