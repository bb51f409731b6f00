"""Runs to one self-contained HTML page (opens offline) and figures."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from isthmus.report import write_report
from isthmus.report.write import FIGURES, read_runs


@dataclass(frozen=True)
class Options:
    """Runs to one self-contained HTML page and figures.

    Attributes:
        runs: Run folders, or folders that hold some.
        out: Folder of the report; an earlier report there is replaced.
        format: Of the figures: png; pdf or svg for a paper: as wide as a column or page, letters as letters.
        json: Print the paths and the runs as JSON.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    out: Path = Path("runs/report")
    format: str = "png"
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False


def run(options: Options, command: list[str]) -> None:
    """Write the report and say where it is."""
    page = write_report(options.runs, options.out, options.format)
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
