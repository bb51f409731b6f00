"""Problems from files, and the user's own problem, sketch and method by MODULE:FACTORY, in both commands."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isthmus.cli import main
from isthmus.lab import LeastSquares, Quadratic, Samples
from isthmus.lab.compare import Cell, Comparison, compare_one
from isthmus.lab.own import own_problem

MINE = """
from dataclasses import dataclass
import numpy as np
from isthmus.lab import DCGD, DIANA, EF21, AnchoredIST, RandK, TopK, random_quadratic
from isthmus.lab import GradientDescent, Logistic, Permutation, Quadratic, Samples

def problem():
    return Quadratic.gaussian(3, 6, seed=1), np.full(6, 2.0)

def round_bowl():
    return random_quadratic(3, 6, 5.0, 1.0, 0), np.ones(6)

def curved():
    return Logistic(Samples.split(np.eye(4), np.ones(4), 2), 0.1)

def sketch(problem):
    return Permutation(problem.workers, problem.dim, 1.0)

class Sampled:
    def __init__(self, problem):
        self.shape = problem.workers, problem.dim
    def sample(self, generator):
        return (generator.random(self.shape) < 0.5) * 2.0

def small(problem):
    return Permutation(2, 2)

def descent(problem):
    return GradientDescent(0.01)

def compressed(problem):
    return DCGD(RandK(problem.dim, 2), 0.5 / problem.spectrum[-1])

def shifted(problem):
    return DIANA(RandK(problem.dim, 2), 0.2 / problem.spectrum[-1])

def anchored(problem):
    return AnchoredIST(Permutation(problem.workers, problem.dim, 1.5), 0.3 / problem.spectrum[-1], 3)

def sampled_anchored(problem):
    return AnchoredIST(Sampled(problem), 0.1 / problem.spectrum[-1], 3)

def top(problem):
    return EF21(TopK(problem.dim, 2), 0.01)

@dataclass(frozen=True)
class Costless:
    stepsize: float = 0.01
    def init(self, problem, x0): ...
    def step(self, problem, state, draws): ...

def costless(problem):
    return Costless()

def nothing(*arguments):
    return None

def fails(*arguments):
    raise RuntimeError("no\\nway")
"""
FEW = ["--rounds", "20", "--seeds", "8"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with the module ``mine_lab`` and files of arrays in it."""
    (tmp_path / "mine_lab.py").write_text(MINE)
    random = np.random.default_rng(0)
    A, y = random.standard_normal((3, 9, 6)), random.standard_normal((3, 9))
    given = Quadratic.gaussian(3, 6, seed=1)
    np.savez(tmp_path / "quadratic.npz", L=given.L, b=given.b, x0=np.full(6, 2.0))
    np.save(tmp_path / "matrices.npy", given.L)
    np.savez(tmp_path / "samples.npz", A=A, y=y)
    np.savez(tmp_path / "pooled.npz", A=A.reshape(27, 6), y=y.ravel())
    np.savez(tmp_path / "other.npz", L=given.L, c=given.b)
    np.savez(tmp_path / "bad.npz", L=given.L, b=given.b[:2])
    np.savez(tmp_path / "objects.npz", L=np.array([{}], dtype=object))
    (tmp_path / "text.npz").write_text("no arrays")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("mine_lab", None)


def analyzed(capsys: pytest.CaptureFixture[str], *flags: str) -> Any:
    main(["analyze", *FEW, "--json", *flags])
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("place", ["quadratic.npz", "mine_lab:problem"])
def test_a_problem_from_a_file_or_a_function_is_the_same_problem(
    place: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = analyzed(capsys, "--problem", place)
    given = Quadratic.gaussian(3, 6, seed=1)
    assert found["rows"][0]["gap"] == float(given.gap(np.full(6, 2.0)))
    assert (found["config"]["workers"], found["config"]["dim"]) == (3, 6)
    assert found["summary"]["optimal_value"] == pytest.approx(given.optimal_value, rel=1e-12)


def test_arrays_are_taken_as_they_say(folder: Path) -> None:
    alone, x0 = own_problem("matrices.npy", 5)
    assert isinstance(alone, Quadratic)
    assert x0 is None
    assert not alone.b.any()
    by_worker, _ = own_problem("samples.npz", 5, ridge=0.3)
    with np.load("samples.npz") as arrays:
        A, y = arrays["A"], arrays["y"]
    assert isinstance(by_worker, LeastSquares)
    np.testing.assert_allclose(by_worker.L[1], A[1].T @ A[1] / 9 + 0.3 * np.eye(6), atol=1e-14)
    np.testing.assert_allclose(by_worker.b[1], A[1].T @ y[1] / 9, atol=1e-14)
    dealt, _ = own_problem("pooled.npz", 5, seed=2)
    assert isinstance(dealt, LeastSquares)
    np.testing.assert_array_equal(dealt.L, LeastSquares(Samples.split(A.reshape(27, 6), y.ravel(), 5, 2)).L)


def test_a_sketch_of_ones_own_is_the_sketch_of_the_same_law(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = analyzed(capsys, "--dim", "6", "--workers", "3", "--sketch", "mine_lab:sketch")
    built_in = analyzed(capsys, "--dim", "6", "--workers", "3", "--scale", "1")
    assert own["rows"] == built_in["rows"]
    sampled = analyzed(capsys, "--dim", "6", "--workers", "3", "--sketch", "mine_lab:Sampled", "--stepsize", "0.001")
    assert sampled["summary"]["dynamics"].startswith("Monte Carlo")


def test_a_method_of_ones_own_is_analyzed_without_what_only_sketches_have(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = analyzed(capsys, "--dim", "6", "--workers", "3", "--method", "mine_lab:descent")
    same = analyzed(capsys, "--dim", "6", "--workers", "3", "--sketch", "identity", "--stepsize", "0.01")
    np.testing.assert_allclose([row["gap"] for row in own["rows"]], [row["gap"] for row in same["rows"]], rtol=1e-12)
    assert own["config"]["stepsize"] == 0.01
    assert own["summary"]["stationary_gap"] == pytest.approx(same["summary"]["stationary_gap"], abs=1e-9)
    assert not {"theta", "1/theta"} & {entry["name"] for entry in own["summary"]["constants"]}
    other = analyzed(capsys, "--dim", "6", "--workers", "3", "--method", "mine_lab:descent", "--stepsize", "0.02")
    assert other["config"]["stepsize"] == 0.02


@pytest.mark.parametrize(("name", "noise"), [("compressed", True), ("shifted", False)])
def test_a_rival_is_analyzed_as_exactly_as_ist(
    name: str, noise: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compressed gradients settle around the minimiser, DIANA at it: what theory says, and where the course ends."""
    flags = ["--problem", "mine_lab:round_bowl", "--method", f"mine_lab:{name}", "--rounds", "400", "--seeds", "8"]
    main(["analyze", "--json", *flags])
    found = json.loads(capsys.readouterr().out)["summary"]
    assert found["dynamics"] == "exact (lifted moments)"
    assert 0 <= found["fixed_point_relative_gap"] < 1e-12
    if noise:
        assert found["stationary_variance"] > 1e-3 * found["initial_gap"]
        assert found["stationary_gap"] == pytest.approx(found["final_gap"], rel=1e-6)
    else:
        assert found["stationary_gap"] < 1e-12 * found["initial_gap"]
    verdicts = {entry["statement"]: entry["holds"] for entry in found["verdicts"]}
    assert verdicts == {"stationary law": True, "no bias": True, "one minimiser": True}
    assert "gamma*" in {entry["name"] for entry in found["constants"]}


def test_anchored_ist_is_analyzed_exactly_where_its_masks_are_known(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--problem", "mine_lab:round_bowl", "--method"]
    known = analyzed(capsys, *flags, "mine_lab:anchored")
    assert known["summary"]["dynamics"] == "exact (lifted moments)"
    assert known["summary"]["fixed_point_gap"] == 0.0
    distances = [row["distance"] for row in known["rows"]]
    assert distances[-1] < 0.5 * distances[0]
    sampled = analyzed(capsys, *flags, "mine_lab:sampled_anchored")
    assert sampled["summary"]["dynamics"].startswith("Monte Carlo")


def test_a_method_that_is_not_linear_is_analyzed_by_simulation_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = analyzed(capsys, "--dim", "6", "--workers", "3", "--method", "mine_lab:top")["summary"]
    assert found["dynamics"].startswith("Monte Carlo")
    assert found["fixed_point_gap"] is found["stationary_gap"] is None


def test_a_comparison_of_ones_own(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = ["gd", "mine_lab:descent", "ist"]
    flags = ["--methods", *methods, "--problem", "quadratic.npz", "--sketch", "mine_lab:sketch", "--processes", "1"]
    main(["compare", *flags, *FEW, "--json", "--out", "run"])
    found = json.loads(capsys.readouterr().out)
    assert (found["settings"]["workers"], found["settings"]["dim"]) == (3, 6)
    descent, own, ist = found["results"]
    assert own["title"] == "mine_lab:descent"
    assert (own["stepsize"], own["limit"]) == (0.01, descent["limit"])
    unbiased = compare_one(Comparison(problem="quadratic.npz", rounds=20, seeds=8), "ist")
    assert ist["curve"]["y"][0] == unbiased["curve"]["y"][0] == pytest.approx(1.0)
    assert ist["curve"]["y"][-1] != unbiased["curve"]["y"][-1]
    twice = compare_one(Comparison(problem="quadratic.npz", rounds=20, seeds=2, step_factors=(2.0,)), methods[1])
    assert twice["stepsize"] == 0.02


def test_a_bound_beyond_all_numbers_is_drawn_as_far_as_it_is_one(folder: Path) -> None:
    """The exact gap of a mean that diverges: in numbers of the problem it is finite for longer than over the gap."""
    given = Quadratic.gaussian(3, 6, seed=1)
    np.savez("small.npz", L=given.L * 1e-100, b=given.b * 1e-100, x0=np.full(6, 2.0))
    settings = Comparison(problem="small.npz", rounds=2500, seeds=1, step_factors=(16.0,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = compare_one(settings, "ist")
    assert found["status"] == "diverged"
    (curve,) = found["bounds"]
    assert 1e200 < curve["y"][-1] < np.inf


def test_a_kept_result_is_not_taken_for_that_of_another_file(folder: Path) -> None:
    cell = Cell(Comparison(problem="quadratic.npz"), "mine_lab:descent")
    first = cell.key
    assert cell.key == first
    (folder / "mine_lab.py").write_text(MINE + "\n# changed\n")
    second = cell.key
    np.savez(folder / "quadratic.npz", L=np.eye(2)[None], b=np.ones((1, 2)))
    assert len({first, second, cell.key}) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--problem", "gausian"], "did you mean 'gaussian'?"),
        (["--problem", "nowhere.npz"], "nowhere.npz: cannot be read: No such file"),
        (["--problem", "text.npz"], "text.npz: not a file of NumPy arrays"),
        (["--problem", "objects.npz"], "objects.npz: not a file of NumPy arrays"),
        (["--problem", "other.npz"], "must hold L and b, or A and y, and x0 if wanted, got L, c"),
        (["--problem", "bad.npz"], "bad.npz: `b` must have shape [3, 6], got [2, 6]"),
        (["--problem", "quadratic.npz", "--ridge", "1"], "`ridge` has no effect on matrices that are given"),
        (["--problem", "mine_lab:nothing"], "must return a problem"),
        (["--problem", "mine_lab:fails"], "`problem` 'mine_lab:fails' fails: RuntimeError: no way"),
        (["--sketch", "mine_lab:nothing"], "must return a sketch, got NoneType, which has no `sample`"),
        (["--sketch", "mine_lab:small"], "must return a sketch of the problem's"),
    ],
)
@pytest.mark.parametrize("command", ["analyze", "compare"])
def test_what_does_not_fit_is_one_line(
    command: str, flags: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--methods", "ist", "--processes", "1"] if command == "compare" else []
    refused([command, *flags, *more], message, capsys)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["analyze", "--problem", "mine_lab:curved"], "`problem` must be a quadratic to be analyzed, got Logistic"),
        (["analyze", "--method", "mine_lab:nothing"], "must return a method, got NoneType, which has no `stepsize`"),
        (["analyze", "--method", "mine_lab:descent", "--scale", "1"], "`scale` has no effect with `method`"),
        (["compare", "--methods", "mine_lab:costless", "--processes", "1"], "got Costless, which has no `cost`"),
        (["compare", "--format", "jpg"], "`format` must be one of png, pdf, svg"),
        (["compare", "--sketch", "mine_lab:sketch", "--scale", "unbiased"], "`scale` has no effect with a `sketch`"),
    ],
)
def test_what_one_command_refuses(
    command: list[str], message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(command, message, capsys)


def refused(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
