"""Every method at its true optimum: does the comparison of docs/anchored.md rank the methods as it did?

    python benchmarks/compare_optimum.py [--problems diabetes wine] [--cells runs/cells] [--processes 2]

Three ways to choose a step: the theorem's; the cheapest of 1, 2, 4, 8, 16 times it, as docs/anchored.md does; and the
step (and momentum, shift rate) of the best exact asymptotic rate, `compare --step best`. EF21 with Top-K is not linear:
its third column is the cheapest of 1, 1.41, 2, ... 64 times its theorem's step. Bits up and down and operations per
worker to a relative gap of 1e-6, in simulation (three seeds), and numbers held. The best rate in the long run need not
be the cheapest to 1e-6, so a method's true optimum is the cheaper of the last two. After each table: the pairs of
methods whose order by bits or by work is another one there than with 1 .. 16 times the theorem's step. Last, bits at
everybody's true optimum on all problems. With --cells an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compare_anchored import problems
from isthmus.lab.compare import Comparison, cells_of, run_cells

METHODS = ("gd", "gd-accelerated", "dcgd-perm-k", "diana", "diana-perm-k", "marina-perm-k", "ef21", "ef21-rand-k",
           "proxskip", "block-descent", "ist", "anchored", "anchored-momentum")  # fmt: skip
FINE = tuple(float(factor) for factor in 2.0 ** np.arange(0.0, 6.1, 0.5))
WAYS = ("theory", "1 .. 16", "optimum")
_TIE = 1.01  # less apart than that is no order: it is within the noise of three seeds

Results = dict[str, dict[str, dict[str, Any]]]  # way -> method -> result


def main() -> None:
    """Print a table and the changes of every problem."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="*", default=[""], help="names of problems, or their beginnings; all")
    parser.add_argument("--cells", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    folder = Path(tempfile.gettempdir()) / "isthmus-compare"
    folder.mkdir(exist_ok=True)
    found: dict[str, Results] = {}
    for name, settings in every_problem(folder).items():
        if not name.startswith(tuple(given.problems)):
            continue
        started = time.process_time()
        results = found[name] = by_way(settings, given.cells, given.processes)
        print(f"\n### {name}\n\n{table(results)}\n", flush=True)
        for line in changes(results):
            print(f"- {line}")
        print(f"\n({time.process_time() - started:.0f} s of CPU in this process)", flush=True)
    print(f"\n{overview(found)}")


def every_problem(folder: Path) -> dict[str, Comparison]:
    """Quadratics of given conditioning in few coordinates, workers alike and not; and those of compare_anchored.py."""
    base = problems(folder)
    random = replace(base["gaussian, d=60"], problem="random", workers=3, dim=9, rounds=6000)
    generated = {
        f"random, condition {condition:g}, {name}": replace(random, condition_number=condition, heterogeneity=unlike)
        for condition in (10.0, 100.0)
        for name, unlike in (("alike", 0.0), ("unlike", 1.0))
    }
    return {**generated, **base}


def by_way(settings: Comparison, store: Path | None, processes: int) -> Results:
    """Every method's result for each way to choose its step."""
    plain = replace(settings, methods=METHODS, step_factors=(1.0,))
    ways = {
        "theory": cells_of(plain),
        "1 .. 16": cells_of(replace(plain, step_factors=(1.0, 2.0, 4.0, 8.0, 16.0))),
        "optimum": cells_of(replace(plain, step="best")),
    }
    found = {way: dict(zip(METHODS, run_cells(cells, store, processes), strict=True)) for way, cells in ways.items()}
    (fine,) = run_cells(cells_of(replace(plain, methods=("ef21",), step_factors=FINE)), store, 1)
    found["optimum"]["ef21"] = fine
    return found


def table(results: Results) -> str:
    """Bits of the three ways, work at the optimum, numbers held, and the step at the optimum, as Markdown."""
    head = [f"bits, thousands: {way}" for way in WAYS]
    lines = [f"| method | {' | '.join(head)} | Mflop at the optimum | held | optimum's step, times the theorem's |"]
    lines.append("|---|" + "---|" * 6)
    for method in METHODS:
        bits = [_bits(results[way][method]) for way in WAYS]
        best = results["optimum"][method]
        work = "-" if best["work"] is None else f"{best['work'] / 1e6:.3g}"
        ratio = best["stepsize"] / results["theory"][method]["stepsize"]
        lines.append(f"| {method} | {' | '.join(bits)} | {work} | {best['memory']:.0f} | {ratio:.3g} |")
    return "\n".join(lines)


def at_optimum(results: Results) -> dict[str, dict[str, Any]]:
    """By method the cheaper, in bits, of the cheapest of 1 .. 16 times the theorem's step and the best exact one."""
    return {
        name: min(one, results["optimum"][name], key=lambda result: result["bits"] or np.inf)
        for name, one in results["1 .. 16"].items()
    }


def overview(found: dict[str, Results]) -> str:
    """Thousands of bits at everybody's true optimum, a column a problem."""
    best = [at_optimum(results) for results in found.values()]
    lines = [f"| bits, thousands | {' | '.join(found)} |", "|---" * (len(found) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(_bits(one[name]) for one in best)} |" for name in METHODS]
    return "\n".join(lines)


def _bits(one: dict[str, Any]) -> str:
    if one["bits"] is None:
        return f"{one['status']} at {one['level']:.1g}"
    return f"{one['bits'] / 1e3:.3g}"


def changes(results: Results) -> list[str]:
    """Pairs that are the other way round at the true optimum than at the best of 1 .. 16 times the theorem's step."""
    said = []
    before = results["1 .. 16"]
    orders: dict[str, Callable[[dict[str, Any]], float]] = {
        "bits": lambda one: one["bits"] or np.inf,
        "work": lambda one: one["work"] or np.inf,
    }
    after = at_optimum(results)
    for what, key in orders.items():
        for a, b in itertools.permutations(METHODS, 2):
            if key(before[a]) * _TIE < key(before[b]) and key(after[b]) * _TIE < key(after[a]):
                held = "" if after[b]["memory"] <= after[a]["memory"] else ", though it holds more"
                said.append(f"{what}: {b} now needs less than {a}{held}")
    return said or ["no pair changes its order"]


if __name__ == "__main__":
    main()
