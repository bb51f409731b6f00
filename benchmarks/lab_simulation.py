"""One simulated round of IST for many seeds against the straightforward dense-mask NumPy code, in one process.

    python benchmarks/lab_simulation.py --out runs/lab-simulation

Rivals: "dense, seed by seed" multiplies every masked model by the whole L_i; "dense, all seeds at once" does it with
one matrix product a worker. The Perm-1 rivals get equal workers, which share one L in cache: that favours them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from isthmus.lab import IST, Permutation, Quadratic
from isthmus.lab.arrays import Array
from isthmus.lab.methods import Draws, Iterate
from isthmus.records import RunWriter, read_run
from isthmus.report import draw


@dataclass(frozen=True)
class Options:
    """Sizes and where to write."""

    out: Path = Path("runs/lab-simulation")
    """Folder of the run and its picture."""
    dim: int = 1000
    """d."""
    workers: int = 10
    """n of the Perm-q case."""
    seeds: int = 64
    """Seeds of one round."""
    single_unit_seeds: int = 4
    """Seeds the Perm-1 rivals really run; their time is scaled to all seeds."""


def dense_by_seed(problem: Quadratic, diagonals: Array, x: Array, stepsize: float) -> Array:
    """Every seed, every worker: mask, multiply by L_i, mask."""
    out = np.empty_like(x)
    for seed, (masks, point) in enumerate(zip(diagonals, x, strict=True)):
        g = np.zeros_like(point)
        for L, b, c in zip(problem.L, problem.b, masks, strict=True):
            g += c * (L @ (c * point) - b)
        out[seed] = point - stepsize * g / problem.workers
    return out


def dense_by_worker(problem: Quadratic, diagonals: Array, x: Array, stepsize: float) -> Array:
    """Every worker: all seeds in one matrix product."""
    g = np.zeros_like(x)
    for worker, (L, b) in enumerate(zip(problem.L, problem.b, strict=True)):
        c = diagonals[:, worker]
        g += c * ((c * x) @ L - b)
    return x - stepsize * g / problem.workers


def best(function: Callable[[], object], repeats: int) -> float:
    """Seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def compare(problem: Quadratic, options: Options, few: int, repeats: int) -> dict[str, float]:
    """Seconds a round of ours and of the rivals, after a check that all three agree."""
    method = IST(Permutation(problem.workers, problem.dim), 1e-6)
    x = np.random.default_rng(0).standard_normal((options.seeds, problem.dim))
    problem.diagonals  # noqa: B018  read once, before the first round
    draws = Draws(0, 1, options.seeds)
    ours = method.step(problem, Iterate(x), draws).x
    diagonals = method.sketch.sample_many(Draws(0, 1, few).generator("sketch"), few)
    for rival in (dense_by_seed, dense_by_worker):
        np.testing.assert_allclose(rival(problem, diagonals, x[:few], 1e-6), ours[:few], rtol=1e-9, atol=1e-12)
    scale = options.seeds / few
    return {
        "isthmus": best(lambda: method.step(problem, Iterate(x), draws), 5 * repeats),
        "dense, seed by seed": scale * best(lambda: dense_by_seed(problem, diagonals, x[:few], 1e-6), repeats),
        "dense, all seeds at once": scale * best(lambda: dense_by_worker(problem, diagonals, x[:few], 1e-6), repeats),
    }


def bandwidth() -> float:
    """Bytes a second of reading a large array."""
    array = np.ones(30_000_000)
    return array.nbytes / best(lambda: array.sum(), 5)


def main() -> None:
    """Measure, write the run and the picture, print the numbers."""
    options = tyro.cli(Options)
    n, d, seeds = options.workers, options.dim, options.seeds
    speed = bandwidth()
    cases = {
        f"Perm-q, n = {n}": compare(Quadratic.gaussian(n, d, 0), options, seeds, 2),
        f"Perm-1, n = d = {d}": compare(
            Quadratic.gaussian(d, d, 0, homogeneous=True), options, options.single_unit_seeds, 1
        ),
    }
    config = {
        "figure": "lab-simulation",
        "title": f"One simulated round of {seeds} seeds, d = {d}",
        "caption": "Seconds a round. Rivals compute with masks over whole matrices.",
        "panels": [
            {"name": name, "title": name, "x_label": "", "y_label": "seconds", "x_scale": "linear", "y_scale": "log"}
            for name in cases
        ],
    }
    with RunWriter(options.out, "figure", config, ["python", *sys.argv], replace=True) as writer:
        for name, times in cases.items():
            for rival, seconds in times.items():
                writer.append({"panel": name, "series": rival, "x": rival, "y": seconds})
        writer.finish({"bandwidth": speed, "seconds": cases})
    print(f"reading memory: {speed / 1e9:.3g} GB/s")
    for name, times in cases.items():
        print(name)
        for rival, seconds in times.items():
            print(f"  {rival:<26} {1e3 * seconds:10.3f} ms   {seconds / times['isthmus']:8.1f} x")
    entries = seeds * n * (d // n) ** 2
    ours = next(iter(cases.values()))["isthmus"]
    least, lines = 8 * entries / speed, 64 * entries / speed
    print(f"Perm-q reads {entries:.3g} entries of L: {1e3 * least:.3g} ms at that speed if they were packed,")
    print(f"{1e3 * lines:.3g} ms at 64-byte cache lines (scattered, as they are); measured {1e3 * ours:.3g} ms")
    print(*draw(read_run(options.out), options.out))


if __name__ == "__main__":
    main()
