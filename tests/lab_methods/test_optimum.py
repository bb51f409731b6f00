"""The scripts behind the numbers of docs/methods.md and docs/anchored.md, run in small."""

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from isthmus.lab.compare import Comparison, cells_of, run_cells
from isthmus.records import read_run

HERE = Path(__file__)
BENCHMARKS = HERE.parents[2] / "benchmarks"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_no_theorem_promises_more_than_what_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every proved step is stable, every proved rate at least the exact one, and the best step no worse than that."""
    looseness = script("compare_looseness", monkeypatch)
    few = ("DCGD, Perm-K", "MARINA, Perm-K", "EF21, scaled Rand-K", "block descent")
    cheap = {name: looseness.METHODS[name] for name in few}
    monkeypatch.setattr(looseness, "METHODS", cheap)
    every = [looseness.looseness(number) for number in (1, 11)]
    for one in every:
        for name, found in one.items():
            assert found["step"] >= 1 - 1e-9, name
            assert found["same step"] >= 1 - 1e-9, name
            assert found["best"] >= found["same step"] - 1e-3, name
    assert set(every[0]) == set(few)
    assert looseness.table(every).count("\n") == len(cheap) + 1


def test_the_changes_at_the_optimum_are_named_by_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    optimum = script("compare_optimum", monkeypatch)
    monkeypatch.setattr(optimum, "METHODS", ("gd", "dcgd-perm-k", "ef21"))
    monkeypatch.setattr(optimum, "FINE", (1.0, 8.0))
    results = optimum.by_way(Comparison(dim=6, workers=2, rows=15, rounds=400, seeds=2), None, 1)
    assert results["optimum"]["gd"]["step_from"] == "best"
    assert results["optimum"]["ef21"]["step_from"] == "theory"  # the finest grid in place of an exact optimum
    assert "| gd |" in optimum.table(results)
    best = optimum.at_optimum(results)["gd"]["bits"]
    assert best == min(results[way]["gd"]["bits"] for way in ("1 .. 16", "optimum")) < results["theory"]["gd"]["bits"]
    assert f"| gd | {best / 1e3:.3g} | {best / 1e3:.3g} |" in optimum.overview({"one": results, "again": results})
    bits = {way: {name: {**one, "bits": 1.0, "work": 1.0} for name, one in found.items()}
            for way, found in results.items()}  # fmt: skip
    assert optimum.changes(bits) == ["no pair changes its order"]
    bits["1 .. 16"]["gd"] |= {"bits": 2.0}
    bits["optimum"]["ef21"] |= {"bits": 3.0, "memory": 1e9}
    bits["1 .. 16"]["ef21"] |= {"bits": 1.5}
    assert optimum.changes(bits) == ["bits: gd now needs less than ef21"]
    assert replace(Comparison(), step="best").step == "best"


def test_the_table_of_rivals_is_made_by_the_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rivals = script("compare_anchored", monkeypatch)
    small = Comparison(methods=("gd", "gd-accelerated", "diana", "ist", "anchored"), dim=6, workers=2, rows=15)
    small = replace(small, rounds=400, seeds=2, step_factors=(1.0, 4.0))
    *runs, deep = rivals.results_of(small, tmp_path, 1)
    assert runs == run_cells(cells_of(small))
    assert deep["level"] <= 1e-10 < 1e-6 < runs[3]["level"]
    rows = [row.strip("| ").split(" | ") for row in rivals.table({"small": [*runs, deep]}).splitlines()[2:]]
    bits = {name: said for name, said in rows if name in small.methods}
    fewest = min(runs[:3] + runs[4:], key=lambda one: one["bits"])
    assert bits == {one["name"]: f"{one['bits'] / 1e3:.0f}" for one in runs if one["bits"]} | {
        "ist": "stalled", fewest["name"]: f"**{fewest['bits'] / 1e3:.0f}**"
    }  # fmt: skip
    said = dict(rows[-3:])
    assert said["*numbers held: anchored / gd / diana*"] == " / ".join(f"{runs[at]['memory']:.0f}" for at in (4, 0, 2))
    assert float(said["*plain IST ends at*"]) == pytest.approx(runs[3]["end"], rel=0.2)  # the mean's, less its variance
    assert said["*anchored IST: gap reached, rounds*"] == f"{deep['level']:.1e}, {deep['rounds']}"
    rivals.show([*runs, deep])
    assert "its mean exactly at" in capsys.readouterr().out
    monkeypatch.setattr(rivals, "BASE", small)
    rivals.write_figure(tmp_path / "one-look", None, 1)
    drawn = {row["series"] for row in read_run(tmp_path / "one-look").rows}
    assert {"gradient descent", "DIANA, Rand-K", "GDCI, natural", "IST", "anchored IST", "anchored IST: exact"} <= drawn
    (curved,) = rivals.logistic().values()
    assert (curved.problem, curved.ridge, curved.step_factors) == ("logistic", 0.05, (1.0, 4.0))


def test_the_table_of_bounds_is_made_by_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    grid = script("compare_bounds", monkeypatch)
    assert len(grid.GRID) == 108
    found = grid.worst_of([(6, 3, 2.0, 0.3, False), (6, 3, 2.0, 0.3, True)], rounds=20, seeds=8)
    assert {name for name, _ in found} >= {"gd", "dcgd", "diana", "marina", "ef21", "proxskip", "ist", "anchored"}
    for (name, bound), worst in found.items():
        assert worst.broken == 0, (name, bound)
        assert 1 <= worst.cases <= 2
    assert 0 < found["gd", "gradient descent"].ratio <= 1 + 1e-9
    assert found["local-gd", "local gradient descent"].ratio == pytest.approx(1.0)
    assert grid.table(found).count("\n") == len(found) + 1


def test_the_times_are_taken_by_the_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    speed = script("compare_speed", monkeypatch)
    monkeypatch.setattr(speed, "FULL", replace(speed.FULL, seeds=2))
    monkeypatch.setattr(sys, "argv", ["compare_speed.py", "--rounds", "20", "--dim", "6", "--workers", "3"])
    speed.main()
    head, *rows, last = capsys.readouterr().out.splitlines()
    assert head.split() == ["method", "seconds", "Python", "share", "alone", "faster", "bare", "faster"]
    assert [row.split()[0] for row in rows] == [*speed.LOOPS, "together"]
    for row in rows:
        _, full, python, share, alone, _, bare, _ = row.split()
        assert all(float(seconds) >= 0 for seconds in (full, python, alone, bare))
        assert share.endswith("%")
    assert last == "20 rounds, d = 6, n = 3, 2 seeds; the loops were timed on fewer rounds"


@pytest.mark.parametrize("page", ["methods.md", "anchored.md"])
def test_every_script_that_a_page_names_is_run_by_a_test(page: str) -> None:
    named = set(re.findall(r"benchmarks/(\w+)\.py", (BENCHMARKS.parent / "docs" / page).read_text(encoding="utf-8")))
    run = set(re.findall(r'= script\("(\w+)"', HERE.read_text(encoding="utf-8")))
    run |= set(re.findall(r"import (\w+)\n", HERE.with_name("test_anchored_numbers.py").read_text(encoding="utf-8")))
    assert named
    assert named <= run
    assert all((BENCHMARKS / f"{name}.py").exists() for name in named)
