"""The page in a real headless Chromium without a network: what a reader sees and can do.

The fixture ``visit`` fails a test whose page wrote to the console, raised an error, opened a dialog or requested
anything but its own file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isthmus.records import read_run
from isthmus.report import write_report
from isthmus.report.plots import Bars, Plot
from isthmus.report.write import find_runs, sections

pytestmark = pytest.mark.browser

ACCURACY = "#training-digits-accuracy-0"
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
        for figure in section.figures
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


def test_a_click_in_the_legend_hides_a_curve_with_its_band_and_shows_it_again(
    full_report: Path, visit: Callable[..., Any]
) -> None:
    page = visit(full_report)
    chart = page.locator(ACCURACY)
    before = chart.evaluate(VISIBLE)
    entry = chart.locator(".legendtoggle").nth(chart.locator(".legendtext").all_text_contents().index("narrow net"))
    entry.click()
    hidden = "([chart, n]) => chart.querySelectorAll('.scatterlayer .trace').length === n"
    page.wait_for_function(hidden, arg=[chart.element_handle(), before - 2])
    state = chart.evaluate("c => c.data.filter(t => t.visible === 'legendonly').map(t => t.name)")
    assert state == ["narrow net", "narrow net"]  # its line and its band over seeds
    page.wait_for_timeout(400)  # sooner would be a double click
    entry.click()
    page.wait_for_function(hidden, arg=[chart.element_handle(), before])


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
    page.wait_for_function("([c, x]) => c._fullLayout.xaxis.range[0] > x", arg=[chart.element_handle(), before[0]])
    left, right, bottom, top = chart.evaluate(limits)
    assert right - left == pytest.approx(0.3 * (before[1] - before[0]), rel=0.05)
    assert top - bottom == pytest.approx(0.5 * (before[3] - before[2]), rel=0.05)
    page.mouse.dblclick(area["x"] + 0.5 * area["width"], area["y"] + 0.5 * area["height"])
    page.wait_for_function("([c, x]) => c._fullLayout.xaxis.range[0] === x", arg=[chart.element_handle(), before[0]])
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
