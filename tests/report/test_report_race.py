"""Seconds over a line: the model against a naive twin, times to a target, the plan beside the measured."""

import itertools
import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cases.records import rewrite, rewrite_rows
from isthmus.cli import main
from isthmus.errors import InvalidInput
from isthmus.line import Line
from isthmus.records import Run, read_run
from isthmus.report import model, train
from isthmus.report.model import COMMON, View, line_of, seconds
from isthmus.report.plots import Race, Section
from isthmus.report.race import ACCURACY, LOSS
from isthmus.strategies import IST

SLOW = Line.of("10mbit", "40ms", up="1mbit")


def section(*paths: Path, view: View | None = None) -> Section:
    (found,) = train.training_sections([read_run(path) for path in paths], view or View())
    return found


def race(*paths: Path, view: View | None = None) -> Race:
    found = section(*paths, view=view).race
    assert found is not None
    return found


def made(rows: list[dict[str, Any]], strategy: str = "ist") -> Run:
    return Run(Path("a"), "train", None, {"strategy": strategy}, {}, rows, {})


WORKERS = st.lists(st.tuples(st.floats(0, 10), st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 30)),
                   min_size=2, max_size=2)  # fmt: skip


@given(st.lists(WORKERS, max_size=6), st.booleans())
def test_the_seconds_of_a_run_are_those_of_its_slowest_and_busiest_workers(rounds: list[Any], overlaps: bool) -> None:
    names = ("compute_seconds", "sent_bytes", "received_bytes", "hops")
    run = made([dict(zip(names, map(list, zip(*workers, strict=True)), strict=True)) for workers in rounds])
    expected, clock = [], 0.0
    for workers in rounds:
        computing, sent, received, hops = (max(column) for column in zip(*workers, strict=True))
        moving = 1514 / 1448 * max(sent * 8 / 1e6, received * 8 / 1e7) + 2 * hops * 0.04  # with TCP's headers
        clock += max(computing, moving) if overlaps else computing + moving
        expected.append(clock)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IST, "overlaps", overlaps)
        assert seconds(run, SLOW) == pytest.approx(expected, rel=1e-12, abs=6e-6)  # computing in whole microseconds


def test_a_row_that_does_not_say_takes_no_time_and_hops_that_were_never_counted_are_said(runs: Any) -> None:
    assert seconds(made([{}, {"compute_seconds": [1.0, None], "hops": None}]), SLOW) == [0.0, 1.0]
    path = runs.training("old")
    assert not any("hops" in warning for warning in section(path).warnings)
    rewrite_rows(path, [{key: value for key, value in row.items() if key != "hops"} for row in read_run(path).rows])
    assert any("before hops were counted" in warning for warning in section(path).warnings)


def test_the_first_line_is_the_one_asked_for_or_that_of_the_runs_or_a_common_one(runs: Any) -> None:
    plain, slow, other = (
        read_run(runs.training(f"r{at}", line=line)) for at, line in enumerate((None, SLOW, Line.of("1gbit")))
    )
    assert [line_of(run) for run in (plain, slow, other)] == [None, SLOW, Line.of("1gbit")]
    assert View().first([plain, slow]) == SLOW
    assert View().first([plain]) == View().first([slow, other]) == COMMON
    assert View(Line.of("3mbit")).first([slow]) == Line.of("3mbit")


@pytest.mark.parametrize("record", [{"down": "fast"}, {"down": -1}, {"speed": 3}, {}, [1], "100mbit"])
def test_whatever_an_environment_says_of_its_line_the_page_is_drawn(record: Any) -> None:
    run = made([])
    assert line_of(Run(run.path, run.kind, None, {}, {"line": record}, [], {})) in (None, Line())


def test_measured_points_stand_beside_the_modelled_curve_and_lines_are_never_averaged(runs: Any) -> None:
    """Two seeds over two lines each are one modelled curve, two sets of points, and two curves of own seconds."""
    lines = (Line.of("100mbit", "10ms"), SLOW)
    pairs = [(at, seed) for at in range(2) for seed in range(2)]
    paths = [runs.training(f"r{at}-{seed}", line=lines[at], seed=seed) for at, seed in pairs]
    for path in paths[2:]:
        rewrite_rows(path, [row | {"seconds": 100 * row["seconds"]} for row in read_run(path).rows])
    found = section(*paths, view=View(Line.of("1gbit")))
    assert found.race is not None
    (plot,) = found.race.figure.panels
    assert [one.name for one in plot.series] == ["IST, fixed pieces", "measured over 100 Mbit/s, 10 ms",
                                                 f"measured over {SLOW.shown}"]  # fmt: skip
    own = [[row["seconds"] for row in read_run(path).rows[4::4]] for path in paths]
    means = [[statistics.fmean(pair) for pair in zip(*own[at : at + 2], strict=True)] for at in (0, 2)]
    assert plot.series[1].x == pytest.approx(means[0])
    assert plot.series[2].x == pytest.approx(means[1])
    modelled = zip(*(seconds(read_run(path), Line.of("1gbit"))[::4] for path in paths), strict=True)
    assert plot.series[0].x == pytest.approx([statistics.fmean(row) for row in modelled], rel=1e-12)
    (costs,) = [one for one in found.more if one.name == "accuracy"]
    clock = next(one for one in costs.panels if one.title == "against seconds")
    assert [one.x[-1] for one in clock.series] == pytest.approx([means[0][-1], means[1][-1]])


def test_the_first_picture_comes_first_and_no_curve_is_there_four_times(runs: Any) -> None:
    found = section(runs.training("a"), runs.training("b", "local-sgd"))
    assert [(one.name, len(one.panels)) for one in found.pictures] == [
        ("time", 1), ("traffic", 1), ("accuracy", 3), ("loss", 4), ("train-loss", 1), ("costs", 4)
    ]  # fmt: skip
    assert len(found.figures) == 1  # beside the first picture; all others are folded away


def test_where_there_is_no_accuracy_the_loss_is_the_first_picture(runs: Any) -> None:
    paths = [runs.training(name, name) for name in ("ist", "narrow")]
    for path in paths:
        rewrite_rows(path, [row | {"test_accuracy": None} for row in read_run(path).rows])
    found = section(*paths)
    assert found.race is not None
    assert [one.name for one in found.pictures] == ["time", "traffic", "loss", "train-loss", "costs"]
    assert found.race.figure.title == "Test loss against seconds"
    assert found.race.table is not None
    lowest = [min(row["test_loss"] for row in read_run(path).rows if row["test_loss"]) for path in paths]
    target = float(found.race.table.title.rpartition(" ")[2])
    assert max(lowest) <= target < max(lowest) + 0.01
    assert all(cell != "not reached" for row in found.race.table.rows for cell in row)


def test_the_target_is_a_plain_number_that_all_reach() -> None:
    assert ACCURACY.plain_below([0.973, 0.886, 0.99]) == 0.88
    assert ACCURACY.plain_below([0.57]) == 0.57  # 100 * 0.57 is a little less than 57
    assert LOSS.plain_below([0.3123, 0.25]) == 0.32
    assert LOSS.plain_below([31.2]) == 32
    assert LOSS.plain_below([0.32]) == 0.32


def test_times_to_a_target_are_those_of_each_seed_with_students_interval(runs: Any) -> None:
    chosen = ("ist", "narrow")
    paths = {name: [runs.training(f"{name}-{seed}", name, seed=seed) for seed in range(3)] for name in chosen}
    for scale, path in zip((1.0, 1.1, 1.4), paths["ist"], strict=True):
        rows = read_run(path).rows
        slowed = [[scale * each for each in row["compute_seconds"]] for row in rows]
        rewrite_rows(path, [row | {"compute_seconds": each} for row, each in zip(rows, slowed, strict=True)])
    once = runs.training("local-sgd", "local-sgd")
    never = runs.training("data-parallel", "data-parallel")
    rewrite_rows(never, [row | {"test_accuracy": 0.1} for row in read_run(never).rows])
    some = paths["narrow"][0]
    rewrite_rows(some, [row | {"test_accuracy": 0.1} for row in read_run(some).rows])
    table = race(*itertools.chain(*paths.values()), once, never, view=View(SLOW, 0.85)).table
    assert table is not None
    assert table.title == "To a test accuracy of 85 %"

    taken, reached = [], []
    for run in map(read_run, paths["ist"]):
        at = next(at for at, row in enumerate(run.rows) if (row["test_accuracy"] or 0) >= 0.85)
        taken.append(seconds(run, SLOW)[at])
        reached.append(run.rows[at]["round"])
    low, high = stats.t.interval(0.95, 2, statistics.fmean(taken), stats.sem(taken))
    ist, narrow, local, parallel = table.rows
    assert ist[1:3] == ("3 of 3", f"{statistics.fmean(reached):.4g}")
    assert ist[4] == f"{statistics.fmean(taken):,.0f} s ± {(high - low) / 2:.3g}"
    assert narrow[1] == "2 of 3"
    assert local[1] == "1 of 1"
    assert local[4].endswith(" s, one seed")
    assert parallel[1:] == ("0 of 1", "–", "–", "not reached", "–", "–")
    assert sorted([ist[5], narrow[5], local[5]])[0] == "1 ×"
    assert local[6] == "1 ×"


def test_a_seed_that_was_run_over_two_lines_is_one_seed(runs: Any) -> None:
    paths = [runs.training(f"r{at}", line=line) for at, line in enumerate((SLOW, COMMON))]
    table = race(*paths, view=View(target=0.5)).table
    assert table is not None
    assert table.rows[0][1] == "1 of 1"
    assert table.rows[0][4].endswith(", one seed")


def test_the_plan_stands_beside_what_was_measured(runs: Any) -> None:
    path = runs.training("a", rounds=8)
    rows = read_run(path).rows
    for at, row in enumerate(rows):
        row |= {"sent_bytes": [at, 5 * at, 0, 0]}
        row |= {"compute_seconds": [0.5, 1.0, 0, 0], "communicate_seconds": [1, 1, 9, 0]}
    rewrite_rows(path, rows)
    plan = {"memory_bytes": [4e6, 2e6], "round_sent_bytes": [10, 20, 0, 0], "round_seconds": 10.0}
    (table,) = [one for one in section(rewrite(path, "summary.json", planned=plan)).tables if "Planned" in one.title]
    assert table.rows == (
        ("IST, fixed pieces", "memory", "4 MB", "3.78 MB", "-5.5 %"),
        ("IST, fixed pieces", "sent a round", "20 B", "25 B", "+25.0 %"),  # the mean of 5 * 2 ... 5 * 8
        ("IST, fixed pieces", "seconds a round", "10 s", "9 s", "-10.0 %"),
    )
    for nothing in (None, 3, {}, {"memory_bytes": None}):
        rewrite(path, "summary.json", planned=nothing)
        assert not any("Planned" in one.title for one in section(path).tables)


def test_the_command_draws_the_line_and_the_target_asked_for(runs: Any, tmp_path: Path) -> None:
    run = str(runs.training("a", rounds=8))
    asked = ["--rate", "20mbit", "--up", "5mbit", "--latency", "30ms", "--target", "0.6"]
    main(["report", run, "--out", str(tmp_path / "out"), *asked])
    page = (tmp_path / "out" / "index.html").read_text()
    assert "Drawn for 20 Mbit/s, up 5 Mbit/s, 30 ms." in page
    assert "To a test accuracy of 60 %" in page


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--up", "5mbit"], "`up` has no effect without `rate`"),
        (["--rate", "fast"], "`rate` must be bits a second, as 100mbit"),
        (["--target", "0"], "`target` must be"),
    ],
)
def test_a_line_or_target_that_cannot_be_is_refused_in_one_line(
    flags: list[str], message: str, runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["report", str(runs.training("a", rounds=1)), "--out", str(tmp_path / "out"), *flags])
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert said.count("\n") == 1
    assert message in said
    assert not (tmp_path / "out").exists()


def test_what_the_page_computes_from_is_plain_json_however_large_the_numbers(runs: Any) -> None:
    path = runs.training("a", rounds=4)
    rewrite_rows(path, [row | {"compute_seconds": [1e308], "sent_bytes": [1e308]} for row in read_run(path).rows])
    found = section(path, runs.training("b", "narrow", rounds=4)).race
    assert found is not None
    json.dumps(found.courses, allow_nan=False)
    assert not any(math.isinf(x) for one in found.figure.panels[0].series for x in one.x)


def test_a_target_is_a_positive_number() -> None:
    with pytest.raises(InvalidInput, match="`target` must be"):
        View(target=math.nan)


def test_a_strategy_that_is_not_known_overlaps_nothing() -> None:
    assert model.overlaps(made([], "of an older version")) is False
