"""The scripts behind the pages' numbers on looseness and on everybody's true optimum, run in small."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from isthmus.lab.compare import Comparison

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


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
    bits = {way: {name: {**one, "bits": 1.0, "work": 1.0} for name, one in found.items()}
            for way, found in results.items()}  # fmt: skip
    assert optimum.changes(bits) == ["no pair changes its order"]
    bits["1 .. 16"]["gd"] |= {"bits": 2.0}
    bits["optimum"]["ef21"] |= {"bits": 3.0, "memory": 1e9}
    bits["1 .. 16"]["ef21"] |= {"bits": 1.5}
    assert optimum.changes(bits) == ["bits: gd now needs less than ef21"]
    assert replace(Comparison(), step="best").step == "best"
