"""What happened beside the rounds: on the axes of the curves, in the list of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isthmus.errors import InvalidInput
from isthmus.records import Run, read_run
from isthmus.report.events import marks
from isthmus.report.model import View
from isthmus.report.page import render
from isthmus.report.plots import MOST_MARKS, Marks, Plot, curve
from isthmus.report.train import training_sections
from isthmus.report.write import draw

HAPPENED = [
    {"event": "lost", "round": 8, "seconds": 0.3, "worker": 2, "text": "was killed (signal 9)"},
    {"event": "joined", "round": 10, "seconds": 0.35, "worker": 2, "text": ""},
    {"event": "lost", "round": 5, "seconds": 0.2, "worker": 1, "text": "silent for 31 s"},
    {"event": "<script>alert(1)</script>", "round": 12, "text": "<b>$x$ %{x}"},
    {"event": "checkpoint", "round": None, "seconds": 0.9},
    {"event": "late", "round": "soon"},
    {"event": "absent", "round": 8, "seconds": 0.31, "worker": 2, "text": "leaves 2 classes without a worker: 1, 7"},
]


def eventful(runs: Any, name: str = "eventful") -> Run:
    return replace(read_run(runs.training(name)), events=HAPPENED)


def test_an_event_is_at_its_round_on_every_axis_and_at_its_second_in_time(runs: Any) -> None:
    (section,) = training_sections([eventful(runs), read_run(runs.training("calm", "local-sgd"))], View())
    _, by_bytes, accuracy, loss, train_loss, _ = section.pictures
    rounds, samples, time, traffic = (
        {each.name: each.x for each in panel.marks}
        for panel in (*accuracy.panels, *by_bytes.panels)
        if isinstance(panel, Plot)
    )
    there = {"worker lost": (5, 8), "worker joined": (10,), "classes without a worker": (8,), "something else": (12,)}
    assert rounds == there
    assert samples == {name: tuple(2560 * at for at in places) for name, places in rounds.items()}
    assert traffic["worker lost"] == (2 * 330_000 * 5, 2 * 330_000 * 8)
    row = eventful(runs, "again").rows[12]["seconds"]
    assert time == {
        "worker lost": (0.2, 0.3), "worker joined": (0.35,), "classes without a worker": (0.31,), "checkpoint": (0.9,),
        "something else": (row,),
    }  # fmt: skip
    assert [panel.marks for panel in loss.panels if isinstance(panel, Plot)] == [
        panel.marks
        for panel in (*accuracy.panels[:2], *by_bytes.panels, accuracy.panels[2])
        if isinstance(panel, Plot)
    ]
    assert isinstance(train_loss.panels[0], Plot)
    assert len(train_loss.panels[0].marks) == 4
    texts = {
        text for panel in accuracy.panels if isinstance(panel, Plot) for each in panel.marks for text in each.texts
    }
    assert "eventful, round 8: worker 2, was killed (signal 9)" in texts
    assert "Thin vertical lines" in accuracy.caption


def test_a_run_without_events_has_no_marks_and_no_list(runs: Any) -> None:
    run = read_run(runs.training("calm"))
    assert marks([run], lambda run: [row["round"] for row in run.rows]) == ()
    page = render("calm", training_sections([run], View()), [run])
    assert "What happened" not in page
    assert "Thin vertical lines" not in page


def test_marks_that_an_axis_cannot_show_are_left_out_and_too_many_are_said() -> None:
    line = curve("loss", [0, 1, 2], [1, 2, 3])
    some = Marks("worker lost", (-1.0, 0.0, 5.0), ("a", "b", "c"), "#000000", "cross")
    (shown,) = Plot("", "", "", (line,), x_scale="log", marks=(some,)).marked()
    assert (shown.x, shown.texts) == ((5.0,), ("c",))
    many = Marks("worker lost", (1.0,) * 400, ("",) * 400, "#000000", "cross")
    plot = Plot("", "", "", (line,), marks=(many,))
    assert len(plot.marked()[0].x) == MOST_MARKS == 300
    assert plot.notes == ("Of what happened beside the rounds the first 300 of a kind are drawn.",)
    with pytest.raises(InvalidInput):
        Marks("worker lost", (1.0,), (), "#000000", "cross")


def test_the_figure_names_every_kind_in_its_legend(runs: Any, tmp_path: Path) -> None:
    run = eventful(runs)
    drawn = next(path for path in draw(run, tmp_path / "svg", "svg") if path.stem == "accuracy").read_text()
    for name in ("worker lost", "worker joined", "checkpoint", "something else"):
        assert f">{name}</text>" in drawn


@pytest.mark.browser
def test_the_page_draws_a_line_a_mark_and_lists_the_events_folded(
    runs: Any, tmp_path: Path, visit: Callable[..., Any]
) -> None:
    run = eventful(runs)
    (tmp_path / "index.html").write_text(render("eventful", training_sections([run], View()), [run]))
    page = visit(tmp_path / "index.html")
    chart = page.locator("#training-digits-accuracy-2")  # against seconds
    assert chart.locator(".legendtext").all_text_contents() == [
        "IST, fixed pieces", "worker lost", "worker joined", "classes without a worker", "checkpoint", "something else",
    ]  # fmt: skip
    assert chart.evaluate("c => c._fullLayout.yaxis2.range") == [0, 1]
    assert chart.locator(".xy2 .scatterlayer .point").count() == 6
    chart.scroll_into_view_if_needed()
    at = chart.evaluate(
        "c => { const l = c._fullLayout, b = c.getBoundingClientRect();"
        " return [b.left + l.xaxis._offset + l.xaxis.l2p(0.3), b.top + l.yaxis2._offset + l.yaxis2.l2p(0.97)]; }"
    )
    page.mouse.move(*at)
    label = chart.locator(".hovertext")
    label.wait_for()
    assert label.text_content() == "worker losteventful, round 8: worker 2, was killed (signal 9)"
    listed = page.locator("article details", has_text="What happened beside the rounds (7)")
    assert not listed.locator("table").is_visible()
    listed.locator("summary").click()
    assert listed.locator("tbody tr").nth(0).inner_text().split("\t") == [
        "8", "0.3 s", "2", "lost", "was killed (signal 9)",
    ]  # fmt: skip
    assert listed.locator("tbody tr").nth(3).inner_text().split("\t")[3:] == [
        "<script>alert(1)</script>", "<b>$x$ %{x}",
    ]  # fmt: skip
