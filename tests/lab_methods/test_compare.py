"""Comparisons and sweeps, through the library and through the command."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from isthmus.cli import main
from isthmus.errors import InvalidInput, RecordError
from isthmus.lab.compare import ROSTER, Comparison, build_problem, cells_of, compare_one, figure_rows, run_cells
from isthmus.lab.compare import sweep as sweep_module
from isthmus.records import read_run
from isthmus.report import write_report

SMALL = Comparison(
    methods=("gd", "diana", "marina-perm-k", "ist", "anchored"), dim=12, workers=3, rows=20, rounds=600, seeds=3
)


@pytest.mark.parametrize("name", ROSTER)
@pytest.mark.parametrize("problem", ["gaussian", "random", "logistic"])
def test_every_method_of_the_roster_can_be_compared(name, problem):
    settings = replace(SMALL, problem=problem, ridge=0.1, rounds=40, seeds=2, heterogeneity=0.5)
    result = compare_one(settings, name)
    json.dumps(result, allow_nan=False)
    assert result["status"] in ("reached", "slow", "stalled")
    assert result["level"] < 1.5
    assert all(verdict["holds"] is not False for verdict in result["verdicts"])


def test_what_the_paper_says_and_what_the_anchor_changes():
    """Compressed gradients reach the target, IST stalls at its exact level, anchored IST reaches it."""
    results = {one["name"]: one for one in run_cells(cells_of(replace(SMALL, seeds=12)))}
    assert {name: one["status"] for name, one in results.items()} == {
        "gd": "reached", "diana": "reached", "marina-perm-k": "reached", "ist": "stalled", "anchored": "reached",
    }  # fmt: skip
    assert results["ist"]["stall_level"] > 0.01
    assert results["ist"]["level"] >= 0.9 * results["ist"]["stall_level"]
    assert results["anchored"]["memory"] < results["gd"]["memory"] < results["diana"]["memory"]
    for one in results.values():
        if one["status"] == "reached":
            assert one["bits"] == pytest.approx(one["up"] + one["down"])
            assert one["level"] <= 1e-6


def judged(name, **changes):
    one = compare_one(replace(SMALL, **{"seeds": 2, **changes}), name)
    return one["status"], one["status_from"], one["end"]


def test_slow_stalled_and_diverged_are_three_verdicts():
    """ProxSkip needs thousands of rounds and gets there; IST ends where its exact dynamics say."""
    status, source, end = judged("proxskip", rounds=100)
    assert (status, source) == ("slow", "exact")
    assert end < 1e-20
    assert judged("ef21", rounds=20) == ("slow", "theorem", None)  # Top-K has no exact moments
    assert judged("proxskip", rounds=20_000)[0] == "reached"
    status, source, end = judged("ist")
    assert (status, source) == ("stalled", "exact")
    assert 0.01 < end < 1.0
    assert judged("ist", rounds=20)[0] == "stalled"  # told by the exact end, however few the rounds
    assert judged("anchored", rounds=8) == ("slow", "exact", 0.0)
    assert judged("anchored", step_factors=(30.0,))[0] == "diverged"
    soon = judged("ist", rounds=2, step_factors=(30.0,))  # before the gap has left all bounds
    assert soon[:2] == ("diverged", "exact")
    assert judged("diana", rounds=20)[:2] == ("slow", "exact")
    assert judged("dcgd-natural", rounds=20, problem="random")[1] == "measured"  # nothing known but its last rounds


def test_heavy_tails_are_said_with_the_result():
    assert compare_one(replace(SMALL, seeds=3), "dcgd")["tail_index"] is None
    index = compare_one(replace(SMALL, seeds=40, rounds=60, problem="random", keep=0.1), "block-descent")["tail_index"]
    assert index > 0.0


def test_several_steps_are_tried_and_the_cheapest_is_shown():
    tried = compare_one(replace(SMALL, step_factors=(0.25, 1.0, 100.0)), "diana")
    alone = {factor: compare_one(replace(SMALL, step_factors=(factor,)), "diana") for factor in (0.25, 1.0, 100.0)}
    assert alone[100.0]["status"] == "diverged"
    assert alone[100.0]["above_limit"]
    assert not alone[1.0]["above_limit"]
    assert tried["bits"] == min(alone[0.25]["bits"] or np.inf, alone[1.0]["bits"])
    assert [one["factor"] for one in tried["tried"]] == [0.25, 1.0, 100.0]


def test_a_sweep_interrupted_and_resumed_gives_the_same_bits(tmp_path, monkeypatch):
    settings = replace(SMALL, methods=("gd", "anchored"), rounds=60)
    cells = cells_of(settings, "heterogeneity", (0.0, 0.5))
    whole = run_cells(cells, tmp_path / "whole")
    computed = []

    def interrupted(settings, name):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(name)
        return compare_one(settings, name)

    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "compare_one", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_cells(cells, tmp_path / "parts")
    assert len(list((tmp_path / "parts").glob("*.json"))) == 2
    with monkeypatch.context() as patch:
        patch.setattr(sweep_module, "compare_one", lambda s, name: computed.append(name) or compare_one(s, name))
        resumed = run_cells(cells, tmp_path / "parts")
    assert len(computed) == len(cells)  # nothing was computed twice
    assert json.dumps(resumed) == json.dumps(whole)
    files = [sorted(path.read_bytes() for path in (tmp_path / name).iterdir()) for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_processes_do_not_change_a_bit():
    settings = replace(SMALL, methods=("gd", "diana", "anchored"), rounds=50)
    assert json.dumps(run_cells(cells_of(settings), processes=2)) == json.dumps(run_cells(cells_of(settings)))


def test_a_cell_is_named_by_everything_it_depends_on():
    keys = {cell.key for cell in cells_of(SMALL)}
    assert len(keys) == len(SMALL.methods)
    assert keys == {cell.key for cell in cells_of(replace(SMALL, methods=tuple(reversed(SMALL.methods))))}
    for change in ({"seed": 1}, {"rounds": 7}, {"target": 1e-5}, {"x_axis": "work"}, {"value_bits": 64}):
        assert keys.isdisjoint(cell.key for cell in cells_of(replace(SMALL, **change)))


def test_a_broken_cell_is_named(tmp_path):
    (cell,) = cells_of(replace(SMALL, methods=("gd",)))
    (tmp_path / f"{cell.key}.json").write_text("{not json")
    with pytest.raises(RecordError, match=f"{cell.key}.json is not a cell of a sweep"):
        run_cells([cell], tmp_path)


def test_the_best_step_is_the_exact_one_and_those_without_say_so(capsys, tmp_path):
    small = replace(SMALL, dim=4, workers=2)  # the law of a best step needs no size
    settings = replace(small, methods=("gd", "diana", "anchored", "ef21"), step="best", rounds=900)
    gd, diana, anchored, ef21 = run_cells(cells_of(settings))
    problem = build_problem(settings)
    mu, L = problem.spectrum[[0, -1]]
    assert gd["stepsize"] == pytest.approx(2 / (L + mu), rel=1e-3)
    assert [one["step_from"] for one in (gd, diana, anchored, ef21)] == ["best", "best", "best", "theory"]
    assert diana["stepsize"] > 2 * diana["limit"]  # far beyond its theorem's
    (plain,) = run_cells(cells_of(replace(settings, methods=("diana",), step="theory")))
    assert diana["rounds"] < plain["rounds"]
    flags = ["--dim", "6", "--workers", "2", "--rows", "12", "--rounds", "50", "--seeds", "2", "--processes", "1"]
    main(["compare", *flags, "--methods", "gd", "ef21", "--step", "best", "--out", str(tmp_path / "run")])
    assert "at the theory's step, having no exact best one: EF21, Top-K" in " ".join(capsys.readouterr().out.split())


def test_data_is_split_by_target_as_much_as_asked_for():
    spread = []
    for heterogeneity in (0.0, 0.5, 1.0):
        problem = build_problem(Comparison(problem="data", data="diabetes", workers=4, heterogeneity=heterogeneity))
        spread.append(np.std([y[:count].mean() for y, count in
                              zip(problem.samples.targets, problem.samples.counts, strict=True)]))  # fmt: skip
    assert spread[0] < 0.5 * spread[1] < 0.5 * spread[2]


def test_the_figure_has_what_its_panels_need():
    rows = figure_rows(run_cells(cells_of(replace(SMALL, rounds=300))))
    cost = {row["series"] for row in rows if row["panel"] == "cost"}
    assert {"gradient descent", "anchored IST"} <= cost
    assert "IST" not in cost
    dashed = {row["series"] for row in rows if row["style"] == "dashed"}
    assert {"anchored IST: exact", "gradient descent: bound"} <= dashed
    assert all(np.isfinite([row["x"], row["y"]]).all() for row in rows)


def test_the_command_writes_a_run_that_the_report_shows(tmp_path, capsys):
    flags = ["--dim", "8", "--workers", "2", "--rows", "12", "--rounds", "200", "--seeds", "2", "--processes", "1"]
    methods = ["--methods", "gd", "ist", "anchored"]
    main(["compare", *flags, *methods, "--out", str(tmp_path / "run"), "--x-axis", "work"])
    assert "stalled at" in capsys.readouterr().out
    run = read_run(tmp_path / "run")
    assert (run.kind, run.status) == ("figure", "finished")
    assert [one["name"] for one in run.summary["results"]] == ["gd", "ist", "anchored"]
    page = write_report([tmp_path / "run"], tmp_path / "report")
    assert "anchored IST" in page.read_text(encoding="utf-8")


def test_the_command_sweeps_and_resumes(tmp_path, capsys):
    flags = ["--dim", "8", "--workers", "2", "--rows", "12", "--rounds", "900", "--seeds", "2", "--processes", "1"]
    flags += ["--methods", "gd", "anchored", "--over", "period", "--values", "2", "5", "--cells", str(tmp_path / "c")]
    main(["compare", *flags, "--json"])
    assert len(json.loads(capsys.readouterr().out)["results"]) == 4
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").iterdir()}
    main(["compare", *flags, "--out", str(tmp_path / "run")])
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "c").iterdir()} == kept
    assert {row["x"] for row in read_run(tmp_path / "run").rows} == {2.0, 5.0}


def test_ctrl_c_ends_the_command_at_once_and_keeps_what_is_done(tmp_path):
    flags = ["--rounds", "1000000", "--processes", "2"]  # gradient descent is done at once, DCGD stalls and goes on
    cells = tmp_path / "cells"
    started = subprocess.Popen(
        [sys.executable, "-m", "isthmus", "compare", *flags, "--methods", "gd", "dcgd", "--cells", str(cells)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    for _ in range(600):
        if list(cells.glob("*.json")):
            break
        time.sleep(0.1)
    time.sleep(1.0)
    os.killpg(started.pid, signal.SIGINT)
    _, said = started.communicate(timeout=30)
    assert started.returncode == 130
    *progress, last = said.splitlines()
    assert all(line.startswith("comparing: 1/2 (gd), ") for line in progress)  # the helpers say nothing of their own
    assert last == "isthmus: interrupted"
    assert [json.loads(path.read_text())["name"] for path in cells.iterdir()] == ["gd"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--methods", "dianna"], "did you mean 'diana'?"),
        (["--step", "bset"], "`step` must be one of theory, best, got 'bset'; did you mean 'best'?"),
        (["--target", "0"], "`target` must be greater than 0.0, got 0.0"),
        (["--keep", "1.5"], "`keep` must be at most 1.0, got 1.5"),
        (["--problem", "logistic", "--data", "breast-cancer"], "`ridge` must be greater than 0.0, got 0.0"),
        (["--problem", "logistic", "--data", "digits", "--ridge", "1"], "must have two classes for logistic, got 10"),
        (["--problem", "random", "--batch-size", "2"], "must keep its samples for minibatches"),
        (["--over", "period"], "`values` must hold at least one number"),
        (["--over", "colour", "--values", "1"], "`over` must be one of step_factors, workers"),
        (["--over", "workers", "--values", "2.5"], "`workers` must be an integer, got 2.5"),
        (["--processes", "0"], "`processes` must be at least 1, got 0"),
        (["--problem", "data", "--data", "libsvm:nowhere"], "nowhere: cannot be read"),
    ],
)
def test_bad_input_is_one_line_and_code_2(flags, said, capsys):
    alone = [] if "--processes" in flags else ["--processes", "1"]
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--rounds", "10", "--seeds", "2", *alone, *flags])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize(
    ("curvature", "said"),
    [(0.0, "must have some curvature, got an f that is the same everywhere"), (1.0, "must not start at its minimiser")],
)
def test_where_nothing_is_left_to_do_nothing_is_compared(curvature, said, processes, tmp_path, capsys):
    file = tmp_path / "f.npz"
    np.savez(file, L=curvature * np.stack([np.eye(2)] * 2), b=np.zeros((2, 2)))
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--problem", str(file), "--rounds", "5", "--processes", processes, "--methods", "gd", "diana"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_values_are_checked_at_construction():
    for change, said in (
        ({"step_factors": ()}, "`step_factors` must hold at least one number"),
        ({"methods": ()}, "`methods` must name at least one method"),
        ({"heterogeneity": 1.5, "problem": "random"}, "`heterogeneity` must be at most 1.0"),
        ({"scale": "wide"}, "`scale` must be one of free, unbiased"),
    ):
        with pytest.raises(InvalidInput) as caught:
            replace(SMALL, **change)
        assert said in str(caught.value)
