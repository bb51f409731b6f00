"""Plain data: what an axis can show, and that no content of a run folder breaks the report."""

import json
import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.records import Run
from isthmus.report.charts import chart
from isthmus.report.drawing import draw_figure
from isthmus.report.page import render
from isthmus.report.plots import (
    MOST_POINTS,
    PALETTE,
    SCALES,
    Bars,
    Figure,
    Plot,
    Series,
    Table,
    curve,
    cycle_colors,
    shade,
    slug,
)
from isthmus.report.strategies import STRATEGIES
from isthmus.report.write import sections

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("ist"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def test_points_without_both_numbers_are_left_out_and_bands_stay_with_their_points() -> None:
    series = curve("a", [0, 1, None, 3, 4], [5.0, None, 2.0, math.inf, 1], ([4.0, 0, 0, 0, None], [6.0, 9, 9, 9, 2.0]))
    assert series.x == (0.0, 4.0)
    assert series.y == (5.0, 1.0)
    assert series.low == (4.0, 1.0)  # a missing side has no width
    assert series.high == (6.0, 2.0)


@pytest.mark.parametrize("count", [0, 1, MOST_POINTS, MOST_POINTS + 1, 10 * MOST_POINTS + 3])
def test_long_curves_are_thinned_but_keep_both_ends(count: int) -> None:
    series = curve("a", list(range(count)), list(range(count)))
    assert len(series.x) <= MOST_POINTS + 1
    assert len(series.x) == count or count > MOST_POINTS
    if count:
        assert (series.x[0], series.x[-1]) == (0.0, count - 1.0)
    if count > MOST_POINTS:
        assert f"one point in {series.thinned}." in Plot("", "", "", (series,)).notes[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": (1.0,)}, "as many points as `x`"),
        ({"low": (1.0,)}, "as many points as `x`"),
        ({"y": (1.0, math.nan)}, "finite"),
        ({"style": "wavy"}, "`style` must be one of"),
    ],
)
def test_a_series_that_cannot_be_drawn_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Series(**({"name": "a", "x": (0.0, 1.0), "y": (1.0, 2.0)} | change))


def test_other_shapes_that_cannot_be_drawn_are_refused() -> None:
    with pytest.raises(InvalidInput, match="`x_scale`"):
        Plot("", "", "", (), x_scale="cubic")
    with pytest.raises(InvalidInput, match="equally many"):
        Bars("", "", ("a", "b"), ("#000000",), ())
    with pytest.raises(InvalidInput, match="equally long"):
        Table("", "", ("a", "b"), (("1",),), "lr")


def test_rounding_noise_is_drawn_at_the_floor_and_said() -> None:
    noisy = curve("a", [0, 1, 2, 3], [1.0, 1e-17, 0.0, -3e-16], ([0.5, -1.0, -1.0, -1.0], [2.0, 1e-3, 0.0, 0.0]))
    plot = Plot("", "round", "gap", (noisy,), y_scale="log", floor=1e-16)
    (drawn,) = plot.drawn()
    assert drawn.y == (1.0, 1e-16, 1e-16, 1e-16)
    assert min(drawn.low) == 1e-16
    assert all(low <= y <= high for low, y, high in zip(drawn.low, drawn.y, drawn.high, strict=True))
    assert plot.notes == ("Values below 1e-16 are rounding noise and drawn at 1e-16.",)


def test_without_a_floor_values_that_are_not_positive_are_left_out_and_said() -> None:
    plot = Plot("", "", "", (curve("a", [0, 1, 2], [1.0, 0.0, -1.0]), curve("b", [0], [0.0])), y_scale="log")
    assert [series.y for series in plot.drawn()] == [(1.0,)]
    assert "not above zero" in plot.notes[0]
    assert Plot("", "", "", plot.series).notes == ()


def test_a_band_that_reaches_below_zero_does_not_stretch_the_axis() -> None:
    banded = curve("a", [0, 1], [0.3, 0.2], ([-0.1, -0.1], [0.7, 0.6]))
    low, high = Plot("", "", "", (banded,), y_scale="log", floor=1e-16).y_range() or (0.0, 0.0)
    assert 0.1 < low < 0.2
    assert 0.7 < high < 1.0


@given(st.lists(st.tuples(st.floats(), st.floats(), st.floats(), st.floats()), max_size=12), st.floats(0, 1))
def test_whatever_the_numbers_a_logarithmic_plot_is_finite_and_positive(points: list[Any], floor: float) -> None:
    x, y, low, high = ([point[at] for point in points] for at in range(4))
    plot = Plot("", "", "", (curve("a", x, y, (low, high)),), "log", "log", floor)
    for series in plot.drawn():
        for value in (*series.x, *series.y, *series.low, *series.high):
            assert 0 < value < math.inf
    if plot.drawn():
        bottom, top = plot.y_range() or (0.0, 0.0)
        assert 0 < bottom < top < math.inf
        json.loads(chart(plot).to_json())


@settings(max_examples=20)
@given(st.lists(st.tuples(*[st.floats()] * 3), max_size=5), st.sampled_from(SCALES), st.text(max_size=9))
def test_whatever_the_numbers_and_the_words_a_png_is_drawn(points: list[Any], scale: str, words: str) -> None:
    x, y, high = ([point[at] for point in points] for at in range(3))
    plot = Plot(words, words, words, (curve(words, x, y, (y, high)),), scale, scale)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # words of any alphabet
        draw_figure(Figure("a", words, "", (plot, plot)), Path(folder) / "a.png")
        assert (Path(folder) / "a.png").read_bytes().startswith(b"\x89PNG")


def test_numbers_at_the_end_of_float64_are_left_out_and_said(tmp_path: Path) -> None:
    plot = Plot("", "", "", (curve("a", [0, 1, 2], [1.0, 1e99, 1e307]),), y_scale="log")
    assert plot.drawn()[0].y == (1.0, 1e99)
    assert plot.notes == ("Values beyond 1e+100 are left out.",)


def test_strategies_keep_their_colours_and_others_get_their_own() -> None:
    known = {name: strategy.color for name, strategy in STRATEGIES.items()}
    colors = cycle_colors(["new", "narrow", "other", "ist", "new"], known)
    assert colors["ist"] == known["ist"]
    assert colors["narrow"] == known["narrow"]
    assert len({*known.values(), colors["new"], colors["other"]}) == len(known) + 2
    assert len(set(cycle_colors(map(str, range(14))).values())) == 14
    assert set(PALETTE) < set(cycle_colors(map(str, range(14))).values())


def test_a_bound_has_the_colour_of_what_it_bounds() -> None:
    colors = cycle_colors(["ist", "ist: bound", "gd", "diana: bound", "gd: bound", "diana"])
    assert colors["ist: bound"] == colors["ist"]
    assert colors["gd: bound"] == colors["gd"]
    assert colors["diana: bound"] == colors["diana"]
    assert len({colors["ist"], colors["gd"], colors["diana"]}) == 3
    assert list(colors) == ["ist", "ist: bound", "gd", "diana: bound", "gd: bound", "diana"]
    assert cycle_colors(["alone: bound"])["alone: bound"]


def test_shade_reaches_white_and_black() -> None:
    assert [shade("#0072b2", amount) for amount in (0.0, 1.0, -1.0)] == ["#0072b2", "#ffffff", "#000000"]


@given(st.text())
def test_a_slug_is_safe_in_a_path(text: str) -> None:
    assert set(slug(text)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert 0 < len(slug(text)) <= 48


LINE = JSON | st.fixed_dictionaries({}, optional=dict.fromkeys(("down", "up", "latency"), JSON))
ENVIRONMENT = {"versions": JSON, "commit": JSON, "started": JSON, "line": LINE}
KEYS = {
    "train": (
        ["round", "samples", "train_loss", "test_accuracy", "test_loss", "sent_bytes", "received_bytes", "seconds",
         "compute_seconds", "communicate_seconds", "hops"],
        ["status", "test_accuracy", "model_parameters", "worker_parameters", "sent_bytes", "received_bytes",
         "worker_memory_bytes", "measured_peak_bytes", "flops_per_worker", "error", "planned"],
        ["data", "strategy", "law", "workers", "widths", "executor", "seed"],
    ),
    "analyze": (
        ["round", "mean_gap", "gap", "simulated", "low", "high", "distance"],
        ["status", "initial_gap", "fixed_point_gap", "fixed_point_relative_gap", "final_simulated_gap", "constants",
         "verdicts", "diverged_at"],
        ["problem", "data", "stepsize"],
    ),
    "figure": (["panel", "series", "x", "y", "low", "high", "style"], ["status"], ["figure", "title", "caption"]),
    "claims": (["a"], ["status", "b"], ["c"]),
}  # fmt: skip


@st.composite
def some_run(draw: st.DrawFn, kind: str) -> Run:
    rows, summary, config = (dict.fromkeys(keys, JSON) for keys in KEYS[kind])
    if kind == "analyze":
        entry = st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "value", "statement", "holds"), JSON))
        summary["verdicts"] = summary["constants"] = JSON | st.lists(entry, max_size=2)
    if kind == "figure":
        panel = st.fixed_dictionaries({}, optional={"name": JSON, "title": JSON, "x_scale": JSON, "y_scale": JSON})
        config["panels"] = JSON | st.lists(panel, max_size=3)
    return Run(
        path=Path(draw(st.text("ab<&'\"", min_size=1, max_size=5))),
        kind=kind,
        command=draw(st.text(max_size=8)),
        config=draw(st.fixed_dictionaries({}, optional=config)),
        environment=draw(st.fixed_dictionaries({}, optional=ENVIRONMENT)),
        rows=draw(st.lists(st.fixed_dictionaries({}, optional=rows), max_size=4)),
        summary=draw(st.fixed_dictionaries({}, optional=summary)),
    )


@pytest.mark.parametrize("kind", KEYS)
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_no_content_of_a_run_folder_breaks_the_report(kind: str, data: st.DataObject) -> None:
    """Run folders are untrusted: any JSON in any place gives a page, never a traceback."""
    found = [data.draw(some_run(kind)) for _ in range(2)]
    chapters = sections(found)
    assert len({section.name for section in chapters}) == len(chapters)
    page = render("report", chapters, found)
    assert page.endswith("</html>\n")
