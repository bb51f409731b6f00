"""What one exact round costs: against 3n matrix products, against one read of L, and how it grows with d and n.

    python benchmarks/lab_dynamics.py --out runs/lab-dynamics          # about a minute
    python benchmarks/lab_dynamics.py --single-unit 1000 --out ...     # needs 9 GB: L alone has 8

Times are the best of several; rivals run in the same process, alternating with the thing measured.
"""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from isthmus.lab import IST, Permutation, Quadratic, theory
from isthmus.lab.arrays import Array
from isthmus.lab.theory.dynamics import course, round_moments
from isthmus.records import RunWriter, read_run
from isthmus.report import draw


@dataclass(frozen=True)
class Options:
    """What to measure and where to write."""

    out: Path = Path("runs/lab-dynamics")
    """Folder of the run and its picture."""
    dims: tuple[int, ...] = (200, 400, 700, 1000)
    """d of the growth with d, at n = 10."""
    workers: tuple[int, ...] = (2, 5, 10, 20)
    """n of the growth with n, at d = 400."""
    single_unit: int = 500
    """n = d of the Perm-1 measurement."""


def best(function: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def heterogeneous(workers: int, dim: int) -> Quadratic:
    """A heterogeneous problem that is cheap to build: a common matrix and a direction of its own for every worker."""
    random = np.random.default_rng(dim + workers)
    common = random.standard_normal((dim, dim)) / np.sqrt(dim)
    L = np.empty((workers, dim, dim))
    L[:] = common.T @ common
    for matrix in L:
        direction = random.standard_normal(dim)
        matrix += np.outer(direction, direction) / dim
    return Quadratic._trusted(L, random.standard_normal((workers, dim)))  # Gram matrices need no check


def round_cost(workers: int, dim: int) -> tuple[float, float]:
    """Seconds of one exact Perm-q round and of 3n products, in turns."""
    problem = heterogeneous(workers, dim)
    moments = round_moments(problem, IST(Permutation(workers, dim), 0.1 / workers))
    assert moments is not None
    rounds = course(moments, np.ones(dim), 1000)
    next(rounds), next(rounds)
    A, B, out = problem.L[0].copy(), problem.L[1].copy(), np.empty((dim, dim))
    exact = products = np.inf
    for _ in range(3):
        exact = min(exact, best(lambda: next(rounds), 1))
        products = min(products, 3 * workers * best(lambda: np.matmul(A, B, out=out), 3))
    return exact, products


def peak_arrays(workers: int, dim: int) -> float:
    """Peak memory of the rounds beyond L, in d x d arrays."""
    problem = heterogeneous(workers, dim)
    tracemalloc.start()
    theory.dynamics(problem, IST(Permutation(workers, dim), 0.1 / workers), np.ones(dim), 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / (8 * dim * dim)


def single_unit(dim: int) -> tuple[float, float, float]:
    """Perm-1, n = d: seconds of preparation with one round, of one more round, and of one read of L."""
    problem = heterogeneous(dim, dim)
    read = best(lambda: problem.L.sum(), 2)
    method = IST(Permutation(dim, dim), 0.1 / dim)

    def prepare() -> None:
        fresh = Quadratic._trusted(problem.L, problem.b)
        theory.dynamics(fresh, method, np.ones(dim), 1)

    whole = best(prepare, 2)
    moments = round_moments(problem, method)
    assert moments is not None
    rounds = course(moments, np.ones(dim), 100)
    next(rounds), next(rounds)
    return whole, best(lambda: next(rounds), 5), read


def small(workers: int = 3, dim: int = 6, rounds: int = 100_000) -> tuple[float, float]:
    """A small problem: seconds of CPU of a course of ``rounds`` rounds by powers, and round by round."""
    problem = Quadratic.gaussian(workers, dim, 0)
    method = IST(Permutation(workers, dim), 0.5 * theory.contraction_limit(problem, Permutation(workers, dim)))
    moments = round_moments(problem, method)
    assert moments is not None
    started = time.process_time()
    theory.dynamics(problem, method, np.ones(dim), rounds)
    done = time.process_time()
    for _ in course(moments, np.ones(dim), rounds // 50):
        pass
    return done - started, 50 * (time.process_time() - done)


def settling(dim: int) -> float:
    """Seconds of CPU of a stationary law, n = 4."""
    problem, sketch = Quadratic.gaussian(4, dim, 0), Permutation(4, dim)
    method = IST(sketch, 0.5 * theory.contraction_limit(problem, sketch))
    started = time.process_time()
    theory.stationary(problem, method)
    return time.process_time() - started


def exponent(x: tuple[int, ...], seconds: list[float]) -> float:
    """Slope in log-log of the larger half."""
    half = len(x) // 2
    return float(np.polyfit(np.log(x[half - 1 :]), np.log(seconds[half - 1 :]), 1)[0])


def growth(options: Options, writer: RunWriter) -> dict[str, float]:
    """Measure the growth with d and n."""
    found = {}
    for panel, values, sizes in (
        ("dim", options.dims, [(10, d) for d in options.dims]),
        ("workers", options.workers, [(n, 400) for n in options.workers]),
    ):
        costs = [round_cost(n, d) for n, d in sizes]
        for place, series in enumerate(("one exact round", "3n matrix products")):
            for x, cost in zip(values, costs, strict=True):
                writer.append({"panel": panel, "series": series, "x": x, "y": cost[place], "style": "line"})
        found[f"exponent in {panel}"] = exponent(values, [cost[0] for cost in costs])
        found[f"worst ratio over {panel}"] = max(exact / products for exact, products in costs)
        exact, products = costs[-1]
        found[f"ratio at the largest {panel}"] = exact / products
    return found


def closed_forms(dim: int) -> tuple[float, float]:
    """Seconds of the fixed point after Lbar is known, and of one Cholesky factorisation."""
    problem = heterogeneous(10, dim)
    problem.mean_matrix, problem.mean_vector  # noqa: B018  the pass over L is not what is measured
    method = IST(Permutation(10, dim), 0.01)
    matrix: Array = problem.mean_matrix + np.eye(dim)
    factor = best(lambda: np.linalg.cholesky(matrix))
    return best(lambda: theory.fixed_point(problem, method)), factor


def main() -> None:
    """Measure, write the run and the picture, print the numbers."""
    options = tyro.cli(Options)
    panels = [
        {"name": name, "title": label, "x_label": label, "y_label": "seconds", "x_scale": "log", "y_scale": "log"}
        for name, label in (("dim", "d, n = 10"), ("workers", "n, d = 400"))
    ]
    config = {
        "figure": "lab-dynamics",
        "title": "One exact round against 3n matrix products",
        "caption": "Heterogeneous Perm-q; float64; best of three, in turns.",
        "panels": panels,
    }
    with RunWriter(options.out, "figure", config, ["python", *sys.argv], replace=True) as writer:
        found = growth(options, writer)
        dim = max(options.dims)
        found[f"peak memory beyond L at d = {min(dim, 500)}, in d x d arrays"] = peak_arrays(10, min(dim, 500))
        fixed, factor = closed_forms(dim)
        found[f"fixed point / Cholesky at d = {dim}"] = fixed / factor
        whole, more, read = single_unit(options.single_unit)
        found[f"Perm-1, n = d = {options.single_unit}: first round / one read of L"] = whole / read
        found["Perm-1: every further round / one read of L"] = more / read
        for d in (16, 17, 24, 40):
            found[f"stationary law, d = {d}, n = 4, seconds of CPU"] = settling(d)
        powers, one_by_one = small()
        found["d = 6, n = 3, 100,000 rounds: seconds of CPU by powers"] = powers
        found["the same round by round (from 2,000 rounds)"] = one_by_one
        started = time.perf_counter()
        million = np.linspace(0.5, 1.0, 10**6)
        theory.coordinate_dynamics(million, million, IST(Permutation(10**6, 10**6), 5e-7), np.zeros(10**6), 100)
        found["diagonal path, d = 10^6, 100 rounds, seconds"] = time.perf_counter() - started
        writer.finish({"measured": found})
    drawn = draw(read_run(options.out), options.out)
    for name, value in found.items():
        print(f"{name:<62} {value:.3g}")
    print(*drawn)


if __name__ == "__main__":
    main()
