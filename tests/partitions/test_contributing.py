"""The recipe for a law in CONTRIBUTING.md, followed to the letter."""

import importlib.util
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import isthmus
from isthmus.partitions import Axis, Law

ROOT = Path(__file__).parents[2]
FORGOTTEN = "test_every_law_of_the_package_is_registered_with_all_that_people_see"


def recipe() -> str:
    """The code of the section."""
    section = (ROOT / "CONTRIBUTING.md").read_text().partition("## How to add a law")[2].partition("\n## ")[0]
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return textwrap.dedent(found[1])


def test_the_class_deals(tmp_path: Path) -> None:
    (tmp_path / "window.py").write_text(recipe())
    spec = importlib.util.spec_from_file_location("window", tmp_path / "window.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    law = module.Window()
    assert isinstance(law, Law)
    assert [units.tolist() for units in law.deal(Axis("a", 5), 2, 0, round=1)] == [[1, 2, 3], [0, 3, 4]]


@pytest.mark.parametrize("registered", [True, False])
def test_a_law_in_the_package_needs_its_rows(tmp_path: Path, registered: bool) -> None:
    source = Path(isthmus.__file__).parent
    shutil.copytree(source, tmp_path / "src" / "isthmus")
    shutil.copytree(ROOT / "tests", tmp_path / "tests")
    package = tmp_path / "src" / "isthmus" / "partitions"
    (package / "window.py").write_text(recipe())
    if registered:
        append(package / "registry.py", "from isthmus.partitions.weighted import Weighted\n", WINDOW)
        append(package / "registry.py", "Weighted, Overlapping", ", Window")
        append(package / "__init__.py", "from isthmus.partitions.weighted import Weighted\n", WINDOW)
        append(package / "__init__.py", '    "Weighted",\n', '    "Window",\n')
        cases = tmp_path / "tests" / "cases" / "laws.py"
        append(cases, "from isthmus.partitions import (\n", "    Window as Registered,\n")
        row = '    "window": lambda workers: Registered(),\n'
        append(cases, "LAW_CASES: dict[str, Callable[[int], Law]] = {\n", row)
    command = [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "-o"]
    command += [f"pythonpath={tmp_path}/tests {tmp_path}/src", f"{tmp_path}/tests/partitions/test_laws.py", "-k"]
    command.append("window or registered" if registered else FORGOTTEN)
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode == 0) == registered, done.stdout
    assert registered or f"FAILED tests/partitions/test_laws.py::{FORGOTTEN}" in done.stdout


WINDOW = "from isthmus.partitions.window import Window\n"


def append(path: Path, after: str, what: str) -> None:
    """Put text after a place in a file."""
    text = path.read_text()
    assert text.count(after) == 1
    path.write_text(text.replace(after, after + what))
