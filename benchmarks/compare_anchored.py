"""Anchored IST beside its rivals on generated and real data: bits, memory and work to 1e-6, and that it reaches 1e-10.

    python benchmarks/compare_anchored.py [--problems diabetes logistic] [--cells runs/cells] [--figure runs/one-look]

Each method runs with 1, 2, 4, 8 and 16 times the step its theory gives and shows the one that is cheapest to the
target; on logistic regression, where anchored IST has no theory, with 1 and 4 times. Real data are standardised;
"sorted" deals them to the workers in order of the target. The wine data are written to a LIBSVM file first and read
from there. The last tables are those of docs/anchored.md. Interrupted, it goes on where it stopped.
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


def logistic() -> dict[str, Comparison]:
    """The one whose gradients are not linear."""
    data = replace(BASE, problem="logistic", data="breast-cancer", ridge=0.05, heterogeneity=0.0)
    return {"logistic, breast cancer": replace(data, step_factors=(1.0, 4.0), rounds=8000)}


def main() -> None:
    """Print a list a problem and the tables, and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="*", default=[""], help="names of problems, or their beginnings; all")
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--figure", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    # the path of the data is part of a cell's name: it must be the same when an interrupted run goes on
    folder = Path(tempfile.gettempdir()) / "isthmus-compare"
    folder.mkdir(exist_ok=True)
    for every in (problems(folder), logistic()):
        wanted = {name: one for name, one in every.items() if name.startswith(tuple(given.problems))}
        found = {name: results_of(settings, given.cells, given.processes) for name, settings in wanted.items()}
        for name, results in found.items():
            print(f"\n{name}")
            show(results)
        if found:
            print(f"\n{table(found)}", flush=True)
    if given.figure is not None:
        write_figure(given.figure, given.cells, given.processes)


def results_of(settings: Comparison, cells: Path | None, processes: int) -> list[dict[str, Any]]:
    """Every method to the target, and last anchored IST to 1e-10."""
    deep = replace(settings, methods=("anchored",), target=1e-10, rounds=4 * settings.rounds)
    return run_cells([*cells_of(settings), *cells_of(deep)], cells, processes)


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Thousands of bits up and down a worker, the fewest in bold; numbers held, and where IST and anchored IST end."""
    rows: dict[str, list[str]] = {}
    for results in found.values():
        *runs, deep = results
        fewest = min((one["bits"] for one in runs if one["bits"] is not None), default=None)
        for one in runs:
            said = one["status"] if one["bits"] is None else f"{one['bits'] / 1e3:.0f}"
            rows.setdefault(one["name"], []).append(f"**{said}**" if one["bits"] == fewest is not None else said)
        by_name = {one["name"]: one for one in runs}
        held = " / ".join(f"{by_name[name]['memory']:.0f}" for name in ("anchored", "gd", "diana") if name in by_name)
        rows.setdefault("*numbers held: anchored / gd / diana*", []).append(held)
        if "ist" in by_name:
            exact = by_name["ist"]["stall_level"]  # of the mean; the last value where that has no closed form
            level = by_name["ist"]["level"] if exact is None else exact
            rows.setdefault("*plain IST ends at*", []).append(f"{level:.3g}")
        reached = f"{deep['level']:.1e}, {deep['rounds'] or 'not'}"
        rows.setdefault("*anchored IST: gap reached, rounds*", []).append(reached)
    head = [f"| bits together, thousands | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    return "\n".join(head + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()])


def show(results: list[dict[str, Any]]) -> None:
    """Print one problem's list, cheapest in bits first."""
    heads = " ".join(f"{head:>9}" for head in ("bits up", "down", "together"))
    print(f"{'method':>18} {'step x':>7} {'rounds':>7} {heads} {'held':>6} {'work':>9}")
    for one in sorted(results[:-1], key=lambda one: one["bits"] or float("inf")):
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
