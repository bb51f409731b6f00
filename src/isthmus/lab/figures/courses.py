"""Figures of courses: the gap round by round, exact over Monte Carlo, and the theorems over it."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from isthmus.data import load_standardized
from isthmus.lab.figures.figure import Figure, Panel
from isthmus.lab.methods import IST, GradientDescent
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.simulate import simulate
from isthmus.lab.sketches import Bernoulli, Permutation, ScaledPermutation
from isthmus.lab.theory.bounds import exact_scaled_gap, theorem1_contraction, theorem2
from isthmus.lab.theory.dynamics import dynamics
from isthmus.lab.theory.fixed_points import fixed_point
from isthmus.lab.theory.stable_steps import stable_stepsizes
from isthmus.lab.theory.theorem1 import theorem1
from isthmus.randomness import generator

SEEDS = 100


def heterogeneous(seed: int) -> Figure:
    """The paper's generated problem: relative gap for several steps, exact over Monte Carlo."""
    n, d, rounds, shares = 10, 100, 60, (0.1, 0.4, 0.8)
    problem = Quadratic.gaussian(n, d, seed)
    x0 = generator(seed, "figure/start").standard_normal(d)
    initial = float(problem.gap(x0))
    limit = stable_stepsizes(problem, IST(Permutation(n, d), 1.0)).largest
    left = float(problem.gap(fixed_point(problem, IST(Permutation(n, d), limit)))) / initial
    figure = Figure(
        "heterogeneous",
        f"IST on a generated heterogeneous quadratic, {n} workers, {d} coordinates",
        "Lines: the exact expected gap, relative to its start; marks: 100 simulated seeds with their 95 % band. Steps "
        "are shares of the largest one that is stable in mean square. The larger the step, the higher the curve ends: "
        f"its stationary variance grows. No step gets below the fixed point's gap (dashed), {100 * left:.2g} % of the "
        f"start, {left * initial:.3g} absolute: that bias belongs to the method.",
        tuple(Panel(f"{share:g}", f"{share:g} of the stable step", "round", "f - f*, relative") for share in shares),
    )
    for share in shares:
        method = IST(Permutation(n, d), share * limit)
        exact = dynamics(problem, method, x0, rounds)
        figure.add(f"{share:g}", "exact", np.arange(rounds + 1), exact.gap / initial)
        run = simulate(problem, method, x0, rounds, SEEDS, seed)
        figure.add_simulation(f"{share:g}", "simulated", run, 1 / initial)
        figure.add(f"{share:g}", "fixed point", [0, rounds], [left, left], "dashed")
    return figure


def homogeneous(seed: int) -> Figure:
    """d = n = 50, equal workers: the distance to the fixed point hides how far it is from the minimiser."""
    n, rounds = 50, 80
    problem = Quadratic.gaussian(n, n, seed, homogeneous=True)
    x0 = generator(seed, "figure/start").standard_normal(n)
    method = IST(Permutation(n, n), 0.5 * stable_stepsizes(problem, IST(Permutation(n, n), 1.0)).largest)
    exact, x_inf = dynamics(problem, method, x0, rounds), fixed_point(problem, method)
    initial = float(problem.gap(x0))
    kept = 100 * float(problem.gap(x_inf)) / initial
    star = -problem.optimal_value
    figure = Figure(
        "homogeneous",
        f"Equal workers, n = d = {n}: what a plot of the distance to x_inf hides",
        "Left: the iterate converges to its fixed point x_inf, linearly. Middle and right: f - f*, relative and "
        f"absolute. At x_inf it is {kept:.3g} % of its start, and f(0) - f* = {star:.3g}: on such generated problems "
        "the fixed point is hardly better than 0. Blocks of one unit and equal workers make IST deterministic.",
        (
            Panel("distance", "distance to x_inf", "round", "|x - x_inf|"),
            Panel("relative", "f - f*, relative to the start", "round", "relative gap"),
            Panel("absolute", "f - f*, absolute", "round", "f - f*"),
        ),
    )
    rounds_axis = np.arange(rounds + 1)
    figure.add("distance", "IST", rounds_axis, np.linalg.norm(exact.mean - x_inf, axis=1))
    descent = dynamics(problem, GradientDescent(1 / float(problem.spectrum[-1])), x0, rounds)
    for name, course in (("IST", exact), ("gradient descent", descent)):
        figure.add("relative", name, rounds_axis, course.gap / initial)
        figure.add("absolute", name, rounds_axis, course.gap)
    figure.add("absolute", "at 0", [0, rounds], [star, star], "dashed")
    return figure


def remark_1(seed: int) -> Figure:
    """W is indefinite, f rises once, and IST still converges."""
    a, b, c, rounds = 1.0, 10.0, 2.49, 60
    L = np.array([[a, c], [c, b]])
    problem = Quadratic(np.broadcast_to(L, (2, 2, 2)), np.zeros((2, 2)))
    found = theorem1(problem, Permutation(2, 2))
    worst = linalg.eigh(found.W)[1][:, 0]
    figure = Figure(
        "remark-1",
        f"Remark 1's example, a = {a:g}, b = {b:g}, c = {c:g}: W indefinite, yet IST converges",
        f"W has the eigenvalue {found.smallest_eigenvalue:.3g}, so Theorem 1 says nothing. From the worst start f "
        "rises at first, as the remark says, and then falls to 0: every realisation contracts for "
        "gamma < 2/(n b).",
        (
            Panel("start", "the first rounds", "round", "f / f(x0)", y_scale="linear"),
            Panel("whole", "the whole course", "round", "f / f(x0)"),
        ),
    )
    for share in (0.1, 0.5):
        gap = dynamics(problem, IST(Permutation(2, 2), share / b), worst, rounds).gap
        figure.add("start", f"gamma = {share:g}/b", np.arange(9), gap[:9] / gap[0])
        figure.add("whole", f"gamma = {share:g}/b", np.arange(rounds + 1), gap / gap[0])
    return figure


def algorithm_1(seed: int) -> Figure:
    """Averaging models (6) against averaging gradients (2): independent sketches diverge for small steps."""
    n, d, rounds = 4, 20, 60
    problem = Quadratic.gaussian(n, d, seed)
    x0 = generator(seed, "figure/start").standard_normal(d)
    initial = float(problem.gap(x0))
    figure = Figure(
        "algorithm-1",
        "Algorithm 1, which averages models, against method (2), which averages gradients",
        "With a partition of the coordinates the two are one. With independent Bernoulli(1/4) masks averaging models "
        "multiplies x by a random diagonal of mean 1 every round: the smaller the step, the less the gradient holds "
        "that noise down, and the gap explodes. Steps are shares of the largest stable one of method (2).",
        (
            Panel("partition", "partition of the coordinates", "round", "E f - f*, relative"),
            Panel("independent", "independent masks", "round", "E f - f*, relative"),
        ),
    )
    top = stable_stepsizes(problem, IST(Bernoulli(n, d, 0.25), 1.0)).largest
    for panel, sketch in (("partition", Permutation(n, d)), ("independent", Bernoulli(n, d, 0.25))):
        for merge in ("gradient", "model"):
            for share in (0.02, 0.3):
                gap = dynamics(problem, IST(sketch, share * top, merge=merge), x0, rounds).gap
                style = "line" if merge == "gradient" else "dashed"
                figure.add(panel, f"{merge}s, step {share:g}", np.arange(rounds + 1), gap / initial, style)
    return figure


def theorem_1(seed: int) -> Figure:
    """Theorem 1 (16) over the exact course, b = 0."""
    n, d, rounds = 4, 24, 60
    base = Quadratic.gaussian(n, d, seed)
    problem = Quadratic(base.L, np.zeros_like(base.b))
    x0 = generator(seed, "figure/start").standard_normal(d)
    found = theorem1(problem, Permutation(n, d))
    figure = Figure(
        "theorem-1",
        "Theorem 1 over the exact course, b_i = 0",
        f"theta = {found.theta:.3g}. The exact course falls faster than the bound (16), which takes the slowest "
        "direction in every round.",
        (Panel("gap", "E|x - x*|^2_Lbar, relative to the start", "round", "relative"),),
    )
    for share in (0.3, 1.0):
        bound = theorem1_contraction(problem, IST(Permutation(n, d), share * found.stepsize), x0, rounds)
        figure.add("gap", f"exact, gamma = {share:g}/theta", np.arange(rounds + 1), bound.exact / bound.exact[0])
        series = f"bound (16), gamma = {share:g}/theta"
        figure.add("gap", series, np.arange(rounds + 1), bound.values / bound.exact[0], "dashed")
    return figure


def theorem_2(seed: int) -> Figure:
    """Theorem 2 as printed, tight, and without beta, over the exact average."""
    n, rounds, gamma = 12, 200, 0.5
    figure = Figure(
        "theorem-2",
        f"Theorem 2 as printed, with its tight constant, and without beta (gamma = {gamma:g})",
        "The average of E|grad f|^2 in the Lbar^{-1} norm over the rounds so far, and three bounds of it. Left: "
        "workers that differ; the noise term, which the three share, is most of them. Middle: equal workers, no noise: "
        "the constant before the bias |h|^2 is what counts, 6.5 as printed, 2 when tight, 1 in Theorem 2'. Right: the "
        "closed form of the gap under the simulation.",
        (
            Panel("different", "workers that differ", "round", "average so far"),
            Panel("equal", "equal workers", "round", "average so far"),
            Panel("gap", "E f - f*, workers that differ", "round", "gap"),
        ),
    )
    x0 = generator(seed, "figure/start").standard_normal(n)
    K = np.arange(1, rounds + 1)
    for panel in ("different", "equal"):
        problem = Quadratic.gaussian(n, n, seed, homogeneous=panel == "equal")
        bounds = [theorem2(problem, gamma, x0, rounds, form) for form in ("printed", "tight", "beta-free")]
        figure.add(panel, "exact average", K, bounds[0].exact[1:])
        for bound in bounds:
            figure.add(panel, bound.name, K, bound.values[1:], "dashed")
    problem = Quadratic.gaussian(n, n, seed)
    figure.add("gap", "closed form", np.arange(41), exact_scaled_gap(problem, gamma, x0, 40))
    run = simulate(problem, IST(ScaledPermutation(problem), gamma), x0, 40, SEEDS, seed)
    figure.add_simulation("gap", "simulated", run)
    return figure


def least_squares(seed: int) -> Figure:
    """Real data split over workers: how the gap and the bias grow with their number."""
    rounds, workers = 300, (2, 5, 10)
    data = load_standardized("breast-cancer")
    targets = np.asarray(data.targets, dtype=np.float64)
    figure = Figure(
        "least-squares",
        "Least squares on the breast-cancer data, split over workers",
        "Features standardised, targets centred, start 0, IST's step half of the largest stable one, gradient "
        "descent's 1/L. The columns of real data are strongly correlated, and a worker that holds fewer of them sees "
        "fewer correlations: with more workers the fixed point (dashed) is farther from the minimiser.",
        tuple(Panel(f"{n}", f"{n} workers", "round", "E f - f*, relative to the start") for n in workers),
    )
    for n in workers:
        problem = Quadratic.least_squares(data.features, targets - targets.mean(), n, seed)
        sketch = Permutation(n, problem.dim)
        method = IST(sketch, 0.5 * stable_stepsizes(problem, IST(sketch, 1.0)).largest)
        course = dynamics(problem, method, np.zeros(problem.dim), rounds)
        descent = dynamics(problem, GradientDescent(1 / float(problem.spectrum[-1])), np.zeros(problem.dim), rounds)
        left = float(problem.gap(fixed_point(problem, method))) / float(course.gap[0])
        figure.add(f"{n}", "IST", np.arange(rounds + 1), course.gap / course.gap[0])
        figure.add(f"{n}", "gradient descent", np.arange(rounds + 1), descent.gap / descent.gap[0])
        figure.add(f"{n}", "IST's fixed point", [0, rounds], [left, left], "dashed")
    return figure
