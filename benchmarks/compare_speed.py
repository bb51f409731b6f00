"""How long a comparison takes, how much of it is Python, and how much faster than a loop over seeds it is.

    python benchmarks/compare_speed.py [--rounds 2000] [--dim 300] [--workers 10]

Python's share is measured, not profiled: a round on the smallest problem (2 workers, 2 coordinates, 1 seed) costs next
to nothing but the interpreter and NumPy's dispatch, which a round of the full size pays likewise. Two loops over seeds
stand beside it: the same methods with one seed a batch ("alone"), and bare loops over seeds and workers in the fewest
lines of NumPy, without checks, accounting or records ("bare"). CPU seconds of one thread throughout; other programs on
the machine do not count.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
from threadpoolctl import threadpool_limits

from isthmus.lab.compare import Comparison, build_problem, build_start
from isthmus.lab.compare.roster import build_method
from isthmus.lab.measure import Budget, measure
from isthmus.lab.rates import Setting

FULL = Comparison(problem="random", dim=300, workers=10, seeds=32, condition_number=100.0)


def seconds_of(settings: Comparison, name: str, rounds: int) -> float:
    """CPU seconds of ``rounds`` rounds of the simulation and its accounting, without the preparation."""
    problem = build_problem(settings)
    x0 = build_start(settings, problem)
    method, _ = build_method(name, Setting(problem, x0, 1), settings, 1.0)
    measure(problem, method, x0, Budget(2, settings.seeds), {"gap"})
    begun = time.process_time()
    measure(problem, method, x0, Budget(rounds, settings.seeds), {"gap"})
    return time.process_time() - begun


def per_seed_loop(settings: Comparison, name: str, rounds: int) -> float:
    """CPU seconds of the plain rival: worker by worker and seed by seed, in the fewest lines of NumPy."""
    problem = build_problem(settings)
    x0, n, d = build_start(settings, problem), settings.workers, settings.dim
    method, _ = build_method(name, Setting(problem, x0, 1), settings, 1.0)
    keep = max(1, round(d / n))
    begun = time.process_time()
    for seed in range(settings.seeds):
        random = np.random.default_rng(seed)
        LOOPS[name](problem, method, x0.copy(), rounds, keep, random)
    return time.process_time() - begun


def _gradient(problem, i, x):
    return problem.L[i] @ x - problem.b[i]


def _loop_gd(problem, method, x, rounds, keep, random):
    for _ in range(rounds):
        total = np.zeros_like(x)
        for i in range(problem.workers):
            total += _gradient(problem, i, x)
        x = x - method.stepsize * total / problem.workers
        problem.gap(x)


def _rand_k(v, keep, random):
    out = np.zeros_like(v)
    kept = random.permutation(len(v))[:keep]
    out[kept] = v[kept] * len(v) / keep
    return out


def _loop_dcgd(problem, method, x, rounds, keep, random):
    for _ in range(rounds):
        total = np.zeros_like(x)
        for i in range(problem.workers):
            total += _rand_k(_gradient(problem, i, x), keep, random)
        x = x - method.stepsize * total / problem.workers
        problem.gap(x)


def _loop_diana(problem, method, x, rounds, keep, random):
    shifts = np.zeros((problem.workers, len(x)))
    for _ in range(rounds):
        total = np.zeros_like(x)
        for i in range(problem.workers):
            sent = _rand_k(_gradient(problem, i, x) - shifts[i], keep, random)
            total += shifts[i] + sent
            shifts[i] += method.shift_rate * sent
        x = x - method.stepsize * total / problem.workers
        problem.gap(x)


def _loop_marina(problem, method, x, rounds, keep, random):
    n, d = problem.workers, len(x)
    before = [_gradient(problem, i, x) for i in range(n)]
    estimate = np.mean(before, axis=0)
    for _ in range(rounds):
        x = x - method.stepsize * estimate
        now = [_gradient(problem, i, x) for i in range(n)]
        if random.random() < method.probability:
            estimate = np.mean(now, axis=0)
        else:
            order = random.permutation(d)
            for i in range(n):
                block = order[i * keep : (i + 1) * keep]
                estimate[block] = estimate[block] + (now[i] - before[i])[block]
        before = now
        problem.gap(x)


def _loop_ef21(problem, method, x, rounds, keep, random):
    n = problem.workers
    tracked = np.stack([_gradient(problem, i, x) for i in range(n)])
    for _ in range(rounds):
        x = x - method.stepsize * tracked.mean(axis=0)
        for i in range(n):
            missing = _gradient(problem, i, x) - tracked[i]
            kept = np.argpartition(-np.abs(missing), keep)[:keep]
            tracked[i, kept] += missing[kept]
        problem.gap(x)


def _loop_proxskip(problem, method, x, rounds, keep, random):
    n = problem.workers
    models, controls = np.tile(x, (n, 1)), np.zeros((n, len(x)))
    for _ in range(rounds):
        local = np.stack(
            [models[i] - method.stepsize * (_gradient(problem, i, models[i]) - controls[i]) for i in range(n)]
        )
        models = np.tile(local.mean(axis=0), (n, 1)) if random.random() < method.probability else local
        controls += method.probability / method.stepsize * (models - local)
        problem.gap(models.mean(axis=0))


def _loop_ist(problem, method, x, rounds, keep, random):
    n, d = problem.workers, len(x)
    for _ in range(rounds):
        order, change = random.permutation(d), np.zeros(d)
        for i in range(n):
            mask = np.zeros(d)
            mask[order[i * keep : (i + 1) * keep]] = n
            change += mask * _gradient(problem, i, mask * x)
        x = x - method.stepsize * change / n
        problem.gap(x)


def _loop_anchored(problem, method, x, rounds, keep, random):
    n, d, scale = problem.workers, len(x), method.sketch.scale
    anchor, gradient = x, problem.gradient(x)
    for k in range(1, rounds + 1):
        order, change = random.permutation(d), np.zeros(d)
        for i in range(n):
            mask = np.zeros(d)
            mask[order[i * keep : (i + 1) * keep]] = scale
            change += mask * (problem.L[i] @ (mask * (x - anchor)))
        x = x - method.stepsize * (change / n + gradient)
        if k % method.period == 0:
            anchor, gradient = x, problem.gradient(x)
        problem.gap(x)


LOOPS = {
    "gd": _loop_gd,
    "dcgd": _loop_dcgd,
    "diana": _loop_diana,
    "marina-perm-k": _loop_marina,
    "ef21": _loop_ef21,
    "proxskip": _loop_proxskip,
    "ist": _loop_ist,
    "anchored": _loop_anchored,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("--rounds", 2000), ("--dim", 300), ("--workers", 10)):
        parser.add_argument(name, type=int, default=default)
    given = parser.parse_args()
    rounds, whole = given.rounds, replace(FULL, dim=given.dim, workers=given.workers)
    small = replace(FULL, dim=2, workers=2, seeds=1)
    few = max(2, rounds // 100)
    total = np.zeros(4)
    print(f"{'method':>14}  seconds   Python  share    alone  faster     bare  faster")
    with threadpool_limits(limits=1):
        for name in LOOPS:
            full, python = seconds_of(whole, name, rounds), seconds_of(small, name, rounds)
            bare = per_seed_loop(whole, name, few) * rounds / few
            alone = seconds_of(replace(whole, seeds=1), name, 10 * few) * whole.seeds * rounds / (10 * few)
            total += (full, python, alone, bare)
            show(name, full, python, alone, bare)
    show("together", *total)
    scale = f"{rounds} rounds, d = {given.dim}, n = {given.workers}, {whole.seeds} seeds"
    print(f"{scale}; the loops were timed on fewer rounds")


def show(name: str, full: float, python: float, alone: float, bare: float) -> None:
    """Print one line."""
    share = f"{full:8.2f} {python:8.2f} {python / full:6.1%}"
    print(f"{name:>14} {share} {alone:8.1f} {alone / full:7.1f} {bare:8.1f} {bare / full:7.1f}")


if __name__ == "__main__":
    main()
