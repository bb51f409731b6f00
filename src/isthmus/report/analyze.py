"""Analyses of IST on a quadratic: theory beside simulation, the bias as a level, constants and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from isthmus.records import Run
from isthmus.report.plots import PALETTE, Figure, Plot, Section, Series, Table, curve, cycle_colors, number, slug
from isthmus.report.wording import distinct_labels, percent, plain

NOISE = 1e-16  # of the initial gap: what float64 cannot tell from zero
_IGNORED = frozenset({"out", "json", "replace", "config", "problem", "data", "rounds", "seeds"})
_EXACT, _MEAN, _SIMULATED, _LEVEL = PALETTE[0], PALETTE[1], PALETTE[5], "#444444"
_TOP = 100.0  # times the initial gap: what lies higher would squeeze the curves that converge
_INTRO = (
    "On a quadratic everything IST does can be computed exactly, so theory can be laid beside simulation. "
    "The gap f − f* is how far the current point's value lies above the best possible one: 0 means solved."
)


def analysis_sections(runs: Sequence[Run]) -> list[Section]:
    """Return one section for each analysis and, where there are several, one that compares them."""
    labels = analysis_labels(runs)
    sections = [_section(run, label) for run, label in zip(runs, labels, strict=True)]
    sections = [_comparison(runs, labels), *sections] if len(runs) > 1 else sections
    return [replace(sections[0], intro=_INTRO), *sections[1:]]


def analysis_labels(runs: Sequence[Run]) -> list[str]:
    """Return a name for each analysis: its problem, and what else differs among analyses of the same problem."""
    labels = distinct_labels([_problem(run) for run in runs], [run.config for run in runs], _IGNORED)
    return [f"{label} [{run.path.name}]" if labels.count(label) > 1 else label
            for label, run in zip(labels, runs, strict=True)]  # fmt: skip


def _problem(run: Run) -> str:
    kind = run.config.get("problem", "quadratic")
    return f"least squares on {plain(run.config.get('data'))}" if kind == "data" else f"{plain(kind)} quadratic"


def _section(run: Run, label: str) -> Section:
    figures = [_gap_figure(run), _distance_figure(run)] if run.rows else []
    return Section(
        name=slug(f"analysis {label}"),
        title=f"Analysis: {label}",
        headlines=_headlines(run),
        warnings=_warnings(run),
        figures=tuple(figure for figure in figures if any(panel.has_points for panel in figure.panels)),
        tables=(*_verdict_tables(run), *_constant_tables(run)),
    )


def _column(run: Run, name: str, scale: float = 1.0) -> list[float | None]:
    values = [number(row.get(name)) for row in run.rows]
    return [None if value is None else value / scale for value in values]


def _initial_gap(run: Run) -> float | None:
    """f(x0) - f*: from the summary, or from the first row of a run that was killed."""
    first = run.rows[0] if run.rows else {}
    candidates = (run.summary.get("initial_gap"), first.get("gap"), first.get("mean_gap"), first.get("simulated"))
    return next((value for value in map(number, candidates) if value is not None and value > 0), None)


def _gap_figure(run: Run) -> Figure:
    initial = _initial_gap(run)
    panels = [_gap_plot(run, "Absolute: f − f*", "f − f*", 1.0, NOISE * (initial or 0.0))]
    if initial is not None:
        title = "Relative: (f − f*) / (f(x⁰) − f*)"
        panels.insert(0, _gap_plot(run, title, "share of the initial gap", initial, NOISE))
    return Figure(
        "gap",
        "How fast the gap closes, and where it stops",
        "Each round moves one step to the right; lower is better. The vertical axis is logarithmic: the same step down "
        "is always the same factor. "
        "The band is where the mean of the simulations lies with 95 % confidence: the exact expected gap should run "
        "through it. The exact gap of the mean point leaves out chance. The dotted line is the gap of the fixed "
        "point: the bias, which no number of rounds removes.",
        tuple(panels),
    )


def _gap_plot(run: Run, title: str, y_label: str, scale: float, floor: float) -> Plot:
    rounds = _column(run, "round")
    band = (_column(run, "low", scale), _column(run, "high", scale))
    series = [
        curve("simulated, mean over seeds", rounds, _column(run, "simulated", scale), band, color=_SIMULATED),
        curve("exact expected gap", rounds, _column(run, "gap", scale), color=_EXACT),
        curve("exact gap of the mean point", rounds, _column(run, "mean_gap", scale), color=_MEAN, style="dashed"),
        *_level(run, "fixed point (bias)", scale, _LEVEL),
    ]
    return Plot(title, "round", y_label, tuple(one for one in series if one.x), y_scale="log", floor=floor)


def _level(run: Run, name: str, scale: float, color: str, group: str = "") -> list[Series]:
    height = number(run.summary.get("fixed_point_gap"))
    rounds = [value for value in _column(run, "round") if value is not None]
    if height is None or not rounds:
        return []
    ends = [min(rounds), max(rounds)]
    return [curve(name, ends, [height / scale] * 2, color=color, style="dotted", group=group)]


def _distance_figure(run: Run) -> Figure:
    distances = _column(run, "distance")
    first = next((value for value in distances if value), 0.0)
    series = curve("‖E xᵏ − x∞‖", _column(run, "round"), distances, color=_MEAN)
    return Figure(
        "distance",
        "How fast the mean point settles",
        "Distance of the mean point to the fixed point. It shows the speed only: the fixed point itself may be far "
        "from the solution, which is what the dotted line in the picture of the gap says.",
        (Plot("Distance to the fixed point", "round", "‖E xᵏ − x∞‖", (series,), y_scale="log", floor=NOISE * first),),
    )


def _headlines(run: Run) -> tuple[tuple[str, str], ...]:
    initial, rounds = _initial_gap(run), [value for value in _column(run, "round") if value is not None]
    final = number(run.summary.get("final_simulated_gap"))
    bias = number(run.summary.get("fixed_point_relative_gap"))
    verdicts = _dicts(run.summary.get("verdicts"))
    said = []
    if final is not None and initial is not None:
        grown = final >= 100 * initial
        left = "the initial gap" if grown else "of the initial gap is left"
        said.append((percent(final / initial), f"{left} after {plain(max(rounds, default=0.0))} rounds (simulated)"))
    if bias is not None and run.status != "diverged":
        small = abs(bias) < 1e-12
        meaning = "bias: the fixed point is the solution" if small else "of the initial gap stays for ever: the bias"
        said.append(("no" if small else percent(bias), meaning))
    if verdicts:
        held = sum(verdict.get("holds") is True for verdict in verdicts)
        said.append((f"{held} of {len(verdicts)}", "statements of the theory hold for this problem"))
    return tuple(said)


def _warnings(run: Run) -> tuple[str, ...]:
    diverged = number(run.summary.get("diverged_at"))
    said = [f"It diverged in round {plain(diverged)}: the step is too large for this problem."] if diverged else []
    return (*said, *([] if run.rows else ["This run has no rows: it ended before its first round."]))


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _verdict_tables(run: Run) -> tuple[Table, ...]:
    rows = [
        (
            plain(verdict.get("statement")),
            plain(verdict["holds"]) if isinstance(verdict.get("holds"), bool) else "not decided",
            plain(verdict.get("verdict")),
            plain(verdict.get("number")),
        )
        for verdict in _dicts(run.summary.get("verdicts"))
    ]
    caption = "Whether each statement of the theory applies to this problem, and the number that decides it."
    table = Table("Verdicts", caption, ("statement", "holds", "verdict", "number"), tuple(rows), "lllr")
    return (table,) if rows else ()


def _constant_tables(run: Run) -> tuple[Table, ...]:
    rows = [
        (plain(constant.get("name")), plain(constant.get("value")), plain(constant.get("meaning")))
        for constant in _dicts(run.summary.get("constants"))
    ]
    table = Table("Constants", "Exact, computed once.", ("name", "value", "meaning"), tuple(rows), "lrl")
    return (table,) if rows else ()


def _comparison(runs: Sequence[Run], labels: Sequence[str]) -> Section:
    colors = cycle_colors(labels)
    series = [one for run, label in zip(runs, labels, strict=True) for one in _compared(run, label, colors[label])]
    lowest = min((max(value, NOISE) for one in series for value in one.y), default=NOISE)
    focus = (lowest / 2, _TOP) if any(value > _TOP for one in series for value in one.y) else None
    plot = Plot("Share of the initial gap that is left", "round", "(f − f*) / (f(x⁰) − f*)", tuple(series),
                y_scale="log", floor=NOISE, focus=focus)  # fmt: skip
    rows = [
        (
            label,
            percent(_relative(run, "final_simulated_gap")),
            percent(number(run.summary.get("fixed_point_relative_gap"))),
            run.status,
        )
        for run, label in zip(runs, labels, strict=True)
    ]
    caption = (
        "All analyses on one picture. Each curve starts at 1 and falls until it meets its own dotted line, "
        "the bias of its fixed point; one without a dotted line below it goes on falling, and one that leaves the "
        "picture at the top diverges."
    )
    columns = ("analysis", "left at the end (simulated)", "bias", "status")
    return Section(
        name="analyses",
        title="All analyses together",
        figures=(Figure("gap", "How the analyses compare", caption, (plot,)),) if plot.has_points else (),
        tables=(Table("Analyses", "Shares of the initial gap.", columns, tuple(rows), "lrrl"),),
    )


def _relative(run: Run, name: str) -> float | None:
    value, initial = number(run.summary.get(name)), _initial_gap(run)
    return None if value is None or initial is None else value / initial


def _compared(run: Run, label: str, color: str) -> list[Series]:
    initial = _initial_gap(run)
    if initial is None:
        return []
    gaps = _column(run, "gap", initial)
    if not any(value is not None for value in gaps):
        gaps = _column(run, "simulated", initial)
    above = next((at for at, gap in enumerate(gaps) if gap is not None and gap > _TOP), len(gaps))
    shown = [gap if at <= above else None for at, gap in enumerate(gaps)]
    level = _level(run, "", initial, color, group=label) if run.status != "diverged" else []
    return [curve(label, _column(run, "round"), shown, color=color), *level]
