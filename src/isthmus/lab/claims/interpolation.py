"""Sections 2 and 3 of the paper: sketches, Theorem 1, and the interpolation case b_i = 0."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from isthmus.lab.claims.claim import Claim, Trial, describe, error, random_problem, sizes, worst_of
from isthmus.lab.methods import IST
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Identity, Permutation, RandomSparsification, ScaledPermutation, WeightedPermutation
from isthmus.lab.theory.bounds import theorem1_average, theorem1_contraction
from isthmus.lab.theory.dynamics import dynamics, mean_trajectory, quadratic_forms
from isthmus.lab.theory.theorem1 import expected_matrix, theorem1

ROUNDS = 30


def _rand_q(random: np.random.Generator) -> Trial:
    d = int(random.integers(2, 12))
    q = int(random.integers(1, d + 1))
    sketch = RandomSparsification(1, d, q)
    variance = np.trace(sketch.second_moment(np.eye(d))) / d - 2 * float(sketch.mean.mean()) + 1
    return Trial(abs(variance - (d / q - 1)) + (0.0 if sketch.unbiased else 1.0), None, f"d={d}, q={q}")


def _two_updates(random: np.random.Generator) -> Trial:
    n, d = sizes(random, square=True)
    problem = random_problem(random, n, d)
    x = random.standard_normal(d)
    differences = []
    for sketch in (ScaledPermutation(problem), Permutation(n, d)):
        means = [mean_trajectory(problem, IST(sketch, 0.1, merge=merge), x, 1)[1] for merge in ("model", "gradient")]
        differences.append(error(means[0], means[1]))
    return Trial(differences[0], differences[1], describe(problem, ["sketch (23)"]))


def _gradient_at_a_sketch(random: np.random.Generator) -> Trial:
    n, d = sizes(random)
    problem = random_problem(random, n, d)
    x = random.standard_normal(d)
    sketch = RandomSparsification(1, d, max(d // 2, 1))
    at_sketches = problem.gradient(sketch.support().diagonals[:, 0] * x).mean(axis=0) if d <= 12 else None
    found = problem.gradient(sketch.mean[0] * x) if at_sketches is None else at_sketches
    same = error(found, problem.gradient(x))
    return Trial(1.0 if same < 1e-9 else 0.0, same, describe(problem, ["Rand-q, difference of the two sides 0"]))


def _theorem_1(kind: str) -> Claim:
    place, bound = ("(15)", theorem1_average) if kind == "average" else ("(16)", theorem1_contraction)

    def trial(random: np.random.Generator) -> Trial:
        for _ in range(200):  # until the assumption W >= 0 holds
            n, d = sizes(random)
            problem = random_problem(random, n, d, biased=False)
            found = theorem1(problem, Permutation(n, d))
            if found.applies:
                break
        share = float(random.uniform(0.1, 1.0))
        method = IST(Permutation(n, d), share * found.stepsize)
        checked = bound(problem, method, random.standard_normal(d), ROUNDS)
        return Trial(checked.worst_ratio, None, describe(problem, [f"gamma={share:.2f}/theta"]))

    what = "average of |grad f|^2 <= 2(f0 - E f_K)/(gamma K)" if kind == "average" else "linear rate in the Lbar norm"
    return Claim(place, f"Theorem 1: {what}", "", "bound", trial)


def _identity(random: np.random.Generator) -> Trial:
    n, d = sizes(random)
    problem = random_problem(random, n, d, biased=False)
    theta = theorem1(problem, Identity(n, d)).theta
    return Trial(error(theta, float(problem.spectrum[-1])), None, describe(problem))


def _perm_1_mean(random: np.random.Generator) -> Trial:
    n, d = sizes(random, square=True)
    problem = random_problem(random, n, d)
    Dbar = np.diag(np.diagonal(problem.mean_matrix))
    found = expected_matrix(problem, Permutation(n, d))
    # as printed: (1/n) sum_i n^2 E[C_i L_i C_i] with C_i that carry n already
    return Trial(error(n**2 * found, n * Dbar), error(found, n * Dbar), describe(problem))


def _perm_1_condition(random: np.random.Generator) -> Trial:
    n, d = sizes(random, square=True)
    problem = random_problem(random, n, d)
    found = theorem1(problem, Permutation(n, d))
    product = found.mean @ problem.mean_matrix @ found.mean
    smallest = float(linalg.eigvalsh(found.square - product)[0]) / float(np.abs(product).max())
    return Trial(error(product, found.square), max(0.0, -smallest), describe(problem, ["E[B] L E[B] against E[B L B]"]))


def _two_by_two(random: np.random.Generator) -> tuple[Quadratic, float, float, float]:
    a, b = float(random.uniform(0.5, 2.0)), float(random.uniform(4.0, 20.0))
    low, high = 2 * a * b / (a + b), float(np.sqrt(a * b))
    c = low + float(random.uniform(0.1, 0.9)) * (high - low)
    L = np.array([[a, c], [c, b]])
    return Quadratic(np.broadcast_to(L, (2, 2, 2)), np.zeros((2, 2))), a, b, c


def _remark_1_matrix(random: np.random.Generator) -> Trial:
    problem, a, b, c = _two_by_two(random)
    W = theorem1(problem, Permutation(2, 2)).W
    printed = np.array([[a * a, c * (a + b) / 2], [c * (a + b) / 2, b * b]])
    indefinite = 0.0 if linalg.eigvalsh(W)[0] < 0 else 1.0
    case = f"a={a:.3g}, b={b:.3g}, c={c:.3g}"
    return Trial(error(printed, W), error(2 * printed, W) + indefinite, case)


def _remark_1_divergence(random: np.random.Generator) -> Trial:
    problem, a, b, c = _two_by_two(random)
    worst = linalg.eigh(theorem1(problem, Permutation(2, 2)).W)[1][:, 0]
    gamma = 0.25 / b
    gap = dynamics(problem, IST(Permutation(2, 2), gamma), worst, 20_000 // int(1 + 10 * a)).gap
    case = f"a={a:.3g}, b={b:.3g}, c={c:.3g}: f rises first, then falls to {gap[-1] / gap[0]:.1g} of its start"
    return Trial(1.0 if gap[-1] < 1e-6 * gap[0] else 0.0, float(gap[-1] / gap[0]), case)


def _change_of_variables(random: np.random.Generator) -> Trial:
    n, d = sizes(random)
    problem = random_problem(random, n, d, homogeneous=True, biased=False)
    root = np.sqrt(np.diagonal(problem.L[0]))
    x = random.standard_normal(d)
    tilde = problem.L[0] / np.outer(root, root)
    values = [0.5 * y @ tilde @ y for y in (x / root, x * root)]
    want = float(problem.value(x))
    return Trial(error(values[0], want), error(values[1], want), describe(problem))


def _preconditioned(random: np.random.Generator) -> Quadratic:
    n, _ = sizes(random, square=True)
    L = random_problem(random, n, n, homogeneous=True).L[0]
    root = np.sqrt(np.diagonal(L))
    tilde = L / np.outer(root, root)
    return Quadratic(np.broadcast_to(tilde, (n, n, n)), np.zeros((n, n)))


def _homogeneous_theta(random: np.random.Generator) -> Trial:
    problem = _preconditioned(random)
    n = problem.workers
    found = theorem1(problem, Permutation(n, n))
    return Trial(error(found.mean, n * np.eye(n)) + error(found.theta, float(n)), None, describe(problem))


def _smallest_of_inverse(random: np.random.Generator) -> Trial:
    problem = _preconditioned(random)
    smallest = float(linalg.eigvalsh(linalg.inv(problem.L[0]))[0])
    largest = float(problem.spectrum[-1])
    return Trial(error(largest, smallest), error(1 / largest, smallest), describe(problem))


def _matches_gradient_descent(random: np.random.Generator) -> Trial:
    problem = _preconditioned(random)
    n = problem.workers
    method = IST(Permutation(n, n), 1.0 / n)
    return Trial(_average_ratio(problem, method, random), None, describe(problem))


def _heterogeneous_average(random: np.random.Generator) -> Trial:
    n, _ = sizes(random, square=True)
    problem = random_problem(random, n, n, biased=False)
    return Trial(_average_ratio(problem, IST(ScaledPermutation(problem), 1.0), random), None, describe(problem))


def _average_ratio(problem: Quadratic, method: IST, random: np.random.Generator) -> float:
    """Mean of E|grad f|^2 over 2 lambda_max(Lbar)(f0 - E f_K)/K."""
    L = problem.mean_matrix
    gaps, norms = quadratic_forms(problem, method, random.standard_normal(problem.dim), ROUNDS, [0.5 * L, L @ L])
    K = np.arange(1, ROUNDS + 1)
    bound = 2 * float(problem.spectrum[-1]) * (gaps[0] - gaps[1:]) / K
    return worst_of(bound, np.cumsum(norms)[:-1] / K)


def _scaled_sketch(random: np.random.Generator) -> Trial:
    n, _ = sizes(random, square=True)
    problem = random_problem(random, n, n)
    roots = np.stack([np.diagonal(linalg.inv(linalg.sqrtm(L).real)) for L in problem.L])
    printed = expected_matrix(problem, WeightedPermutation(np.sqrt(n) * roots))
    corrected = expected_matrix(problem, ScaledPermutation(problem))
    smallest = float(np.diagonal(printed).min())
    case = describe(problem, [f"printed E[B] is diagonal, {smallest:.3g} .. {np.diagonal(printed).max():.3g}"])
    return Trial(error(printed, np.eye(n)), error(corrected, np.eye(n)), case)


def _one_iteration(random: np.random.Generator) -> Trial:
    n, _ = sizes(random, square=True)
    problem = random_problem(random, n, n, biased=False)
    found = theorem1(problem, ScaledPermutation(problem))
    after = dynamics(problem, IST(ScaledPermutation(problem), 1.0), np.ones(n), 1)
    return Trial(error(found.rate, 1.0) + float(after.gap[1] / after.gap[0]), None, describe(problem))


INTERPOLATION = (
    Claim("(3), (4)", "Rand-q is unbiased with variance d/q - 1", "", "equality", _rand_q),
    Claim(
        "Alg. 1, (6)",
        "Algorithm 1 is the analysed method (2), for the sketches used",
        "only where (1/n) sum C_i = I; with (23) Algorithm 1 shrinks the model by 1/sqrt(n) a round",
        "equality",
        _two_updates,
    ),
    Claim(
        "(10)",
        "E grad f(C(x)) differs from grad f(x)",
        "they are equal for quadratics; the bias comes from the second sketch, correlated with the first",
        "equality",
        _gradient_at_a_sketch,
    ),
    _theorem_1("average"),
    _theorem_1("contraction"),
    Claim("3.1, identity", "theta = lambda_max(Lbar) for the identity sketch", "", "equality", _identity),
    Claim(
        "3.1, permutation",
        "E[B] = (1/n) sum n^2 E[C_i L_i C_i] = n Dbar",
        "E[B] = (1/n) sum E[C_i L_i C_i] = n Dbar, for n = d (the printed n = d^2 is footnote 2)",
        "equality",
        _perm_1_mean,
    ),
    Claim(
        "(17)",
        "(14) leads to n D L D <= (theta/2)(L D + D L)",
        "necessary only: it has E[B] L E[B] for E[B L B], which is larger unless the workers are equal",
        "equality",
        _perm_1_condition,
    ),
    Claim("Remark 1, (19)", "W = (L D + D L)/2", "W = n (L D + D L)/2, indefinite for 2ab/(a+b) < |c| < sqrt(ab)",
          "equality", _remark_1_matrix),
    Claim(
        "Remark 1, a reading",
        "convergence needs W >= 0",
        "f may rise in a round, as the remark says, but every realisation contracts: the expected gap goes to 0",
        "equality",
        _remark_1_divergence,
    ),
    Claim("(20)", "the change of variables is x~ = D^{-1/2} x", "x~ = D^{1/2} x", "equality", _change_of_variables),
    Claim("3.1.1", "E[B] = n I and theta = n after preconditioning", "", "equality", _homogeneous_theta),
    Claim("(21)", "lambda_min(L~^{-1}) = lambda_max(L~)", "it is 1/lambda_max(L~)", "equality", _smallest_of_inverse),
    Claim("(22)", "Perm-1 on the preconditioned problem has GD's rate", "", "bound", _matches_gradient_descent),
    Claim(
        "(23)",
        "[L_i^{-1/2}]_{aa} gives E[B] = I",
        "(L_{i,aa})^{-1/2} does, in every realisation; the printed one gives E[B] diagonal, at least I",
        "equality",
        _scaled_sketch,
    ),
    Claim("(24)", "the scaled sketch has GD's rate at gamma = 1", "", "bound", _heterogeneous_average),
    Claim("(25)", "at gamma = 1 it converges in one iteration", "", "equality", _one_iteration),
)  # fmt: skip
