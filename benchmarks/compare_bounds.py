"""Every method's bounds on a grid of 108 problems: the worst measured/bound, seeds averaged.

    python benchmarks/compare_bounds.py [--rounds 150] [--seeds 48]

Quadratics with d in {6, 20}, n in {3, 5, 8}, condition number in {2, 10, 100}, heterogeneity in {0, 0.3, 1}, with and
without a shared minimiser; step sizes at the theory's limit. The last column takes the end of the mean's confidence
interval that favours the bound (Student, 3e-5 a round): a bound is broken where it leaves 1. The table is that of
docs/methods.md.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass, replace

import numpy as np

from isthmus.lab.compare import ROSTER, Comparison
from isthmus.lab.compare.roster import build_method
from isthmus.lab.measure import Budget, Verdict, judge, measure
from isthmus.lab.problems import random_quadratic
from isthmus.lab.rates import Setting, bounds
from isthmus.progress import progress

GRID = list(itertools.product((6, 20), (3, 5, 8), (2.0, 10.0, 100.0), (0.0, 0.3, 1.0), (False, True)))


@dataclass
class Worst:
    """What the grid said of one bound of one method."""

    kind: str
    cases: int = 0
    ratio: float = np.nan
    cleared: float = np.nan
    broken: int = 0

    def add(self, verdict: Verdict) -> None:
        """Count one case that the bound applies to."""
        worse = np.fmin if self.kind == "lower" else np.fmax
        self.cases += 1
        self.ratio, self.cleared = worse(self.ratio, verdict.ratio), worse(self.cleared, verdict.cleared)
        self.broken += verdict.holds is False


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=150)
    parser.add_argument("--seeds", type=int, default=48)
    given = parser.parse_args()
    print(table(worst_of(GRID, given.rounds, given.seeds)))


def worst_of(
    grid: list[tuple[int, int, float, float, bool]], rounds: int, seeds: int
) -> dict[tuple[str, str], Worst]:
    """By method and bound."""
    found: dict[tuple[str, str], Worst] = {}
    with progress("grid", len(grid)) as advance:
        for seed, (dim, workers, condition, heterogeneity, shared) in enumerate(grid):
            problem = random_quadratic(workers, dim, condition, heterogeneity, seed, shared)
            setting = Setting(problem, np.full(dim, 2.0), rounds)
            settings = replace(Comparison(), keep=0.25, workers=workers, dim=dim)
            for name in ROSTER:
                method, _ = build_method(name, setting, settings, 1.0)
                said = bounds(method, setting)
                run = Budget(rounds, seeds, seed)
                measured = measure(problem, method, setting.x0, run, {bound.measure for bound in said})
                for verdict in (judge(bound, measured) for bound in said):
                    if verdict.applies:
                        found.setdefault((name, verdict.bound), Worst(verdict.kind)).add(verdict)
            advance()
    return found


def table(found: dict[tuple[str, str], Worst]) -> str:
    """The table as Markdown."""
    heads = "method | bound | kind | problems it applies to | worst measured/bound | after the confidence interval"
    lines = [f"| {heads} |", "|---" * 6 + "|"]
    for (name, bound), worst in found.items():
        numbers = f"{worst.cases} | {worst.ratio:.3f} | {worst.cleared:.3f}{' (broken)' if worst.broken else ''}"
        lines.append(f"| {name} | {bound} | {worst.kind} | {numbers} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
