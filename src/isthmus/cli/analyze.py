"""Exact theory of IST on a quadratic, beside simulation: constants, verdicts, the gap round by round."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from isthmus.errors import InvalidInput, check_choice
from isthmus.lab.analyze import Analysis, analyze
from isthmus.lab.figures import FIGURES
from isthmus.lab.own import is_own
from isthmus.lab.settings import Settings
from isthmus.lab.settings import read_toml as read_toml  # for --config
from isthmus.records import RunWriter, fresh_folder, read_run, to_json
from isthmus.report import FORMATS, draw

_SHOWN_ROUNDS = 11


@dataclass(frozen=True)
class Options(Settings):
    """Flags of ``isthmus analyze``."""

    out: Path | None = None
    """Folder to write the run to; by default a new one under runs/."""
    replace: bool = False
    """Replace an earlier run in --out."""
    config: Path | None = None
    """TOML file with flags as keys (dim = 100); flags on the command line come before it."""
    figure: str | None = None
    """Make a figure of the gallery instead: its run and picture go to --out. Names: heterogeneous, homogeneous,
    remark-1, algorithm-1, theorem-1, theorem-2, least-squares, bias-variance, readouts, bias-removal."""
    format: str = "png"
    """Of --figure: png; pdf or svg for a paper: as wide as a column or page, letters as letters."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("format", self.format, FORMATS)
        if self.figure is None and self.format != Options.format:
            raise InvalidInput("`format` has no effect without `figure`: isthmus report draws a run, in its --format")
        for field in fields(Settings):
            if self.figure is not None and field.name != "seed" and getattr(self, field.name) != field.default:
                raise InvalidInput(f"`{field.name}` has no effect with `figure`: a figure has its own problem")


def run(options: Options, command: list[str]) -> None:
    """Analyse, write the run, print; or make a figure."""
    if options.figure is not None:
        _make_figure(options, command)
        return
    found = analyze(Settings(**{field.name: getattr(options, field.name) for field in fields(Settings)}))
    out = options.out or fresh_folder(f"analyze-{_subject(options)}")
    with RunWriter(out, "analyze", found.config, command, options.replace) as writer:
        for row in found.rows:
            writer.append(row)
        writer.finish(found.summary, found.status)
    if options.json:
        whole = {"config": found.config, "summary": {"status": found.status, **found.summary}, "rows": found.rows}
        print(json.dumps(to_json(whole)))
    else:
        _show(found, out)


def _subject(options: Options) -> str:
    """What was analysed, in a word fit for a folder's name."""
    kind, _, place = options.data.partition(":")
    if is_own(options.problem):
        return Path(options.problem).stem.replace(":", "-")
    return options.problem if options.problem != "data" else Path(place).stem or kind


def _make_figure(options: Options, command: list[str]) -> None:
    name = check_choice("figure", str(options.figure), FIGURES)
    figure = FIGURES[name](options.seed)
    out = options.out or fresh_folder(f"figure-{name}")
    with RunWriter(out, "figure", figure.config | {"seed": options.seed}, command, options.replace) as writer:
        for row in figure.rows:
            writer.append(row)
        drawn = draw(read_run(out), out, options.format)
        writer.finish({}, files=drawn)
    if options.json:
        print(json.dumps(to_json({"config": figure.config, "rows": figure.rows, "drawn": drawn})))
    else:
        print("\n".join([figure.title, *(str(path) for path in drawn)]))


def _show(found: Analysis, out: Path) -> None:
    console = Console()
    console.print(_table("constants", ("constant", "value", "meaning"), _constant_rows(found.summary)))
    console.print(_table("verdicts", ("", "statement"), _verdict_rows(found.summary)))
    if found.summary["bounds"]:
        bounds = ("theorem", "bounds", "applies", "exact/bound at most")
        console.print(_table("theorems as bounds", bounds, _bound_rows(found.summary)))
    title = f"f - f* by round: {found.summary['dynamics']} beside the simulation"
    columns = ("round", "mean iterate", "expected gap", "simulated", "95 % band", "to x_inf")
    console.print(_table(title, columns, _round_rows(found.rows[: found.summary["diverged_at"]])))
    left = found.summary["fixed_point_relative_gap"]
    if left is not None:
        console.print(f"the fixed point keeps {100 * left:.4g} % of the initial gap {found.summary['initial_gap']:.4g}")
    if found.summary["readouts"]:
        parts = ", ".join(f"{name[16:]} {_number(gap)}" for name, gap in found.summary["readouts"].items())
        console.print(f"relative gap by readout of the model that plain masks train: {parts}")
    if found.status == "diverged":
        console.print(f"diverged at round {found.summary['diverged_at']}: try a smaller --stepsize")
    console.print(f"run written to {out}; a page of it: isthmus report {out}", soft_wrap=True)


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _constant_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    return [(entry["name"], _number(entry["value"]), entry["meaning"]) for entry in summary["constants"]]


def _verdict_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    marks = {True: "yes", False: "no", None: "?"}
    return [(marks[entry["holds"]], entry["verdict"]) for entry in summary["verdicts"]]


def _bound_rows(summary: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            entry["name"],
            entry["quantity"],
            "yes" if entry["applies"] else f"no: {entry['why']}",
            _number(entry["worst_ratio"]),
        )
        for entry in summary["bounds"]
    ]


def _round_rows(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    last = len(rows) - 1
    shown = sorted({round(last * step / (_SHOWN_ROUNDS - 1)) for step in range(_SHOWN_ROUNDS)})
    names = ("mean_gap", "gap", "simulated")
    return [
        (
            str(row["round"]),
            *(_number(row[name]) for name in names),
            f"{_number(row['low'])} .. {_number(row['high'])}",
            _number(row["distance"]),
        )
        for row in (rows[k] for k in shown)
    ]


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
