"""Analyses and figures to plots and tables."""

import math
from typing import Any

import pytest

from cases.records import without_end
from isthmus.records import RunWriter, read_run
from isthmus.report.analyze import analysis_sections
from isthmus.report.figure import figure_section
from isthmus.report.plots import Bars
from isthmus.report.strategies import STRATEGIES


def test_an_analysis_shows_theory_simulation_and_bias_relative_and_absolute(runs: Any) -> None:
    run = read_run(runs.analysis("a", bias=0.12))
    (section,) = analysis_sections([run])
    relative, absolute = section.figures[0].panels
    for plot, scale in ((relative, 37.5), (absolute, 1.0)):
        simulated, exact, mean, level = plot.series
        assert exact.y == tuple(row["gap"] / scale for row in run.rows)
        assert mean.y == tuple(row["mean_gap"] / scale for row in run.rows)
        assert simulated.low == tuple(row["low"] / scale for row in run.rows)
        assert (level.x, level.y) == ((0.0, 60.0), (pytest.approx(0.12 * 37.5 / scale),) * 2)
        assert level.style == "dotted"
        assert plot.y_scale == "log"
    assert relative.floor == 1e-16
    assert absolute.floor == pytest.approx(37.5e-16)
    assert section.figures[1].panels[0].floor == pytest.approx(5e-16)  # of the first distance
    verdicts, constants = section.tables
    assert [row[1] for row in verdicts.rows] == ["no", "yes", "not decided"]
    assert verdicts.rows[0][2:] == ("no, W is indefinite: smallest eigenvalue -1.72", "-1.72")
    assert constants.rows[0][:2] == ("λmax(L̄)", "12.35")
    assert section.headlines[1] == ("12.0 %", "of the initial gap stays for ever: the bias")


def test_no_bias_is_said_and_a_missing_exact_curve_is_left_out(runs: Any) -> None:
    with RunWriter(runs.root / "a", "analyze", {"problem": "gaussian"}) as writer:
        writer.append({"round": 0, "mean_gap": 2.0, "gap": None, "simulated": 2.0, "distance": 1.0})
        writer.append({"round": 1, "mean_gap": 0.0, "gap": None, "simulated": 1e-30, "distance": 0.0})
        writer.finish({"initial_gap": 2.0, "fixed_point_gap": 0.0, "fixed_point_relative_gap": 0.0,
                       "final_simulated_gap": 1e-30})  # fmt: skip
    (section,) = analysis_sections([read_run(runs.root / "a")])
    relative = section.figures[0].panels[0]
    assert "exact expected gap" not in [series.name for series in relative.series]
    assert relative.drawn()[0].y == (1.0, 1e-16)
    assert "rounding noise" in relative.notes[0]
    assert section.headlines[1] == ("no", "bias: the fixed point is the solution")


def test_an_analysis_that_was_killed_is_drawn_from_its_rows(runs: Any) -> None:
    path = without_end(runs.analysis("a"))
    (section,) = analysis_sections([read_run(path)])
    assert [panel.title[:8] for panel in section.figures[0].panels] == ["Relative", "Absolute"]
    assert section.figures[0].panels[0].series[1].y[0] == 1.0


def test_a_diverging_run_is_a_result_and_does_not_squeeze_the_others(runs: Any) -> None:
    found = [read_run(runs.analysis("a")), read_run(runs.analysis("b", diverging=True, stepsize=1.0))]
    together, *_, diverged = analysis_sections(found)
    assert "round 40" in diverged.warnings[0]
    plot = together.figures[0].panels[0]
    assert plot.y_range() == (pytest.approx(0.06), 100.0)
    leaving = next(series for series in plot.series if series.name.endswith("(stepsize 1)"))
    assert [value > 100 for value in leaving.y] == [False] * 10 + [True]  # the first point above is where it leaves
    assert sum(series.style == "dotted" for series in plot.series) == 1  # it does not move to its fixed point
    (distance,) = diverged.figures[1].panels
    assert distance.drawn()[0].y[:2] == (5.0, pytest.approx(5 * math.exp(8)))
    assert not any("bias" in words for _, words in diverged.headlines)
    assert together.tables[0].rows[1][-1] == "diverged"
    names = [series.name for series in together.figures[0].panels[0].series if series.name]
    assert names == ["gaussian quadratic (stepsize 0.01)", "gaussian quadratic (stepsize 1)"]


def test_analyses_that_differ_in_nothing_are_told_apart_by_their_folder(runs: Any) -> None:
    titles = [section.title for section in analysis_sections([read_run(runs.analysis(name)) for name in "ab"])]
    assert len(set(titles)) == 3


def test_a_figure_is_drawn_as_its_run_describes_it(runs: Any) -> None:
    (figure,) = figure_section(read_run(runs.figure("f"))).figures
    left, right = figure.panels
    assert (figure.title, figure.caption) == ("Bias against workers", "More workers, more bias.")
    assert [(series.name, series.style) for series in left.series] == [("y", "markers"), ("y/n", "markers")]
    assert left.series[0].color == right.series[0].color
    assert (right.y_scale, left.y_scale) == ("log", "linear")
    assert "rounding noise" in right.notes[0]
    assert all(value > 0 for series in right.drawn() for value in (*series.y, *series.low))


def test_words_on_the_horizontal_axis_make_bars_and_strategies_keep_their_colours(runs: Any) -> None:
    rows = [{"panel": "p", "series": "seconds", "x": x, "y": y} for x, y in (("ist", 1.0), ("torch", 2.0), ("z", None))]
    panels = [{"name": "p", "title": "Time", "x_label": "", "y_label": "seconds"}]
    (figure,) = figure_section(read_run(runs.figure("f", rows, panels=panels))).figures
    (bars,) = figure.panels
    assert isinstance(bars, Bars)
    assert bars.groups == (("seconds", (1.0, 2.0, None), ("1", "2", "")),)
    assert bars.colors[0] == STRATEGIES["ist"].color


def test_a_diverging_series_does_not_lift_the_floor_over_the_others(runs: Any) -> None:
    rows = [{"panel": "right", "series": name, "x": k, "y": base**k} for k in range(40)
            for name, base in (("up", 1e7), ("down", 0.5))]  # fmt: skip
    (figure,) = figure_section(read_run(runs.figure("f", rows))).figures
    down = next(series for series in figure.panels[1].drawn() if series.name == "down")
    assert down.y == tuple(0.5**k for k in range(40))
