"""Make the pages of this folder from the scripts examples/lab_*.py: their words, their code, what it prints and draws.

    python docs/gallery/build.py

A script is cut at its lines "# %%", as notebooks in editors are. What is commented at the head of a cell is its words;
the rest runs, and what it prints and shows stands below it. Random numbers have seeds, so the pages change only where
the code does.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import matplotlib

matplotlib.use("agg")

from matplotlib import pyplot

HERE = Path(__file__).resolve().parent
SCRIPTS = sorted((HERE.parents[1] / "examples").glob("lab_*.py"))


@dataclass(frozen=True)
class Cell:
    """Words, and code below them."""

    words: str
    code: str


def cells(script: str) -> tuple[str, list[Cell]]:
    """Return the head of a script (its docstring) and its cells."""
    head, *parts = re.split(r"^# %%\n", script, flags=re.MULTILINE)
    found = []
    for part in parts:
        lines = part.splitlines()
        words = 0
        while words < len(lines) and lines[words].startswith("#"):
            words += 1
        said = "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:words])
        found.append(Cell(said, "\n".join(lines[words:]).strip("\n")))
    return head.strip().strip('"').strip(), found


def page(script: Path, out: Path) -> str:
    """Run a script, write what it shows into ``out`` and return its page."""
    head, found = cells(script.read_text(encoding="utf-8"))
    title, _, rest = head.partition("\n")
    parts = [f"# {title.removesuffix('.')}", rest.strip()]
    parts.append(f"Made from [{script.name}](../../examples/{script.name}) by `python docs/gallery/build.py`.")
    for cell, (printed, pictures) in zip(found, run(script, found, out), strict=True):
        parts += [cell.words, f"```python\n{cell.code}\n```"]
        parts += [f"```\n{printed.rstrip()}\n```"] if printed.strip() else []
        parts += [f"![What the code above draws]({picture.name})" for picture in pictures]
    assert all(len(cell.words) > 0 for cell in found), f"{script}: a cell without words"
    return "\n\n".join(part for part in parts if part) + "\n"


def run(script: Path, found: list[Cell], out: Path) -> Iterator[tuple[str, list[Path]]]:
    """Yield what each cell prints and the pictures it shows."""
    module = ModuleType(script.stem)
    sys.modules[script.stem] = module  # dataclasses look for their module there
    drawn: list[Path] = []

    def show() -> None:
        for number in pyplot.get_fignums():
            drawn.append(out / f"{page_name(script)}-{len(drawn) + 1}.png")
            pyplot.figure(number).savefig(
                drawn[-1], dpi=110, metadata={"Software": None}, pil_kwargs={"optimize": True}
            )
        pyplot.close("all")

    keep, pyplot.show = pyplot.show, show
    try:
        for cell in found:
            printed, before = io.StringIO(), len(drawn)
            with contextlib.redirect_stdout(printed):
                exec(compile(cell.code, str(script), "exec"), vars(module))
            yield printed.getvalue(), drawn[before:]
    finally:
        pyplot.show = keep
        sys.modules.pop(script.stem, None)


def page_name(script: Path) -> str:
    """lab_where_ist_stops.py -> where-ist-stops."""
    return script.stem.removeprefix("lab_").replace("_", "-")


if __name__ == "__main__":
    for each in SCRIPTS:
        target = HERE / f"{page_name(each)}.md"
        target.write_text(page(each, HERE), encoding="utf-8")
        print(target.relative_to(HERE.parents[1]))
