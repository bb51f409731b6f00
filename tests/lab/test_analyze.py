"""The command: a run folder whole or not at all, JSON for machines, one line for bad input."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from isthmus.cli import main
from isthmus.lab import IST, Dealt, ImportanceSampling
from isthmus.lab.settings import Settings, build_problem, build_sketch
from isthmus.lab.theory.fixed_points import fixed_point
from isthmus.records import read_run

SMALL = ["analyze", "--dim", "6", "--workers", "3", "--rounds", "8", "--seeds", "16"]


def test_writes_the_run_that_the_report_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*SMALL, "--out", str(tmp_path / "run")])
    run = read_run(tmp_path / "run")
    assert run.kind == "analyze"
    assert run.status == "finished"
    assert [row["round"] for row in run.rows] == list(range(9))
    assert {"mean_gap", "gap", "simulated", "low", "high", "distance"} <= set(run.rows[0])
    for row in run.rows:
        assert row["low"] <= row["simulated"] <= row["high"]
        assert row["mean_gap"] <= row["gap"] * (1 + 1e-12)
    summary = run.summary
    assert summary["fixed_point_relative_gap"] == pytest.approx(summary["fixed_point_gap"] / summary["initial_gap"])
    assert {"name", "value", "meaning"} <= set(summary["constants"][0])
    assert {"statement", "holds", "verdict", "number"} <= set(summary["verdicts"][0])
    assert run.config["stepsize"] > 0
    shown = capsys.readouterr().out
    assert "theorem 1 applies: no" in shown
    assert "the fixed point keeps" in shown


def test_json_is_one_object(capsys: pytest.CaptureFixture[str]) -> None:
    main([*SMALL, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["summary"]["status"] == "finished"
    assert len(found["rows"]) == 9


def test_real_data(capsys: pytest.CaptureFixture[str]) -> None:
    main(["analyze", "--problem", "data", "--data", "breast-cancer", "--rounds", "5", "--seeds", "8", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["dim"] == 30
    assert 0 < found["summary"]["fixed_point_relative_gap"] < 1


def test_a_diverging_step_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*SMALL, "--stepsize", "50", "--out", str(tmp_path / "run")])
    run = read_run(tmp_path / "run")
    assert run.status == "diverged"
    assert run.summary["diverged_at"] >= 1
    assert run.rows[-1]["simulated"] is None
    assert "diverged at round" in capsys.readouterr().out


def test_a_law_is_a_sketch(capsys: pytest.CaptureFixture[str]) -> None:
    """The command finds the fixed point that theory gives for the law's own sketch."""
    main([*SMALL, "--sketch", "dealt", "--law", "rotated", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["law"] == "rotated"
    settings = Settings(dim=6, workers=3, sketch="dealt", law="rotated")
    problem = build_problem(settings)
    method = IST(Dealt("rotated", 3, 6), found["config"]["stepsize"])
    expected = problem.value(fixed_point(problem, method)) - problem.optimal_value
    assert found["summary"]["fixed_point_gap"] == pytest.approx(expected)
    last = found["rows"][-1]
    assert abs(last["simulated"] - last["gap"]) <= 2 * (last["high"] - last["low"])  # nearly eight standard errors


OWN_LAW = """
from dataclasses import dataclass
import numpy as np
from isthmus.partitions import Law

@dataclass(frozen=True)
class Halves(Law):
    name = "halves"
    label = "halves"
    meaning = "every worker holds half of the units"
    def units(self, axis, workers, seed, round):
        return [np.arange(w, w + axis.size // 2) % axis.size for w in range(workers)]
"""


def test_a_law_of_ones_own_is_a_sketch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "halves.py").write_text(OWN_LAW)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    main([*SMALL, "--sketch", "dealt", "--law", "halves:Halves", "--out", "run"])
    assert read_run(tmp_path / "run").config["law"] == "halves:Halves"
    settings = Settings(dim=6, workers=3, sketch="dealt", law="halves:Halves")
    masks = build_sketch(settings, build_problem(settings)).sample(np.random.default_rng(0)) > 0
    assert masks.sum(axis=1).tolist() == [3, 3, 3]
    assert "run written to run" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "0"], "`workers` must be at least 1, got 0"),
        (["--rounds", "0"], "`rounds` must be at least 1, got 0"),
        (["--stepsize", "-1"], "`stepsize` must be greater than 0.0, got -1.0"),
        (["--scale", "big"], "`scale` must be n, sqrt or a number, got 'big'"),
        (["--scale", "-2"], "`scale` must be greater than 0.0, got -2.0"),
        (["--sketch", "permutations"], "did you mean 'permutation'"),
        (["--law", "rotated"], "`law` has no effect with sketch 'permutation': it is of sketch 'dealt'"),
        (["--sketch", "dealt", "--law", "rotatd"], "did you mean 'rotated'"),
        (["--sketch", "dealt", "--law", "nowhere:Law"], "no module 'nowhere'"),
        (["--sketch", "dealt", "--law", "math:sqrt"], "`law` 'math:sqrt' fails"),
        (["--problem", "data", "--data", "brest-cancer"], "did you mean 'breast-cancer'"),
        (["--problem", "data", "--workers", "600"], "`workers` must be at most the number of samples"),
        (["--local-steps", "1.5"], "`local_steps` must be a whole number or inf, got 1.5"),
    ],
)
def test_bad_input_is_one_line(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["analyze", *flags])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    "flags",
    [
        ["--sketch", "scaled"],
        ["--sketch", "scaled-homogeneous", "--workers", "2"],
        ["--sketch", "random-sparsification", "--size", "3"],
        ["--sketch", "bernoulli", "--probability", "0.4"],
        ["--sketch", "importance", "--probability", "0.7", "--merge", "model"],
        ["--scale", "1", "--local-steps", "inf"],
        ["--sketch", "identity", "--homogeneous"],
        ["--workers", "9"],
    ],
)
def test_every_sketch(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    workers = [] if "--workers" in flags else ["--workers", "6"]
    main(["analyze", "--dim", "6", *workers, "--rounds", "5", "--seeds", "400", "--json", *flags])
    found = json.loads(capsys.readouterr().out)
    assert found["summary"]["dynamics"].startswith("exact")
    for row in found["rows"][1:]:
        center, half = row["simulated"], row["high"] - row["simulated"]
        assert abs(row["gap"] - center) <= 3 * half + 1e-9 * center


def test_a_singular_problem_says_what_still_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "flat.svm"  # two equal columns
    data.write_text("".join(f"{k % 3} 1:{k} 2:{k} 3:{(k * k) % 7}\n" for k in range(12)))
    flags = ["--problem", "data", "--data", f"libsvm:{data}", "--workers", "2", "--rounds", "30", "--seeds", "200"]
    main(["analyze", *flags, "--json"])
    summary = json.loads(capsys.readouterr().out)["summary"]
    verdicts = {entry["statement"]: entry for entry in summary["verdicts"]}
    assert verdicts["one minimiser"]["holds"] is False
    assert "Lbar is singular" in verdicts["one minimiser"]["verdict"]
    assert summary["status"] == "finished"
    assert 0 <= summary["fixed_point_relative_gap"] < 1


def test_theorems_settling_and_readouts(capsys: pytest.CaptureFixture[str]) -> None:
    scaled = ["--sketch", "scaled", "--workers", "6", "--stepsize", "0.5"]
    main(["analyze", "--dim", "6", *scaled, "--rounds", "60", "--json"])
    found = json.loads(capsys.readouterr().out)
    summary = found["summary"]
    assert summary["stationary_gap"] == pytest.approx(summary["final_gap"], rel=1e-6)
    bounds = {entry["name"]: entry for entry in summary["bounds"]}
    for name in ("theorem 2 (printed)", "theorem 2 (beta-free)", "SGD on f~"):
        assert bounds[name]["applies"]
        assert bounds[name]["worst_ratio"] <= 1
    assert "b is not 0" in bounds["theorem 1 (16)"]["why"]
    constants = {entry["name"]: entry["value"] for entry in summary["constants"]}
    assert constants["gamma*"] == pytest.approx(2.0)
    main(["analyze", "--dim", "6", "--workers", "3", "--rounds", "5"])
    shown = capsys.readouterr().out
    assert "theorems as bounds" in shown
    assert "settles: yes" in shown
    assert "c y" in shown


def test_importance_marginals_have_the_asked_mean(capsys: pytest.CaptureFixture[str]) -> None:
    problem = build_problem(Settings(dim=8, workers=3))
    for probability in (0.2, 0.9, 1.0):
        sketch = build_sketch(Settings(dim=8, workers=3, sketch="importance", probability=probability), problem)
        assert isinstance(sketch, ImportanceSampling)
        assert sketch.marginals.mean() == pytest.approx(probability)


def test_settings_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.toml"
    file.write_text("dim = 6\nworkers = 2\nlocal-steps = 2\nscale = 1\nrounds = 3\nseeds = 4\nhomogeneous = true\n")
    main(["analyze", "--config", str(file), "--workers", "3", "--json"])
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["dim"], config["workers"], config["local_steps"], config["scale"]) == (6, 3, 2, "1")
    assert config["homogeneous"] is True


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("worker = 3", "did you mean 'workers'"),
        ('dim = "six"', "`dim` in"),
        ("dim = true", "must be of type int, got True"),
        ("dim = ", "not TOML"),
        ("workers = 0", "`workers` must be at least 1, got 0"),
    ],
)
def test_a_bad_file_is_one_line(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.toml").write_text(content)
    with pytest.raises(SystemExit) as stopped:
        main(["analyze", "--config", str(tmp_path / "a.toml")])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_interrupted_leaves_no_run(tmp_path: Path) -> None:
    flags = ["analyze", "--dim", "200", "--workers", "10", "--rounds", "20000", "--out", "run"]
    code = f"from isthmus.cli import main; main({flags})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    time.sleep(6.0)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    *progress, last = said.splitlines()
    assert all(re.match(r"exact dynamics: \d+/20000, ", line) for line in progress)
    assert last == "isthmus: interrupted"
    assert not (tmp_path / "run").exists()


def test_the_command_is_a_process_without_torch() -> None:
    code = (
        "import sys; from isthmus.cli import main; main(['analyze', '--dim', '4', '--rounds', '2', '--seeds', '2', "
        "'--json']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["status"] == "finished"
