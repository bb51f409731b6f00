"""Anchored IST beside its rivals on generated and real data: bits, memory and work to 1e-6, and that it reaches 1e-10.

    python benchmarks/compare_anchored.py [--cells runs/cells] [--figure runs/paper-in-one-look]

Each method runs with 1, 2, 4, 8 and 16 times the step its theory gives and shows the one that is cheapest to the
target. Real data are standardised; "sorted" deals them to the workers in order of the target. The wine data are written
to a LIBSVM file first and read from there. Interrupted, it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from sklearn.datasets import dump_svmlight_file, load_wine

from isthmus.lab.compare import Comparison, cells_of, figure_config, figure_rows, run_cells
from isthmus.records import RunWriter

METHODS = ("gd", "gd-accelerated", "diana", "marina-perm-k", "ef21", "proxskip", "ist", "anchored", "anchored-momentum")
FACTORS = (1.0, 2.0, 4.0, 8.0, 16.0)
BASE = Comparison(methods=METHODS, seeds=3, step_factors=FACTORS)


def problems(folder: Path) -> dict[str, Comparison]:
    """The problems by name."""
    wine = load_wine()
    path = folder / "wine.svm"
    dump_svmlight_file(wine.data, wine.target, str(path))
    data = replace(BASE, problem="data", rounds=8000)
    return {
        "gaussian, d=60": replace(BASE, rounds=4000),
        "gaussian, workers alike": replace(BASE, rounds=4000, heterogeneity=0.0),
        "diabetes, i.i.d.": replace(data, data="diabetes", heterogeneity=0.0),
        "diabetes, sorted": replace(data, data="diabetes"),
        "breast cancer, ridge 0.1": replace(data, data="breast-cancer", ridge=0.1, heterogeneity=0.0),
        "breast cancer, sorted": replace(data, data="breast-cancer", ridge=0.1),
        "wine (LIBSVM file), i.i.d.": replace(data, data=f"libsvm:{path}", heterogeneity=0.0),
        "wine (LIBSVM file), sorted": replace(data, data=f"libsvm:{path}"),
    }


def main() -> None:
    """Print a table a problem, and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    # the path of the data is part of a cell's name: it must be the same when an interrupted run goes on
    folder = Path(tempfile.gettempdir()) / "isthmus-compare"
    folder.mkdir(exist_ok=True)
    for name, settings in problems(folder).items():
        results = run_cells(cells_of(settings), given.cells, given.processes)
        deep = replace(settings, methods=("anchored",), target=1e-10, rounds=4 * settings.rounds)
        (exact,) = run_cells(cells_of(deep), given.cells, given.processes)
        print(f"\n{name}: anchored IST reaches {exact['level']:.1e} in {exact['rounds']} rounds")
        show(results)
    if given.figure is not None:
        write_figure(given.figure, given.cells, given.processes)


def show(results: list[dict[str, Any]]) -> None:
    """Print one problem's table, cheapest in bits first."""
    heads = " ".join(f"{head:>9}" for head in ("bits up", "down", "together"))
    print(f"{'method':>18} {'step x':>7} {'rounds':>7} {heads} {'held':>6} {'work':>9}")
    for one in sorted(results, key=lambda one: one["bits"] or float("inf")):
        if one["bits"] is None:
            exact = "" if one["stall_level"] is None else f", its mean exactly at {one['stall_level']:.3g}"
            print(f"{one['name']:>18} {one['factor']:7g} {one['status']} at {one['level']:.2g}{exact}")
            continue
        spent = " ".join(f"{one[key]:9.3g}" for key in ("up", "down", "bits"))
        rest = f"{one['memory']:6.0f} {one['work']:9.3g}"
        print(f"{one['name']:>18} {one['factor']:7g} {one['rounds']:7d} {spent} {rest}")


def write_figure(path: Path, cells: Path | None, processes: int) -> None:
    """Write the run behind docs/figures/paper-in-one-look.png; ``isthmus report`` draws it."""
    methods = ("gd", "diana", "gdci", "ist", "anchored")
    settings = replace(BASE, methods=methods, seeds=8, step_factors=(1.0, 2.0, 4.0), rounds=320)
    results = run_cells(cells_of(settings), cells, processes)
    with RunWriter(path, "figure", figure_config(settings), ["python", *sys.argv], replace=True) as writer:
        for row in figure_rows(results):
            writer.append(row)
        writer.finish({})


if __name__ == "__main__":
    main()
