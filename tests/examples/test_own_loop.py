"""Scripts as people have them, and the same around isthmus: how few lines differ, that they run, and what they reach.

Each example and its plain twin are run for real: two workers in a process group of their own.
"""

import difflib
import importlib.util
import os
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cases.groups import run_group

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "own-loop.md"
TWINS = ["own_loop", "hugging_face", "fabric"]
REQUIRED = {"hugging_face": "transformers", "fabric": "lightning_fabric"}
MOST_LINES = 5
EPOCHS = {"own_loop": 2, "hugging_face": 4, "fabric": 3}
CHANCE = {"own_loop": 0.1, "hugging_face": 0.5, "fabric": 0.63}


def load_example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_example(name: str, epochs: int, folder: str) -> float:
    """Be one worker: run the script in a folder where it may write its file."""
    os.chdir(folder)
    score: float = load_example(name).main(epochs=epochs)
    return score


def diff_of(name: str) -> str:
    """The difference between the plain script and the one around isthmus, as the page shows it."""
    plain, ours = ((ROOT / "examples" / place).read_text().splitlines() for place in (f"plain/{name}.py", f"{name}.py"))
    lines = [line for line in difflib.unified_diff(plain, ours, n=0, lineterm="") if not line.startswith("@@")]
    return "\n".join(line for line in lines[2:] if line[1:].strip())


def added_lines(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line.startswith("+") and not line[1:].lstrip().startswith("#")]


@pytest.mark.parametrize("name", TWINS)
def test_at_most_five_lines_change(name: str) -> None:
    diff = diff_of(name)
    removed = [line for line in diff.splitlines() if line.startswith("-")]
    assert 1 <= len(added_lines(diff)) <= MOST_LINES
    assert len(removed) <= MOST_LINES
    assert "+import isthmus" in diff


@pytest.mark.parametrize("name", TWINS)
def test_the_page_shows_exactly_this_diff(name: str) -> None:
    shown = re.findall(r"```diff\n(.*?)\n```", PAGE.read_text(), flags=re.DOTALL)
    assert diff_of(name) in shown, f"docs/own-loop.md must show, for {name}:\n{diff_of(name)}"
    assert len(shown) == len(TWINS)


@pytest.mark.processes
@pytest.mark.parametrize("name", TWINS)
def test_the_exported_network_loads_and_has_learnt(name: str, tmp_path: Path) -> None:
    """``main`` loads the exported file into the script's own class and scores it on data nobody trained on."""
    if name in REQUIRED:
        pytest.importorskip(REQUIRED[name])
    scores: list[Any] = run_group(run_example, 2, name, EPOCHS[name], str(tmp_path))
    assert scores[0] == scores[1]
    assert scores[0] > CHANCE[name] + 0.15
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
