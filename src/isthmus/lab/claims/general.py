"""Section 4 of the paper: linear terms, the irreducible bias, Theorem 2; and what is said around them."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from isthmus.lab.arrays import Array
from isthmus.lab.claims.claim import Claim, Trial, describe, error, random_problem, sizes, worst_of
from isthmus.lab.methods import IST
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Permutation, RandomSparsification, ScaledPermutation
from isthmus.lab.theory.bounds import exact_scaled_gap, scaled_fixed_point, scaled_noise, theorem2
from isthmus.lab.theory.dynamics import dynamics, known_moments, mean_trajectory
from isthmus.lab.theory.fixed_points import fixed_point

ROUNDS = 30


def _square(random: np.random.Generator) -> tuple[Quadratic, Array]:
    n, _ = sizes(random, square=True)
    return random_problem(random, n, n), random.standard_normal(n)


def _estimator(random: np.random.Generator) -> Trial:
    problem, x = _square(random)
    moments = known_moments(problem, IST(ScaledPermutation(problem), 1.0))
    found = -(moments.mean_matrix @ x + moments.mean_vector)  # E g for a step of 1
    h = problem.minimizer - scaled_fixed_point(problem)
    return Trial(error(found, linalg.solve(problem.mean_matrix, problem.gradient(x)) + h), None, describe(problem))


def _mean_course(random: np.random.Generator) -> Trial:
    problem, x0 = _square(random)
    gamma = float(random.uniform(0.05, 1.0))
    means = mean_trajectory(problem, IST(ScaledPermutation(problem), gamma), x0, ROUNDS)
    left = ((1 - gamma) ** np.arange(ROUNDS + 1))[:, None]
    return Trial(error(means, left * x0 + (1 - left) * scaled_fixed_point(problem)), None, describe(problem))


def _vanishing_bias(random: np.random.Generator) -> Trial:
    b = random.standard_normal(81)
    distances = []
    for n in (4, 81):
        problem = Quadratic(np.broadcast_to(np.eye(n), (n, n, n)), np.broadcast_to(b[:n], (n, n)))
        x_inf = fixed_point(problem, IST(ScaledPermutation(problem), 0.5))
        distances.append(float(np.linalg.norm(x_inf - b[:n]) / np.linalg.norm(b[:n])))
    case = f"L_i = I, b_i = b: relative distance {distances[0]:.3g} at n = d = 4, {distances[1]:.3g} at n = d = 81"
    worse = 1.0 if distances[1] >= distances[0] else 0.0
    return Trial(worse, error(distances[0], 0.5) + error(distances[1], 1 - 1 / 9), case)


def _theorem_2(form: str) -> Claim:
    def trial(random: np.random.Generator) -> Trial:
        problem, x0 = _square(random)
        gamma = float(random.uniform(0.05, 0.999))
        bound = theorem2(problem, gamma, x0, ROUNDS, form)
        return Trial(bound.worst_ratio, None, describe(problem, [f"gamma={gamma:.2f}"]))

    statements = {
        "printed": ("Theorem 2 (30)", "with |h|_Lbar: bound with 2(1-gamma)/beta + gamma under (29)"),
        "tight": ("beyond: tight constant", "the constant (1-gamma)/(2 beta) + gamma suffices, without (29)"),
        "beta-free": ("beyond: Theorem 2'", "beta = 1/2: |h|^2_Lbar + gamma sigma^2 for every gamma in (0, 1]"),
    }
    return Claim(*statements[form], "", "bound", trial)


def _norm_of_h(random: np.random.Generator) -> Trial:
    problem, _ = _square(random)
    problem = Quadratic(0.01 * problem.L, problem.b)  # small curvature: Lbar^2 is below Lbar
    h = problem.minimizer - scaled_fixed_point(problem)
    gamma = 0.9
    x0 = np.asarray(scaled_fixed_point(problem))
    bound = theorem2(problem, gamma, x0, ROUNDS, "printed")
    factor = 4 * (1 + gamma) + gamma
    L = problem.mean_matrix
    other = bound.values + factor * float(h @ L @ L @ h - h @ L @ h)
    return Trial(worst_of(other, bound.exact), bound.worst_ratio, describe(problem, ["small curvature"]))


def _equality_at_one(random: np.random.Generator) -> Trial:
    problem, x0 = _square(random)
    bound = theorem2(problem, 1.0, x0, ROUNDS)
    said = slice(1, None)
    return Trial(error(bound.exact[said], bound.values[said]), None, describe(problem))


def _noise(random: np.random.Generator) -> Trial:
    problem, x = _square(random)
    moments = known_moments(problem, IST(ScaledPermutation(problem), 1.0))
    drift = moments.drift(x)
    second = moments.sandwich(np.outer(x, x)) + drift + drift.T + moments.noise()
    mean = moments.mean_matrix @ x + moments.mean_vector
    found = float(np.vdot(problem.mean_matrix, second - np.outer(mean, mean)))
    return Trial(error(scaled_noise(problem), found), None, describe(problem))


def _exact_course(random: np.random.Generator) -> Trial:
    problem, x0 = _square(random)
    gamma = float(random.uniform(0.05, 1.95))
    exact = dynamics(problem, IST(ScaledPermutation(problem), gamma), x0, ROUNDS).gap
    return Trial(error(exact_scaled_gap(problem, gamma, x0, ROUNDS), exact), None, describe(problem))


def _homogeneous(random: np.random.Generator) -> Trial:
    n, _ = sizes(random, square=True)
    first = random_problem(random, n, n, homogeneous=True)
    root = np.sqrt(np.diagonal(first.L[0]))
    tilde, b = first.L[0] / np.outer(root, root), first.b[0] / root
    problem = Quadratic(np.broadcast_to(tilde, (n, n, n)), np.broadcast_to(b, (n, n)))
    method = IST(Permutation(n, n, float(np.sqrt(n))), 0.5)
    limit = error(fixed_point(problem, method), b / np.sqrt(n))
    course = dynamics(problem, method, random.standard_normal(n), 5)
    return Trial(limit + float(np.abs(course.variance).max() / course.gap[0]), None, describe(problem))


def _compressed_gradient(random: np.random.Generator) -> Trial:
    n, d = sizes(random)
    problem = random_problem(random, n, d)
    sketch = RandomSparsification(1, d, max(d // 2, 1))
    g = problem.gradient(random.standard_normal(d))
    variance = float(g @ sketch.second_moment(np.eye(d)) @ g - g @ g)
    omega = d / sketch.size - 1
    at_minimum = float(np.abs(problem.gradient(problem.minimizer)).max() / np.abs(g).max())
    bound = omega * float(g @ g)
    return Trial((variance / bound if bound > 0 else 0.0) + at_minimum, None, describe(problem))


def _minimiser_moves(random: np.random.Generator) -> Trial:
    n, d = sizes(random)
    d = max(d, 2)
    problem = random_problem(random, n, d)
    sketch = RandomSparsification(1, d, 1)
    draws = sketch.sample_many(random, 50)[:, 0]
    moved = float(np.abs(problem.gradient(draws * problem.minimizer)).max())
    return Trial(0.0 if moved > 1e-6 else 1.0, None, describe(problem))


def _shared_minimiser(random: np.random.Generator) -> Trial:
    problem, x_star = _square(random)
    shared = Quadratic(problem.L, np.einsum("nab,b->na", problem.L, x_star))
    x_inf = fixed_point(shared, IST(Permutation(problem.workers, problem.dim), 0.01))
    centred = Quadratic(problem.L, np.zeros_like(problem.b))
    at_zero = float(np.abs(fixed_point(centred, IST(Permutation(problem.workers, problem.dim), 0.01))).max())
    return Trial(error(x_inf, x_star), at_zero, describe(problem, ["b_i = L_i x*, x* != 0"]))


def _units(random: np.random.Generator) -> Trial:
    problem, _ = _square(random)
    n, factor = problem.workers, float(random.uniform(2.0, 9.0))
    scaled = Quadratic(factor * problem.L, factor * problem.b)
    before, after = scaled_fixed_point(problem), scaled_fixed_point(scaled)
    plain = [fixed_point(p, IST(Permutation(n, n), 1e-4)) for p in (problem, scaled)]
    wrong = error(after, before)
    right = error(after, np.sqrt(factor) * before) + error(plain[1], plain[0])
    return Trial(wrong, right, describe(problem, [f"f multiplied by {factor:.3g}"]))


GENERAL = (
    Claim("(26), (27)", "E g = Lbar^{-1} grad f + h, with (23) corrected", "", "equality", _estimator),
    Claim("(28)", "E x^k = (1-gamma)^k x0 + (1-(1-gamma)^k) x_inf", "", "equality", _mean_course),
    Claim(
        "4.1",
        "as n = d grows the bias diminishes",
        "not relatively: L_i = I, b_i = b has relative distance 1 - 1/sqrt(n), which grows",
        "equality",
        _vanishing_bias,
    ),
    _theorem_2("printed"),
    Claim("(30), norm", "the norm of h is that of Lbar^2", "that of Lbar", "bound", _norm_of_h),
    _theorem_2("tight"),
    _theorem_2("beta-free"),
    Claim("beyond: gamma = 1", "Theorem 2' is an equality at gamma = 1", "", "equality", _equality_at_one),
    Claim("beyond: sigma^2", "closed form in the workers' D_i^{-1/2} b_i, no assumption", "", "equality", _noise),
    Claim("beyond: exact course", "E f(x^k) - f* of the scaled method, 0 < gamma < 2", "", "equality", _exact_course),
    Claim("(31)", "homogeneous: no noise, fixed point b~/sqrt(n)", "", "equality", _homogeneous),
    Claim("(33), (34)", "compressed gradients: noise at most omega |grad f|^2, 0 at x*", "", "bound",
          _compressed_gradient),
    Claim("(35)", "compressed models: x* is not a fixed point", "", "equality", _minimiser_moves),
    Claim(
        "section 3, a reading",
        "a shared minimiser makes IST unbiased",
        "b_i = 0 (x* = 0) does; a shared x* != 0 does not",
        "equality",
        _shared_minimiser,
    ),
    Claim(
        "beyond: units",
        "x_inf of the scaled method is a property of the problem",
        "f -> c f multiplies it by sqrt(c); the unbiased and unscaled methods do not change",
        "equality",
        _units,
    ),
)  # fmt: skip
