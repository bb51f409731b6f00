"""How loose is each theorem: its step against the largest stable one, its rate against the exact and the best one.

    python benchmarks/compare_looseness.py [--problems 100] [--processes 2] [--kept FILE] [--out runs/looseness]

Quadratics with d in {3, 4}, n in {2, 3}, condition number in {2, 10, 100}, heterogeneity in {0.3, 1}, with and without
a shared minimiser, other draws each time round. Rand-K keeps one coordinate, EF21 uses it scaled by K/d (linear, so
exact). All numbers are exact: spectral radii of the second moments, no simulation. The table gives medians with the
tenth and ninetieth percentile over the problems that a theorem applies to:

- step: the largest stable step over the theorem's;
- same step: rounds that the theorem's factor asks for over those that the exact one at the same step does;
- best: rounds by the theorem's factor over those at the best step (and momentum, shift rate or mixing).

With --kept every problem's result is a line of that file, and a run that was interrupted goes on behind it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from isthmus.lab import Quadratic, theory
from isthmus.lab.compressors import PermK, RandK, Scaled
from isthmus.lab.methods import (
    DCGD,
    DIANA,
    EF21,
    GDCI,
    MARINA,
    AcceleratedGradientDescent,
    AnchoredIST,
    BlockCoordinateDescent,
    DistributedGDCI,
    GradientDescent,
    ProxSkip,
)
from isthmus.lab.problems import constants, random_quadratic
from isthmus.lab.rates import Setting, anchored_factor, best_momentum_of, bounds, surrogate, with_default_stepsize
from isthmus.lab.sketches import Permutation
from isthmus.progress import progress
from isthmus.records import RunWriter

SHAPES = list(itertools.product((3, 4), (2, 3), (2.0, 10.0, 100.0), (0.3, 1.0), (False, True)))
METHODS: dict[str, Callable[[Quadratic], Any]] = {
    "gradient descent": lambda p: GradientDescent(1.0),
    "accelerated gradient descent": lambda p: _accelerated(p),
    "DCGD, Rand-K": lambda p: DCGD(RandK(p.dim, 1), 1.0),
    "DCGD, Perm-K": lambda p: DCGD(PermK(p.workers, p.dim), 1.0),
    "DIANA, Rand-K": lambda p: DIANA(RandK(p.dim, 1), 1.0),
    "DIANA, Perm-K": lambda p: DIANA(PermK(p.workers, p.dim), 1.0),
    "MARINA, Rand-K": lambda p: MARINA(RandK(p.dim, 1), 1.0, 1.0 / p.dim),
    "MARINA, Perm-K": lambda p: MARINA(PermK(p.workers, p.dim), 1.0, 1.0 / p.workers),
    "EF21, scaled Rand-K": lambda p: EF21(Scaled(RandK(p.dim, 1)), 1.0),
    "GDCI, Rand-K of d - 1": lambda p: GDCI(RandK(p.dim, p.dim - 1), 1.0),
    "distributed GDCI, Perm-K": lambda p: DistributedGDCI(PermK(p.workers, p.dim), 1.0, 0.5),
    "ProxSkip": lambda p: ProxSkip(1.0, math.sqrt(constants(p).mu_min / constants(p).L_max)),
    "block descent": lambda p: BlockCoordinateDescent(1, 1.0),
    "anchored IST, m = 3": lambda p: AnchoredIST(Permutation(p.workers, p.dim), 1.0, 3),
}


def _accelerated(problem: Quadratic) -> AcceleratedGradientDescent:
    c = constants(problem)
    return AcceleratedGradientDescent(1.0, best_momentum_of(c.mu / c.L))


def problem_of(number: int) -> Quadratic:
    """Problem ``number`` of the list."""
    d, n, condition, heterogeneity, shared = SHAPES[number % len(SHAPES)]
    return random_quadratic(n, d, condition, heterogeneity, number, shared)


def proved(method: Any, problem: Quadratic) -> tuple[Any, float] | None:
    """The method with its theorem's step, and the factor a round that is proved; None where nothing is."""
    if isinstance(method, AnchoredIST):
        found = surrogate(problem, method.sketch)
        stepped = AnchoredIST(method.sketch, 1.0 / found.theta, method.period)
        return stepped, anchored_factor(problem, found, stepped.stepsize, int(method.period)) ** (1 / method.period)
    setting = Setting(problem, problem.minimizer + 1.0, 4)
    stepped = with_default_stepsize(method, setting)
    for bound in bounds(stepped, setting):
        if bound.applies and bound.kind == "upper" and bound.measure in ("gap", "distance"):
            steps = np.diff(bound.values)  # geometric down to a level: the level drops out
            return stepped, float(steps[1] / steps[0]) if steps[0] else 1.0
    return None


def looseness(number: int) -> dict[str, dict[str, float]]:
    """The three ratios of every method on one problem."""
    found = {}
    with threadpool_limits(1):
        problem = problem_of(number)
        for name, build in METHODS.items():
            said = proved(build(problem), problem)
            if said is None or not said[1] < 1.0:
                continue
            method, factor = said
            stable = theory.stable_stepsizes(problem, method).largest
            here, best = theory.asymptotic_rate(problem, method), theory.best_stepsize(problem, method, 1e-3).rate
            rounds = 1.0 / math.log(factor)
            found[name] = {
                "step": stable / method.stepsize,
                "same step": math.log(here) * rounds,
                "best": math.log(best) * rounds,
            }
    return found


def main() -> None:
    """Print the table; write the run behind the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=100)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    lines = given.kept.read_text().splitlines() if given.kept is not None and given.kept.exists() else []
    every = [json.loads(line) for line in lines][: given.problems]
    missing = range(len(every), given.problems)
    with progress("problems", len(missing)) as advance, ProcessPoolExecutor(given.processes) as pool:
        for one in pool.map(looseness, missing):
            every.append(one)
            if given.kept is not None:
                with given.kept.open("a") as file:
                    file.write(json.dumps(one) + "\n")
            advance()
    print(table(every))
    print(f"\n{len(every)} problems")
    if given.out is not None:
        write(given.out, every)


def table(every: list[dict[str, dict[str, float]]]) -> str:
    """The table as Markdown."""
    lines = ["| method | problems | step | same step | best |", "|---|---|---|---|---|"]
    for name in METHODS:
        rows = [one[name] for one in every if name in one]
        cells = [_spread([row[what] for row in rows]) for what in ("step", "same step", "best")]
        lines.append(f"| {name} | {len(rows)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: list[float]) -> str:
    if not values:
        return "-"
    low, middle, high = np.quantile(values, (0.1, 0.5, 0.9))
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def drawn(names: Iterable[str]) -> list[str]:
    """The methods that are drawn: as many as there are colours, without those whose curves hardly vary."""
    return [name for name in names if "gradient descent" not in name and "GDCI" not in name]


def write(path: Path, every: list[dict[str, dict[str, float]]]) -> None:
    """Write a run of kind "figure"; ``isthmus report`` draws it."""
    panels = [
        {"name": what, "title": title, "x_label": "times", "y_label": "share of the problems", "x_scale": "log",
         "y_scale": "linear"}
        for what, title in (("step", "largest stable step over the theorem's"),
                            ("best", "rounds by the theorem over rounds at the best step"))
    ]  # fmt: skip
    config = {"figure": "looseness", "title": "How loose is each theorem", "panels": panels,
              "caption": f"Share of {len(every)} quadratics for which the ratio is at most that; exact."}  # fmt: skip
    with RunWriter(path, "figure", config, ["python", *sys.argv], replace=True) as writer:
        for panel, name in itertools.product(("step", "best"), drawn(METHODS)):
            values = sorted(one[name][panel] for one in every if name in one)
            for place, value in enumerate(values):
                row = {"panel": panel, "series": name, "x": value, "y": (place + 1) / len(values), "style": "line"}
                writer.append(row)
        writer.finish({})


if __name__ == "__main__":
    main()
