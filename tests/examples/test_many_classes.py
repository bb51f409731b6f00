"""The benchmark of many classes, in small: rows are made once, sizes are equal where they should be, rates are chosen
on held-out data."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import many_classes
from benchmarks.many_classes import WAYS, Cell, Course, Known, Missing, Options
from benchmarks.many_tasks import Files, data_of

CELL = Cell("next-word", 20, 2, "3", seeds=1)
OTHER = "class cut, gate worker"


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    random = np.random.default_rng(0)
    (tmp_path / "a.txt").write_text(" ".join(f"w{each}" for each in random.zipf(1.5, 4000) % 40))
    monkeypatch.setattr(many_classes, "CELLS", (CELL,))
    some = {name: many_classes.WAYS[name] for name in ("narrow", "class cut, gate worker")}
    monkeypatch.setattr(many_classes, "WAYS", some)
    return Options(samples=4000, units=3, rates=(0.01,), text=tmp_path / "a.txt", folder=tmp_path / "runs",
                   kept=tmp_path / "kept", processes=2)  # fmt: skip


def test_rows_are_made_in_processes_once_and_shown(options: Options, capsys: pytest.CaptureFixture[str]) -> None:
    many_classes.run(options)
    rows = many_classes.known(options)
    assert list(many_classes.wanted(options, rows)) == []
    assert {row["status"] for row in rows.values()} == {"finished", "refused"}
    many_classes.run(options)
    assert many_classes.known(options) == rows
    many_classes.show(options)
    shown = capsys.readouterr().out
    assert "next word, V = 20, n = 2, 3 epochs, at equal memory" in shown
    assert "| narrow | " in shown
    assert "| class cut, gate worker | `workers` must be at least 3, got 2 |" in shown


def test_several_labels_a_sample_are_kept_and_trained_on(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    tagged = [f"Package: p{at}\nTag: t{at % 3}, t{3 + at % 2}\n" for at in range(1000)]
    packages = options.folder.parent / "tags.txt"
    packages.write_text("\n".join(tagged))
    cell = Cell("tags", 5, 2, "3", seeds=1)
    monkeypatch.setattr(many_classes, "CELLS", (cell,))
    monkeypatch.setattr(many_classes, "WAYS", {"narrow": WAYS["narrow"], "class cut": WAYS["class cut"]})
    options = replace(options, packages=packages)
    many_classes.run(options)
    found = [row for row in many_classes.known(options).values() if row["way"] == "class cut" and row["samples"]]
    assert [row["status"] for row in found] == ["finished"]
    assert found[0]["sent"] == 0


def rows_for(options: Options, cell: Cell, way: str, costs: dict[str, tuple[int, int]], held_out: Any) -> Known:
    """The rows that a course asks for, answered: a + b w parameters, and what is held out by rate and seed."""
    found: Known = {}
    while True:
        try:
            Course(cell, way, options, found).found(cell.seeds)
        except Missing as missing:
            for row in missing.rows:
                base, each = costs[row.way]
                size = base + each * row.units
                seen = {"held_out": held_out(row), "parameters": size, "flops": size, "status": "finished"}
                found[row.key] = {**asdict(row), **seen}
        else:
            return found


def test_as_many_units_as_fit_and_the_best_rate(options: Options) -> None:
    """narrow has 20 + 31 * 3 = 113 numbers; of 5 + 11 w at most 9 units fit. The rate is the best under seed 0."""
    options = replace(options, rates=(0.001, 0.01, 0.1))
    many_classes.keep_data(CELL, options)
    costs = {"narrow": (20, 31), OTHER: (5, 11)}
    best = {0.001: 0.3, 0.01: 0.6, 0.1: 0.5}
    cell = replace(CELL, seeds=3)
    rows = rows_for(options, cell, OTHER, costs, lambda row: best[row.rate] if row.seed == 0 else 0.0)
    course = Course(cell, OTHER, options, rows)
    assert (course.units(0), course.tuned()) == (9, (0, 0.01))
    made = [json.loads(key) for key in rows if json.loads(key)["samples"]]
    assert sorted((row["rate"], row["seed"], row["units"]) for row in made) == [
        (0.001, 0, 9), (0.01, 0, 9), (0.01, 1, 9), (0.01, 2, 9), (0.1, 0, 9),
    ]  # fmt: skip


def test_real_tasks_are_made_of_files(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("alpha beta gamma delta " * 200)
    entry = "Package: lib{}-{}\nMaintainer: {}\nDescription: some {}\n"
    entries = (entry.format(at % 7, "xy"[at % 2], "AB"[at % 2], at) for at in range(60))
    (tmp_path / "packages.txt").write_text("\n".join(entries))
    files = Files(tmp_path / "text.txt", tmp_path / "packages.txt")
    spelt, inputs = data_of("spelling", files, 4, 50)
    assert (spelt.classes, spelt.samples, inputs) == (4, 50, 1000)
    people, inputs = data_of("maintainer", files, 2, 1000)
    assert (people.classes, people.samples, inputs) == (2, 54, 2000)
    assert people.test is not None
    tagged = [f"Package: p{at}\nTag: use::a{at % 2}, role::b,\n made-of::c{at % 20}\n" for at in range(60)]
    (tmp_path / "tags.txt").write_text("\n".join([*tagged, "Package: untagged\n"]))
    tags, _ = data_of("tags", Files(packages=tmp_path / "tags.txt"), 3, 1000)
    assert tags.test is not None
    marks = tags.targets.toarray()
    assert (marks.shape, tags.test.targets.shape) == ((54, 3), (6, 3))  # role::b and the commoner two, use::a0 and a1
    assert marks[:, 0].all()
    assert (marks[:, 1:].sum(1) == 1).all()
    words, inputs = data_of("next-word", files, 4, 30)
    assert (words.classes, words.samples) == (4, 30)
    assert all((words.features[:, place] // 1001 == place).all() for place in range(3))


def test_the_tables_of_the_page_are_those_of_the_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).parents[2]
    many_classes.show(Options(kept=root / "docs" / "measured" / "classes", folder=tmp_path))
    page = (root / "docs" / "classes.md").read_text()
    begin, end = "<!-- python -m benchmarks.many_classes show -->\n", "<!-- end of what it shows -->"
    assert page.split(begin)[1].split(end)[0] == capsys.readouterr().out


def test_the_figure_has_a_mark_for_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = tuple(Cell(task, 100, 2, "3", seeds=1) for task in many_classes.TASKS) * 2
    monkeypatch.setattr(many_classes, "CELLS", cells)
    monkeypatch.setattr(many_classes, "DRAWN", {"narrow": "k", "class cut": "g"})
    row = {"accuracy": 0.5, "classes": 100, "inputs": 50, "workers": 2, "units": 4}
    monkeypatch.setattr(Course, "found", lambda self, seeds: [row])
    many_classes.draw(Options(kept=tmp_path, folder=tmp_path, out=tmp_path))
    assert (tmp_path / "many-classes.png").stat().st_size > 10_000
