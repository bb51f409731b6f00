"""Methods with compressed communication, IST and anchored IST on one problem: what each costs to reach a target."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from isthmus.errors import check_choice
from isthmus.lab.compare import Comparison, cells_of, figure_config, figure_rows, run_cells, sweep_rows
from isthmus.lab.simulate import HEAVY
from isthmus.records import RunWriter, fresh_folder, read_run
from isthmus.report import FORMATS, draw


@dataclass(frozen=True)
class Options(Comparison):
    """Flags of ``isthmus compare``."""

    over: str | None = None
    """Sweep this setting over --values: step_factors, workers, keep, local_steps, heterogeneity, period,
    condition_number, dim."""
    values: tuple[float, ...] = ()
    """Values of a sweep."""
    cells: Path | None = None
    """Folder that keeps every method's result by content: an interrupted sweep goes on where it stopped."""
    processes: int = os.cpu_count() or 1
    """Processes that share the methods."""
    out: Path | None = None
    """Folder to write the run and its picture to; by default a new one under runs/."""
    replace: bool = False
    """Replace an earlier run in --out."""
    format: str = "png"
    """Of the picture: png; pdf or svg for a paper: as wide as a column or page, letters as letters."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("format", self.format, FORMATS)


def run(options: Options, command: list[str]) -> None:
    """Compare, write the run, print."""
    settings = Comparison(**{field.name: getattr(options, field.name) for field in fields(Comparison)})
    cells = cells_of(settings, options.over, options.values)
    results = run_cells(cells, options.cells, options.processes)
    values = [value for value in options.values for _ in settings.methods] if options.over else []
    out = options.out or fresh_folder(f"compare-{Path(settings.problem).stem.replace(':', '-')}")
    config = figure_config(settings, options.over)
    if options.over is None:  # a problem from a file or a factory has its own
        config |= {name: results[0][name] for name in ("workers", "dim")}
    with RunWriter(out, "figure", config, command, options.replace) as writer:
        for row in sweep_rows(results, values) if options.over else figure_rows(results):
            writer.append(row)
        drawn = draw(read_run(out), out, options.format)
        writer.finish({"results": [_without_curves(one) for one in results]}, files=drawn)
    if options.json:
        print(json.dumps({"settings": config, "results": results}))
        return
    _show(settings, results, options, values)
    print(f"run and picture written to {out}; a page of it: isthmus report {out}")


def _without_curves(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key not in ("curve", "bounds")}


def _show(settings: Comparison, results: list[dict[str, Any]], options: Options, values: list[float]) -> None:
    console = Console()
    said = f"to reach a relative gap of {settings.target:g}: bits, numbers held and operations of one worker"
    table = Table(title=said, title_justify="left")
    heads = ["method", "rounds", "bits up", "bits down", "held", "work", "ends at"]
    for head in [*([options.over] if options.over else []), *heads]:
        table.add_column(head, justify="left" if head == "method" else "right", overflow="fold")
    for place, one in enumerate(results):
        table.add_row(*([f"{values[place]:g}"] if options.over else []), *_cost_row(one))
    console.print(table)
    if options.over is None:
        console.print(_theory_table(results))
    without = [one["title"] for one in results if settings.step != one["step_from"]]
    if without:
        console.print(f"at the theory's step, having no exact best one: {', '.join(dict.fromkeys(without))}")
    for one in results:
        if one["above_limit"]:
            console.print(f"{one['title']}: step {one['stepsize']:.3g} is above the theory's limit {one['limit']:.3g}")
    for one in results:
        if one["tail_index"] is not None and one["tail_index"] <= HEAVY:
            exact = " The dashed line is exact." if any(b["kind"] == "tight" for b in one["bounds"]) else ""
            console.print(
                f"{one['title']}: tails of index {one['tail_index']:.2g}, too heavy for a mean over seeds.{exact}"
            )
    console.print(f"{settings.value_bits} bits a number; in totals a message to all workers is {settings.broadcast}")


def _cost_row(one: dict[str, Any]) -> list[str]:
    spent = [_number(one[name]) for name in ("up", "down", "memory", "work")]
    ends = f"{one['level']:.2g}" if one["status"] == "reached" else f"{one['status']} at {one['level']:.2g}"
    if one["end"] is not None:
        ends += f" (exact end {one['end']:.2g})"
    elif one["stall_level"] is not None:
        ends += f" (exact mean {one['stall_level']:.2g})"
    rounds = "-" if one["rounds"] is None else str(one["rounds"])
    return [one["name"], rounds, *spent, ends]


def _theory_table(results: list[dict[str, Any]]) -> Table:
    table = Table(title="theory beside measurement", title_justify="left")
    for head in ("method", "step", "bound", "kind", "measured/bound", "verdict"):
        table.add_column(head, overflow="fold")
    for one in results:
        for verdict in one["verdicts"]:
            said = {True: "holds", False: "BROKEN", None: f"does not apply: {verdict['why']}"}[verdict["holds"]]
            ratio = _number(verdict["ratio"])
            table.add_row(one["name"], f"{one['stepsize']:.3g}", verdict["bound"], verdict["kind"], ratio, said)
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if 10 <= abs(value) < 1e5 else f"{value:.3g}"
