"""Figures of the bias: what it depends on, how to read the model, how to remove some of it."""

from __future__ import annotations

import math

import numpy as np

from isthmus.lab.arrays import Array
from isthmus.lab.figures.figure import Figure, Panel
from isthmus.lab.methods import IST
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Permutation
from isthmus.lab.theory.fixed_points import fixed_point
from isthmus.lab.theory.readouts import readouts
from isthmus.lab.theory.stable_steps import stable_stepsizes
from isthmus.lab.theory.stationary import stationary
from isthmus.randomness import generator

DIM = 12
WORKERS = (2, 3, 4, 6, 12)


def bias_variance(seed: int) -> Figure:
    """Bias and stationary variance against workers, correlation, step size and local steps."""
    figure = Figure(
        "bias-variance",
        "What the gap IST ends with is made of",
        "Shares of f(0) - f*. More workers mean more bias. With correlation the bias of the unbiased method (scale n) "
        "shrinks, that of plain masks (scale 1) grows. The step size changes the variance only, local steps both.",
        (
            Panel("workers", "bias against workers", "workers n", "share of f(0) - f*", y_scale="linear"),
            Panel("correlation", "bias against correlation, n = 3", "correlation", "share", y_scale="linear"),
            Panel("step", "against the step size, n = 3", "gamma / gamma*", "share"),
            Panel("local", "against local steps, d = 6, n = 3", "local steps T", "share", "log"),
        ),
    )
    for strength in (0.1, 0.3, 0.6):
        problems = [equicorrelated(n, strength, seed) for n in WORKERS]
        biases = [_share(p, fixed_point(p, IST(Permutation(p.workers, DIM), 0.01))) for p in problems]
        figure.add("workers", f"correlation {strength:g}", WORKERS, biases)
    grid = np.linspace(0.0, 0.9, 19)
    for scale, name in ((None, "scale n"), (1.0, "scale 1")):
        problems = [equicorrelated(3, float(r), seed) for r in grid]
        biases = [_share(p, fixed_point(p, IST(Permutation(3, DIM, scale), 0.01))) for p in problems]
        figure.add("correlation", name, grid, biases)
    _against_step(figure, seed)
    _against_local_steps(figure, seed)
    return figure


def _against_step(figure: Figure, seed: int) -> None:
    problem = Quadratic.gaussian(3, DIM, seed)
    limit = stable_stepsizes(problem, IST(Permutation(3, DIM), 1.0)).largest
    shares = np.geomspace(0.01, 0.95, 16)
    settled = [stationary(problem, IST(Permutation(3, DIM), float(share * limit))) for share in shares]
    start = -problem.optimal_value
    figure.add("step", "bias", shares, [s.bias / start for s in settled])
    figure.add("step", "variance", shares, [s.variance / start for s in settled], "dashed")


def _against_local_steps(figure: Figure, seed: int) -> None:
    n, d = 3, 6  # few enough partitions to enumerate
    problem = Quadratic.gaussian(n, d, seed)
    start = -problem.optimal_value
    gamma = 0.5 / float(np.linalg.eigvalsh(problem.L).max())
    steps = [1, 2, 4, 8, 16, 32, 64, 128, math.inf]
    settled = [stationary(problem, IST(Permutation(n, d, 1.0), gamma, T)) for T in steps]
    shown = [256.0 if math.isinf(T) else T for T in steps]
    figure.add("local", "bias (T = 256 stands for infinity)", shown, [s.bias / start for s in settled])
    figure.add("local", "variance", shown, [s.variance / start for s in settled], "dashed")


def readout(seed: int) -> Figure:
    """y, y/n and c y at weak and strong correlation."""
    figure = Figure(
        "readouts",
        "Three ways to read the model that the workers trained",
        "y is the merged model as plain masks train it, y/n the fixed point of the unbiased method, c y the merged "
        "model after one line search. y wins where coordinates are weakly correlated, y/n where they are strongly "
        "correlated; c y is never worse than either.",
        (
            Panel("weak", "random correlation matrix", "workers n", "relative gap", y_scale="linear"),
            Panel("strong", "equal correlation 0.7", "workers n", "relative gap"),
        ),
    )
    for panel, build in (("weak", random_correlation), ("strong", lambda n, s: equicorrelated(n, 0.7, s))):
        gaps = []
        for n in WORKERS:
            problem = build(n, seed)
            read = readouts(problem, fixed_point(problem, IST(Permutation(n, DIM, 1.0), 0.01)))
            gaps.append(np.array(read.gaps) / -problem.optimal_value)
        for name, values in zip(("y", "y/n", "c y"), np.transpose(gaps), strict=True):
            figure.add(panel, name, WORKERS, values, "dashed" if name == "c y" else "line")
    return figure


def bias_removal(seed: int) -> Figure:
    """Extrapolation over the number of workers, and the line search."""
    figure = Figure(
        "bias-removal",
        "Removing bias after training",
        "The unbiased method's fixed point is a smooth function of t = (n-1)/(d-1), the minimiser at t = 0. Runs with "
        "2 and 3 workers give 2 x(2) - x(3), free of the first order in t; a run with 4 workers removes the second. 20 "
        "random correlation matrices, d = 12.",
        (Panel("gap", "f - f* as a share of f(0) - f*", "problem", "relative gap"),),
    )
    names = ("2 workers, y/n", "2 workers, c y", "2 x(2) - x(3)", "3 x(2) - 3 x(3) + x(4)")
    values = np.array([_removals(case) for case in range(seed, seed + 20)])
    for name, column in zip(names, values.T, strict=True):
        figure.add("gap", name, np.arange(20), column, "markers")
    return figure


def _removals(seed: int) -> list[float]:
    points = {}
    for n in (2, 3, 4):
        problem = random_correlation(n, seed)
        points[n] = fixed_point(problem, IST(Permutation(n, DIM), 0.01))
    searched = readouts(problem, points[2]).searched
    ways = (points[2], searched, 2 * points[2] - points[3], 3 * points[2] - 3 * points[3] + points[4])
    return [_share(problem, x) for x in ways]


def equicorrelated(workers: int, correlation: float, seed: int) -> Quadratic:
    """Equal workers, unit diagonal, every pair of coordinates correlated alike; x* standard normal."""
    L = (1 - correlation) * np.eye(DIM) + correlation * np.ones((DIM, DIM))
    return _with_minimizer(L, workers, seed)


def random_correlation(workers: int, seed: int) -> Quadratic:
    """Equal workers, L the correlation matrix of 24 normal samples; x* standard normal."""
    A = generator(seed, "figure/correlation").standard_normal((24, DIM))
    L = A.T @ A
    return _with_minimizer(L / np.sqrt(np.outer(np.diagonal(L), np.diagonal(L))), workers, seed)


def _with_minimizer(L: Array, workers: int, seed: int) -> Quadratic:
    b = L @ generator(seed, "figure/minimizer").standard_normal(DIM)
    return Quadratic(np.broadcast_to(L, (workers, DIM, DIM)), np.broadcast_to(b, (workers, DIM)))


def _share(problem: Quadratic, x: Array) -> float:
    """f(x) - f* as a share of f(0) - f*."""
    return float(problem.gap(x)) / -problem.optimal_value
