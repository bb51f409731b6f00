"""The tables of docs/anchored.md that need no simulation: exact factors, what momentum saves, extrapolated bias.

    python benchmarks/anchored_numbers.py [--small]

All of it is computed, nothing is drawn but the problems, and it takes about a minute of one core; ``--small`` does the
same for few coordinates, as a test does. The table "Against the rivals" is of ``benchmarks/compare_anchored.py``.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import optimize
from sklearn.datasets import dump_svmlight_file, load_wine

from isthmus.lab import Permutation, Quadratic, rates
from isthmus.lab.compare import Comparison, build_problem
from isthmus.lab.figures.bias import random_correlation
from isthmus.lab.methods import AnchoredIST
from isthmus.lab.problems import LeastSquares, Samples
from isthmus.lab.theory import relative_gap

TARGET = 1e-6


def factors(dim: int, workers: int, rows: int) -> Iterator[str]:
    """Rows of the table of factors from anchor to anchor."""
    problem = LeastSquares(Samples.gaussian(workers, dim, rows, seed=0))
    setting = rates.Setting(problem, np.zeros(dim), 1)
    for name, scale in (("n", None), ("sqrt(n)", workers**0.5)):
        sketch = Permutation(workers, dim, scale)
        found = rates.surrogate(problem, sketch)
        for period in (5, 20):
            rule = rates.with_default_stepsize(AnchoredIST(sketch, 1.0, period), setting)
            step = best_proved_step(problem, found, period)
            proved = rates.anchored_factor(problem, found, step, period)
            there = replace(rule, stepsize=step)
            exact = [rates.asymptotic_factor(problem, method) ** period for method in (rule, there)]
            sent = numbers_sent(exact[0] ** (1 / period), workers, period)
            yield f"| {name} | {period} | {exact[0]:.3f} | {sent:.0f} d | {proved:.3f} | {exact[1]:.3f} |"


def numbers_sent(factor: float, workers: int, period: int) -> float:
    """Numbers up and down per worker to 1e-6 in units of d: two blocks a round, and two whole vectors a period."""
    return float(np.log(TARGET) / np.log(factor)) * (2 / workers + 2 / period) if factor < 1 else np.inf


def best_proved_step(problem: Quadratic, found: rates.Surrogate, period: int) -> float:
    """The step up to 1/theta at which the theorem's factor is smallest."""
    shares = np.geomspace(1e-3, 1.0, 200)
    values = [rates.anchored_factor(problem, found, share / found.theta, period) for share in shares]
    at = int(np.argmin(values))
    ends = shares[max(at - 1, 0)], shares[min(at + 1, len(shares) - 1)]
    refined = optimize.minimize_scalar(
        lambda share: rates.anchored_factor(problem, found, share / found.theta, period), bounds=ends, method="bounded"
    )
    return float(refined.x) / found.theta


def momentum(settings: dict[str, Comparison], period: int = 5) -> Iterator[str]:
    """Rows of the table of numbers up and down per worker, in units of d, that the exact factor implies."""
    for name, one in settings.items():
        problem = build_problem(one)
        n, d = problem.workers, problem.dim
        assert isinstance(problem, Quadratic)
        setting = rates.Setting(problem, np.zeros(d), 1)
        plain = rates.with_default_stepsize(AnchoredIST(Permutation(n, d, n**0.5), 1.0, period), setting)
        fast = replace(plain, momentum=rates.best_momentum(problem, plain))
        cells = []
        for method in (plain, fast):
            cells.append(numbers_sent(rates.asymptotic_factor(problem, method), n, period))
        yield f"| {name} | {cells[0]:.0f} | {cells[1]:.0f} (beta {fast.momentum:.2f}) |"


def momentum_problems(folder: Path, small: bool) -> dict[str, Comparison]:
    """What the table of momentum is of."""
    base = Comparison(dim=12, workers=3, rows=20) if small else Comparison()
    wine = load_wine()
    path = folder / "wine.svm"
    dump_svmlight_file(wine.data, wine.target, str(path))
    found = {
        f"generated, d = {base.dim}, heterogeneity 1": base,
        "generated, workers alike": replace(base, heterogeneity=0.0),
        "diabetes, sorted by target": replace(base, problem="data", data="diabetes"),
        "breast cancer, ridge 0.1, sorted": replace(base, problem="data", data="breast-cancer", ridge=0.1),
        "wine, sorted": replace(base, problem="data", data=f"libsvm:{path}"),
    }
    return dict(list(found.items())[:3]) if small else found


def scales(dim: int, workers: int, rows: int) -> str:
    """The best scale of the sketch, and sqrt(n)."""
    problem = LeastSquares(Samples.gaussian(workers, dim, rows, seed=0))
    return f"best scale {rates.best_scale(workers, problem):.2f}, sqrt(n) {workers**0.5:.2f}"


def extrapolated(problems: int) -> str:
    """The mean share of the initial gap left by blocks of d/2, extrapolated with d/3, and with d/4 too (d = 12)."""
    left = np.zeros(3)
    for seed in range(problems):
        problem = random_correlation(2, seed)
        for place, sizes in enumerate(((6,), (6, 4), (6, 4, 3))):
            x = rates.extrapolated_fixed_point(problem, sizes)
            left[place] += relative_gap(problem, x, np.zeros(problem.dim)) / problems
    return ", ".join(f"{value:.2f}" for value in left)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    shape = (8, 2, 12) if small else (60, 6, 80)
    print("| scale s | m | the rule's step: exact factor | sent to 1e-6 | the theorem's best: proved | exact there |")
    print("|---|---|---|---|---|---|", *factors(*shape), "", scales(*shape), "", sep="\n")
    print("| problem | beta = 0 | beta = best_momentum |", "|---|---|---|", sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        print(*momentum(momentum_problems(Path(folder), small)), "", sep="\n")
    print("share of the gap left by extrapolation:", extrapolated(3 if small else 20))


if __name__ == "__main__":
    main()
