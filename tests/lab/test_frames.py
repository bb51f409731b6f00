"""Results as pandas tables: the same numbers, and one line where pandas is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from isthmus.lab import DCGD, IST, Budget, Permutation, Quadratic, RandK, measure, rates, simulate, theory
from isthmus.lab.analyze import analyze
from isthmus.lab.settings import Settings
from isthmus.lab.theory import theorem1_contraction
from isthmus.records import RunWriter, read_run

PROBLEM = Quadratic.gaussian(2, 4, 0)
METHOD = IST(Permutation(2, 4), 0.01)


def test_courses_have_a_row_a_round() -> None:
    exact = theory.dynamics(PROBLEM, METHOD, np.ones(4), 5)
    table = exact.to_frame()
    assert table.index.name == "round"
    assert list(table.columns) == ["gap", "bias", "variance", "gap_error"]
    np.testing.assert_array_equal(table["gap"], exact.gap)
    run = simulate(PROBLEM, METHOD, np.ones(4), 5, seeds=3)
    table = run.to_frame()
    assert list(table.index) == list(range(6))
    np.testing.assert_array_equal(table["mean_gap"], run.mean_gap)
    np.testing.assert_array_equal(table["highest"], run.gap.max(axis=0))
    diagonal = theory.coordinate_dynamics(np.ones(3), np.ones(3), IST(Permutation(3, 3), 0.1), np.zeros(3), 2)
    np.testing.assert_array_equal(diagonal.to_frame()["bias"], diagonal.bias)


def test_bounds_stand_beside_what_they_bound() -> None:
    bound = theorem1_contraction(PROBLEM, METHOD, np.ones(4), 3)
    table = bound.to_frame()
    assert list(table.columns) == ["upper bound of E|x - x*|^2_Lbar", "exact"]
    np.testing.assert_array_equal(table["exact"], bound.exact)
    setting = rates.Setting(PROBLEM, np.ones(4), 3)
    method = rates.with_default_stepsize(DCGD(RandK(4, 2), 1.0), setting)
    (of_method,) = rates.bounds(method, setting)
    assert list(of_method.to_frame().columns) == [f"upper bound of {of_method.measure}"]
    table = measure(PROBLEM, method, np.ones(4), Budget(3, 4), {"gap", "distance"}).to_frame()
    assert list(table.columns) == ["gap", "distance", "up", "down", "bits", "bits_total", "work", "gradients"]
    assert table["up"].tolist() == [0, 128, 256, 384]  # two numbers of 64 bits a round


def test_rows_of_runs(tmp_path: Path) -> None:
    found = analyze(Settings(dim=4, workers=2, rounds=3, seeds=2))
    table = found.to_frame()
    assert list(table.index) == [0, 1, 2, 3]
    assert table["gap"].tolist() == [row["gap"] for row in found.rows]
    with RunWriter(tmp_path / "r", "figure", {}) as writer:
        for x in (1, 2, 2):
            writer.append({"round": x, "y": 2.0 * x})
    table = read_run(tmp_path / "r").to_frame()
    assert table["round"].tolist() == [1, 2, 2]  # no index: two rows of one round
    assert table["y"].tolist() == [2.0, 4.0, 4.0]


def test_without_pandas_it_is_one_line() -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "from isthmus.lab import GradientDescent, Quadratic, theory\n"
        "course = theory.dynamics(Quadratic([[[1.0]]], [[0.0]]), GradientDescent(0.5), [1.0], 2)\n"
        "try: course.to_frame()\n"
        "except ImportError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("MissingDependency to_frame needs pandas: pip install "), done.stderr
    assert done.stdout.count("\n") == 1

