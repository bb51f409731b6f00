"""Runs to one self-contained HTML page (opens offline) and figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from isthmus.line import Line
from isthmus.report import write_report
from isthmus.report.write import FIGURES, read_runs


@dataclass(frozen=True)
class Options:
    """Runs to one self-contained HTML page and figures.

    Attributes:
        runs: Run folders, or folders that hold some.
        out: Folder of the report; an earlier report there is replaced.
        format: Of the figures: png; pdf or svg for a paper: as wide as a column or page, letters as letters.
        rate: Of the line that trainings' seconds are drawn over first, as 100mbit: what a host receives and sends; the
            page has a box for others. Without it the line that the runs were made over, or 100 Mbit/s and 10 ms.
        up: What a host sends, where that is another rate.
        latency: Of that line, one way, as 10ms.
        target: Accuracy as a share (or loss, where there is none) to which the page gives times: 0.88. Without it one
            that every finished strategy reaches.
        json: Print the paths and the runs as JSON.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    out: Path = Path("runs/report")
    format: str = "png"
    rate: str | None = None
    up: str | None = None
    latency: str | None = None
    target: float | None = None
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def run(options: Options, command: list[str]) -> None:
    """Write the report and say where it is."""
    asked = any(part is not None for part in (options.rate, options.up, options.latency))
    line = Line.of(options.rate, options.latency, options.up) if asked else None
    page = write_report(options.runs, options.out, options.format, line, options.target)
    figures = sorted((page.parent / FIGURES).glob(f"*.{options.format}"))
    runs, left_out = read_runs(options.runs)
    if options.json:
        listed = [{"path": str(one.path), "kind": one.kind, "status": one.status} for one in runs]
        drawn = {"page": str(page), "figures": [str(figure) for figure in figures]}
        print(json.dumps({**drawn, "runs": listed, "left_out": left_out}))
        return
    table = Table("run", "kind", "rows", "status")
    for one in runs:
        table.add_row(str(one.path), one.kind, str(len(one.rows)), one.status)
    console = Console()
    console.print(table)
    console.print(f"page: {page}\nfigures: {len(figures)} in {page.parent / FIGURES}", highlight=False, markup=False)
