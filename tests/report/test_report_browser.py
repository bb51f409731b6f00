"""The page in a real headless Chromium without a network: what a reader sees and can do.

The fixture ``visit`` fails a test whose page wrote to the console, raised an error, opened a dialog or requested
anything but its own file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cases.browser import wait_until
from isthmus.line import Line
from isthmus.records import read_run
from isthmus.report import write_report
from isthmus.report.model import View
from isthmus.report.page import render
from isthmus.report.plots import Bars, Plot
from isthmus.report.write import find_runs, sections
from isthmus.strategies import DataParallel

pytestmark = pytest.mark.browser

ACCURACY = "#training-digits-accuracy-0"
RACE = "#training-digits-time-0"
VISIBLE = "chart => chart.querySelectorAll('.scatterlayer .trace').length"


def boxes(page: Any, selector: str) -> list[tuple[str, float, float, float, float]]:
    """(text, left, top, right, bottom) of every element that is shown."""
    return page.eval_on_selector_all(
        selector,
        "found => found.map(e => [e.textContent, e.getBoundingClientRect()]).filter(([_, b]) => b.width > 0)"
        ".map(([text, b]) => [text, b.left, b.top, b.right, b.bottom])",
    )


def overlapping(shown: list[tuple[str, float, float, float, float]]) -> list[tuple[str, str]]:
    return [
        (one[0], other[0])
        for at, one in enumerate(shown)
        for other in shown[at + 1 :]
        if min(one[3], other[3]) - max(one[1], other[1]) > 1 and min(one[4], other[4]) - max(one[2], other[2]) > 1
    ]


def test_every_picture_is_drawn_with_all_its_curves_and_bars(full_report: Path, visit: Callable[..., Any]) -> None:
    chapters = sections([read_run(path) for path in find_runs([full_report.parent.parent / "runs"])])
    page = visit(full_report)
    panels = {
        f"{section.name}-{figure.name}-{at}": panel
        for section in chapters
        for figure in section.pictures
        for at, panel in enumerate(figure.panels)
    }
    assert len(panels) >= 20
    assert set(page.eval_on_selector_all(".chart", "charts => charts.map(c => c.id)")) == set(panels)
    for name, panel in panels.items():
        chart = page.locator(f"#{name}")
        if isinstance(panel, Plot):
            drawn = panel.drawn()
            assert chart.evaluate(VISIBLE) == len(drawn) + sum(bool(series.low) for series in drawn)
            named = [series.name for series in drawn if series.name]
            assert chart.locator(".legendtext").all_text_contents() == (named if len(named) > 1 else [])
        else:
            assert isinstance(panel, Bars)
            assert chart.locator(".bars .point").count() == len(panel.labels) * len(panel.groups)
            texts = [text or "–" for _, _, texts in panel.groups for text in texts]
            assert chart.locator(".bartext").all_text_contents() == texts


LINES = {
    ("100 Mbit/s", "100 Mbit/s", "10 ms"): Line.of("100mbit", "10ms"),
    ("10mbit", "1.5 Mbps", "0"): Line.of("10mbit", up="1.5mbit"),
    ("300 gbit/s", ".5Gbit", "50 us"): Line.of("300gbit", "50us", up="500mbit"),
    ("no limit", "no limit", "2 s"): Line(latency=2.0),
    ("9600bit", "9600 bit/s", "0.7s"): Line(9600.0, 9600.0, 0.7),
}


def test_another_line_in_the_box_gives_the_numbers_that_python_gives(
    runs: Any, tmp_path: Path, visit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The curves, their bands, the axis and the table; the measured points stay where they are."""
    monkeypatch.setattr(DataParallel, "overlaps", True)  # the others' computing and moving are added
    for name in ("ist", "data-parallel"):
        for seed in range(3):
            runs.training(f"{name}-{seed}", name, rounds=12 + 4 * seed, seed=seed)
    runs.training("once", "local-sgd", line=Line.of("1gbit"))
    runs.training("never", "narrow", rounds=3)
    found, view = [read_run(path) for path in find_runs([runs.root])], View(target=0.7)
    (tmp_path / "index.html").write_text(render("lines", sections(found, view), found))
    page = visit(tmp_path / "index.html")
    page.set_default_timeout(10_000)
    chart, table = page.locator(RACE), page.locator("#training-digits-race tbody tr")
    for written, line in LINES.items():
        for field, text in zip(("down", "up", "latency"), written, strict=True):
            page.fill(f"#training-digits-line [name={field}]", text)
        (section,) = sections(found, View(line, view.target))
        assert section.race is not None
        assert section.race.table is not None
        assert page.text_content("#training-digits-told") == f"Drawn for {line.shown}."
        (plot,) = section.race.figure.panels
        assert isinstance(plot, Plot)
        drawn = chart.evaluate("c => c.data.map(t => [t.meta ?? t.name, Boolean(t.fill), [...t.x], [...t.y]])")
        series = plot.drawn()
        banded = [one for one in series if one.low]
        expected = [
            *((one.key or one.name, True, (*one.x, *one.x[::-1]), (*one.high, *one.low[::-1])) for one in banded),
            *((one.key or one.name, False, one.x, one.y) for one in series),
        ]
        assert [(name, filled) for name, filled, _, _ in drawn] == [(name, filled) for name, filled, _, _ in expected]
        for (name, _, x, y), (_, _, right_x, right_y) in zip(drawn, expected, strict=True):
            error = 1e-12 if name.startswith("curve") else 1e-6  # what is not drawn anew is written to seven digits
            assert x == pytest.approx(right_x, rel=error), (line, name)
            assert y == pytest.approx(right_y, rel=error), (line, name)
        axis = chart.evaluate("c => [c._fullLayout.xaxis.type, c._fullLayout.xaxis.title.text]")
        assert axis == [plot.x_scale, plot.x_label]
        cells = [tuple(row.locator("td").all_text_contents()) for row in table.all()]
        assert cells == list(section.race.table.rows)


def test_what_cannot_be_a_line_is_said_and_the_picture_stays(full_report: Path, visit: Callable[..., Any]) -> None:
    page = visit(full_report)
    box, told = page.locator("#training-digits-line"), page.locator("#training-digits-told")
    before = page.locator(RACE).evaluate("c => [...c.data.at(-1).x]")
    for field, text in (("down", "fast"), ("up", "0 Mbit/s"), ("latency", "10")):
        place = box.locator(f"[name={field}]")
        good = place.input_value()
        place.fill(text)
        assert "must be" in told.text_content()
        assert place.get_attribute("aria-invalid") == "true"
        place.press("Enter")  # sends nothing, leaves the page where it is
        place.fill(good)
        assert place.get_attribute("aria-invalid") == "false"
        assert told.text_content().startswith("Drawn for ")
    assert page.locator(RACE).evaluate("c => [...c.data.at(-1).x]") == before


def test_a_chosen_line_fills_the_box(full_report: Path, visit: Callable[..., Any]) -> None:
    page = visit(full_report)
    box = page.locator("#training-digits-line")
    box.locator("select").select_option(label="at home, by cable: 100 Mbit/s, up 20 Mbit/s, 15 ms")
    assert [box.locator(f"[name={name}]").input_value() for name in ("down", "up", "latency")] == [
        "100 Mbit/s", "20 Mbit/s", "15 ms"
    ]  # fmt: skip
    assert page.text_content("#training-digits-told") == "Drawn for 100 Mbit/s, up 20 Mbit/s, 15 ms."
    assert "measured: 10 Mbit/s, 40 ms" in box.locator("option").all_text_contents()


def test_without_javascript_the_first_picture_and_all_tables_are_there(full_report: Path, chromium: Any) -> None:
    context = chromium.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(full_report.resolve().as_uri())
    picture = page.locator("#training-digits figure img")
    assert picture.bounding_box()["width"] > 400
    assert picture.get_attribute("alt") == "Test accuracy against seconds"
    assert page.locator("#training-digits-told").text_content() == "Drawn for 10 Mbit/s, 40 ms."
    assert not page.locator("#training-digits-line").is_visible()
    assert page.locator("#training-digits-race tbody tr").count() == 7
    assert not any(chart.is_visible() for chart in page.locator(".chart").all())
    context.close()


def test_pictures_that_are_folded_away_are_drawn_when_they_are_unfolded(full_report: Path, chromium: Any) -> None:
    page = chromium.new_page()
    page.goto(full_report.resolve().as_uri())
    page.locator(f"{RACE}.js-plotly-plot").wait_for()
    assert not page.locator(ACCURACY).is_visible()
    page.get_by_text("More pictures").click()
    page.locator(f"{ACCURACY}.js-plotly-plot").wait_for()
    assert page.locator(ACCURACY).evaluate("c => c._fullLayout.width === Math.round(c.clientWidth)")
    page.close()


def test_a_click_in_the_legend_hides_a_curve_with_its_band_and_shows_it_again(
    full_report: Path, visit: Callable[..., Any]
) -> None:
    page = visit(full_report)
    chart = page.locator(ACCURACY)
    before = chart.evaluate(VISIBLE)
    entry = chart.locator(".legendtoggle").nth(chart.locator(".legendtext").all_text_contents().index("narrow net"))
    entry.click()
    hidden = "([chart, n]) => chart.querySelectorAll('.scatterlayer .trace').length === n"
    wait_until(page, hidden, [chart.element_handle(), before - 2])
    state = chart.evaluate("c => c.data.filter(t => t.visible === 'legendonly').map(t => t.name)")
    assert state == ["narrow net", "narrow net"]  # its line and its band over seeds
    page.wait_for_timeout(400)  # sooner would be a double click
    entry.click()
    wait_until(page, hidden, [chart.element_handle(), before])


def test_pointing_at_a_curve_shows_its_name_and_numbers(full_report: Path, visit: Callable[..., Any]) -> None:
    page = visit(full_report)
    chart = page.locator(ACCURACY)
    chart.scroll_into_view_if_needed()
    at = chart.evaluate(
        "c => { const t = c.data.find(t => t.name === 'data parallel' && t.showlegend), l = c._fullLayout;"
        " const b = c.getBoundingClientRect(), i = t.x.length - 1;"
        " return [b.left + l.xaxis._offset + l.xaxis.l2p(t.x[i]), b.top + l.yaxis._offset + l.yaxis.l2p(t.y[i]),"
        " t.y[i]]; }"
    )
    page.mouse.move(at[0], at[1])
    label = chart.locator(".hovertext")
    label.wait_for()
    shown = label.text_content()
    assert "data parallel" in shown
    assert "round: 40" in shown
    assert f"test accuracy (%): {at[2]:.4g}"[:24] in shown


def test_dragging_zooms_and_a_double_click_returns(full_report: Path, visit: Callable[..., Any]) -> None:
    page = visit(full_report)
    chart = page.locator(ACCURACY)
    chart.scroll_into_view_if_needed()
    limits = "c => [...c._fullLayout.xaxis.range, ...c._fullLayout.yaxis.range]"
    before = chart.evaluate(limits)
    area = chart.locator(".nsewdrag").bounding_box()
    page.mouse.move(area["x"] + 0.3 * area["width"], area["y"] + 0.2 * area["height"])
    page.mouse.down()
    page.mouse.move(area["x"] + 0.6 * area["width"], area["y"] + 0.7 * area["height"], steps=8)
    page.mouse.up()
    wait_until(page, "([c, x]) => c._fullLayout.xaxis.range[0] > x", [chart.element_handle(), before[0]])
    left, right, bottom, top = chart.evaluate(limits)
    assert right - left == pytest.approx(0.3 * (before[1] - before[0]), rel=0.05)
    assert top - bottom == pytest.approx(0.5 * (before[3] - before[2]), rel=0.05)
    # plotly takes two clicks for a double one by the page's clock, within 300 ms: where the machine is busy, real ones
    # come later than that. The clock stands still for the two, far enough from the press that began the drag.
    page.clock.set_fixed_time(page.evaluate("Date.now()") + 10_000)
    page.mouse.dblclick(area["x"] + 0.5 * area["width"], area["y"] + 0.5 * area["height"])
    wait_until(page, "([c, x]) => c._fullLayout.xaxis.range[0] === x", [chart.element_handle(), before[0]])
    assert chart.evaluate(limits) == before


def test_no_button_sends_a_chart_anywhere(full_report: Path, visit: Callable[..., Any]) -> None:
    """plotly's own choice of buttons has one that uploads the chart."""
    page = visit(full_report)
    titles = set(page.eval_on_selector_all(".modebar-btn", "found => found.map(b => b.dataset.title)"))
    assert titles == {"Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes", "Download plot as a PNG"}


@pytest.mark.parametrize("width", [360, 820, 1600])
def test_it_is_readable_on_a_phone_and_on_a_wide_screen(
    full_report: Path, visit: Callable[..., Any], width: int
) -> None:
    page = visit(full_report, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for chart in page.locator(".chart").all():
        name = chart.get_attribute("id")
        for kind in (".xtick text", ".ytick text", ".legendtext", ".bartext"):
            assert overlapping(boxes(page, f"#{name} {kind}")) == [], name
        assert overlapping(boxes(page, f"#{name} .xtitle") + boxes(page, f"#{name} .legend")) == [], name
        assert overlapping(boxes(page, f"#{name} .ytitle") + boxes(page, f"#{name} .ytick text")) == [], name
        frame = chart.bounding_box()
        for text, left, _, right, _ in boxes(page, f"#{name} :is(.xtick, .ytick, .ytitle, .legendtext, .bartext)"):
            assert left >= frame["x"] - 1, (name, text)
            assert right <= frame["x"] + frame["width"] + 1, (name, text)
        plotted = chart.locator(".nsewdrag").bounding_box()
        assert plotted["width"] > 0.35 * frame["width"], name
        assert plotted["height"] > 120, name


def test_hostile_words_never_become_elements(runs: Any, tmp_path: Path, visit: Callable[..., Any]) -> None:
    words = '</script><script>alert(1)</script><img src="https://example.org/x"><a href="javascript:alert(2)">b</a>%{x}'
    rows = [{"panel": words, "series": series, "x": 0, "y": 1} for series in (words, "b")]
    panels = [{"name": words, "title": words, "x_label": words, "y_label": words}]
    paths = [
        runs.training("a", words, data=words),
        runs.training("b", "ist", data=words, law=words),
        runs.analysis("c", problem=words),
        runs.figure("d", rows, title=words, caption=words, panels=panels),
    ]
    page = visit(write_report(paths, tmp_path / "out"))
    assert page.locator("img, [src], a[href^=javascript], main script, iframe, object, svg a").count() == 0
    assert page.locator("h2").first.text_content() == f"Training on {words}"
    assert {words, f"IST, {words}"} <= set(page.locator(".legendtext").all_text_contents())
    assert page.locator("figcaption", has_text=words).count() == 1
