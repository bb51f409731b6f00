"""Anchored IST: exact dynamics against brute force and simulation, its theorem, its step-size rule, its limit."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.lab import IST, Bernoulli, Identity, Permutation, Quadratic, RandomSparsification, simulate
from isthmus.lab.bounds import Bound
from isthmus.lab.measure import Budget, judge, measure
from isthmus.lab.methods import AnchoredIST, GradientDescent
from isthmus.lab.problems import LeastSquares, Logistic, Samples, random_quadratic
from isthmus.lab.rates import (
    Setting,
    anchored_dynamics,
    anchored_factor,
    asymptotic_factor,
    best_momentum,
    best_momentum_of,
    best_scale,
    bounds,
    largest_stepsize,
    surrogate,
    with_default_stepsize,
)
from isthmus.lab.rates.anchored_dynamics import lifted_round, renewed
from isthmus.lab.simulate import Watch
from isthmus.lab.theory import fixed_point, relative_gap

GRID = [
    (dim, workers, condition, heterogeneity, scale)
    for dim in (6, 15)
    for workers in (2, 3, 5)
    for condition in (2.0, 10.0, 100.0)
    for heterogeneity in (0.0, 0.5, 1.0)
    for scale in ("unbiased", "free")
]


def sketch_of(workers, dim, scale):
    return Permutation(workers, dim, None if scale == "unbiased" else float(np.sqrt(workers)))


def brute_force(problem, method, x0, rounds):
    """(E f - f*, E x) after every round, by following every path of partitions (and of renewals) on its own."""
    support = method.sketch.support()
    chances = [(p, c) for p, c in zip(support.probabilities, support.diagonals, strict=True)]
    states = [(1.0, x0, x0, x0)]
    gaps, means = [float(problem.gap(x0))], [x0]
    Lbar = problem.mean_matrix
    for k in range(1, rounds + 1):
        fixed = not isinstance(method.period, float)
        renewals = [(1.0, k % method.period == 0)] if fixed else [(method.period, True), (1 - method.period, False)]
        following = []
        for (weight, x, y, ended), (p, C), (q, renew) in itertools.product(states, chances, renewals):
            G = Lbar @ y - problem.mean_vector
            change = np.zeros_like(x)
            for L, b, c in zip(problem.L, problem.b, C, strict=True):
                z = c * x
                for _ in range(method.local_steps):
                    z = z - method.stepsize * c * ((L @ z - b) - (L @ (c * y) - b) + G)
                change += (z - c * x) / problem.workers
            moved = x + change - method.stepsize * method.local_steps * (1 - C.mean(axis=0)) * G
            anchor = moved + method.momentum * (moved - ended)
            after = (anchor, anchor, moved) if renew else (moved, y, ended)
            following.append((weight * p * q, *after))
        states = following
        gaps.append(sum(weight * float(problem.gap(x)) for weight, x, *_ in states))
        means.append(sum(weight * x for weight, x, *_ in states))
    return np.array(gaps), np.array(means)


@pytest.mark.parametrize(
    ("sketch", "period", "local_steps", "momentum"),
    [
        (Permutation(2, 4), 2, 1, 0.0),
        (Permutation(2, 4, scale=1.0), 2, 1, 0.4),
        (Permutation(3, 3, scale=3.0**0.5), 0.4, 1, 0.0),
        (Permutation(2, 3), 0.3, 1, 0.5),
        (Permutation(2, 4), 2, 3, 0.0),
        (Permutation(2, 3, scale=1.0), 2, 2, 0.3),
        (Bernoulli(2, 2, 0.6), 2, 1, 0.2),
        (RandomSparsification(2, 3, 2), 3, 1, 0.0),
        (RandomSparsification(2, 3, 2), 2, 2, 0.0),
        (Identity(2, 3), 2, 3, 0.1),
    ],
    ids=repr,
)
def test_exact_dynamics_agree_with_every_path(sketch, period, local_steps, momentum):
    problem = random_quadratic(sketch.workers, sketch.dim, 8.0, 1.0, seed=4)
    method = AnchoredIST(sketch, 0.04, period, local_steps, momentum)
    x0 = np.arange(1.0, sketch.dim + 1)
    rounds = 3
    exact = anchored_dynamics(problem, method, x0, rounds)
    gaps, means = brute_force(problem, method, x0, rounds)
    np.testing.assert_allclose(exact.gap, gaps, rtol=1e-11)
    np.testing.assert_allclose(exact.mean, means, rtol=1e-10)
    np.testing.assert_allclose(exact.bias, problem.gap(means), rtol=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.4])
@pytest.mark.parametrize("period", [4, 0.25])
def test_exact_dynamics_agree_with_simulation(period, momentum):
    problem = LeastSquares(Samples.gaussian(6, 60, 80, seed=1))
    method = AnchoredIST(Permutation(6, 60, 6**0.5), 0.05, period, momentum=momentum)
    exact = anchored_dynamics(problem, method, np.zeros(60), 24)
    run = simulate(problem, method, np.zeros(60), 24, 1500)
    assert (np.abs(run.mean_gap - exact.gap) <= 4 * run.standard_error + 1e-9 * exact.gap).all()


@pytest.mark.parametrize("case", GRID, ids=str)
def test_theorem_holds_and_the_rule_converges(case):
    """From anchor to anchor the exact gap keeps to the proved factor, and the rule's step contracts in mean square."""
    dim, workers, condition, heterogeneity, scale = case
    problem = random_quadratic(workers, dim, condition, heterogeneity, seed=7)
    sketch, setting = sketch_of(workers, dim, scale), Setting(problem, np.ones(dim), 24)
    found = surrogate(problem, sketch)
    for period, share in ((1, 1.0), (3, 1.0), (8, 0.3)):
        step = min(share / found.theta, 1 / float(problem.spectrum[-1]))
        method = AnchoredIST(sketch, step, period)
        factor = anchored_factor(problem, found, step, period)
        gaps = anchored_dynamics(problem, method, np.ones(dim), 24).gap[::period]
        assert (gaps[1:] <= factor * gaps[:-1] * (1 + 1e-9)).all()
    method = with_default_stepsize(AnchoredIST(sketch, 1.0, 5), setting)
    assert asymptotic_factor(problem, method) < 1.0


@settings(max_examples=25)
@given(
    st.integers(2, 4),
    st.integers(1, 3),
    st.floats(1.0, 50.0),
    st.floats(0.0, 1.0),
    st.integers(1, 9),
    st.integers(0, 99),
)
def test_small_steps_have_a_proved_linear_rate(workers, blocks, condition, heterogeneity, period, seed):
    """For every problem there are steps at which the theorem's factor is below 1."""
    problem = random_quadratic(workers, workers * blocks, condition, heterogeneity, seed)
    for scale in ("unbiased", "free"):
        found = surrogate(problem, sketch_of(workers, workers * blocks, scale))
        factors = [anchored_factor(problem, found, 2.0**-k / found.theta, period) for k in range(25)]
        assert min(factors) < 1.0


def test_one_round_periods_have_gradient_descents_factor():
    problem = random_quadratic(3, 6, 10.0, 1.0, seed=2)
    found = surrogate(problem, Permutation(3, 6))
    values = problem.spectrum
    expected = np.abs(1 - 0.01 * values).max() ** 2
    assert anchored_factor(problem, found, 0.01, 1) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("period", [3, 0.5])
def test_asymptotic_factor_is_the_spectral_radius_of_the_lifted_map(period):
    problem = random_quadratic(2, 3, 10.0, 1.0, seed=2)
    method = AnchoredIST(Permutation(2, 3, 2**0.5), 0.08, period, momentum=0.3)
    step, d = lifted_round(problem, method), 3
    columns = []
    for a, b, i, j in itertools.product(range(3), range(3), range(d), range(d)):
        M = np.zeros((3, 3, d, d))
        M[a, b, i, j] += 0.5
        M[b, a, j, i] += 0.5  # a second moment is symmetric
        for k in range(1, (period if isinstance(period, int) else 1) + 1):
            _, M = renewed(method, k, np.zeros((3, d)), step.second(M))
        columns.append(M.ravel())
    radius = np.abs(np.linalg.eigvals(np.stack(columns, axis=1))).max()
    rounds = period if isinstance(period, int) else 1
    assert asymptotic_factor(problem, method) == pytest.approx(radius ** (1 / rounds), rel=1e-9)


@pytest.mark.parametrize("period", [21, 22, 200])
def test_a_long_period_is_its_rounds_one_by_one(period):
    """d = 2: the map of second moments has 21 rows, so from 22 rounds on its matrix is raised to a power."""
    problem = random_quadratic(2, 2, 5.0, 1.0, seed=3)
    method = AnchoredIST(Permutation(2, 2, 2**0.5), 0.02, period, momentum=0.3)
    step = lifted_round(problem, method)
    columns = []
    for a, b in zip(*np.triu_indices(6), strict=True):
        S = np.zeros((6, 6))
        S[a, b] = S[b, a] = 1.0
        M = S.reshape(3, 2, 3, 2).transpose(0, 2, 1, 3)
        for k in range(1, period + 1):
            _, M = renewed(method, k, np.zeros((3, 2)), step.second(M))
        columns.append(M.transpose(0, 2, 1, 3).reshape(6, 6)[np.triu_indices(6)])
    radius = np.abs(np.linalg.eigvals(np.stack(columns, axis=1))).max()
    assert asymptotic_factor(problem, method) == pytest.approx(radius ** (1 / period), rel=1e-12)


def test_a_period_of_a_million_rounds_takes_no_million_rounds():
    """One worker that holds everything: gradient descent, whatever the anchors; more coordinates are refused."""
    problem = Quadratic([[[1.0]]], [[1.0]])
    method = AnchoredIST(Permutation(1, 1), 1e-7, 10**6)
    assert asymptotic_factor(problem, method) == pytest.approx((1 - 1e-7) ** 2, abs=1e-15)
    assert asymptotic_factor(problem, AnchoredIST(Permutation(1, 1), 2.5, 10**6)) == np.inf
    large = random_quadratic(13, 13, 5.0, 0.0, seed=3)
    with pytest.raises(InvalidInput, match="at most 1000 for an exact answer"):
        asymptotic_factor(large, AnchoredIST(Permutation(13, 13), 1e-7, 10**6))


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.7, 0.8, 0.9, 0.99])
@pytest.mark.parametrize("copies", [1, 12], ids=["dense", "ARPACK"])
def test_asymptotic_factor_sees_through_oscillation(beta, copies):
    """f = x^2/2, one worker, step 0.1, an anchor a round: Nesterov's iteration, complex above beta = 0.52."""
    problem = Quadratic([np.eye(copies)], [np.ones(copies)])
    found = asymptotic_factor(problem, AnchoredIST(Permutation(1, copies), 0.1, 1, momentum=beta))
    by_hand = np.abs(np.linalg.eigvals([[0.9 * (1 + beta), -0.9 * beta], [1.0, 0.0]])).max() ** 2
    assert found == pytest.approx(by_hand, rel=1e-10)
    assert found.error <= 1e-9


@pytest.mark.parametrize("workers", [1, 4])
def test_default_step_of_loopless_periods_moves_the_mean_no_further_than_the_minimizer(workers):
    """f = x'x/2 in one unit each: N is the mean of 1 - (1 - g)^tau over a geometric period tau, at most 1."""
    for seed in range(10):
        problem = Quadratic.gaussian(workers, 4, seed, homogeneous=workers > 1)
        method = AnchoredIST(Permutation(workers, 4, 0.7 if workers > 1 else None), 1.0, 0.3)
        found = with_default_stepsize(method, Setting(problem, np.zeros(4), 10))
        assert 0.0 < found.stepsize < np.inf
        assert asymptotic_factor(problem, found) < 1.0
    law = [0.3 * 0.7**k for k in range(400)]  # the period is k + 1 rounds
    problem = Quadratic([np.diag([1.0, 0.2])], [[0.0, 0.0]])
    moved = [1 - sum(p * (1 - 0.9 * v) ** (k + 1) for k, p in enumerate(law)) for v in (0.2, 1.0)]
    beta = best_momentum(problem, AnchoredIST(Permutation(1, 2), 0.9, 0.3))
    assert beta == pytest.approx(best_momentum_of(moved[0]), rel=1e-12)


def test_a_worker_that_holds_nothing_stays_out_of_the_local_steps():
    problem = Quadratic.gaussian(2, 2, seed=0)
    method = AnchoredIST(Bernoulli(2, 2, 0.5), 0.01, 3, local_steps=2)
    exact = anchored_dynamics(problem, method, [1.0, 1.0], 6)
    run = simulate(problem, method, np.ones(2), 6, 4000)
    assert (np.abs(run.mean_gap - exact.gap) <= 4 * run.standard_error + 1e-9 * exact.gap).all()


def test_best_scale_contracts_fastest_between_far_anchors():
    problem = LeastSquares(Samples.gaussian(4, 12, 30, seed=1))
    best = best_scale(4, problem)

    def contraction(scale):
        ratios = surrogate(problem, Permutation(4, 12, scale)).ratios
        return np.abs(1 - ratios).max()

    at_best = contraction(best)
    assert all(at_best <= contraction(scale) + 1e-12 for scale in np.linspace(0.5, 8.0, 60))
    assert contraction(4.0) > at_best + 0.05  # the unbiased scale pays for a bias that is no longer there


@pytest.mark.parametrize("scale", ["unbiased", "free"])
@pytest.mark.parametrize("period", [5, 0.2])
def test_it_converges_where_plain_ist_stalls(scale, period):
    problem = LeastSquares(Samples.gaussian(6, 60, 80, seed=0))
    x0 = np.zeros(60)
    plain = with_default_stepsize(IST(Permutation(6, 60), 1.0), Setting(problem, x0, 1))
    stall = relative_gap(problem, fixed_point(problem, plain), x0)
    assert stall > 0.1
    method = with_default_stepsize(AnchoredIST(sketch_of(6, 60, scale), 1.0, period), Setting(problem, x0, 1))
    run = simulate(problem, method, x0, 4000, 2, watch=Watch(target=1e-11 * float(problem.gap(x0))))
    assert run.gap[:, -1].max() <= 1e-10 * run.gap[0, 0]


def test_it_converges_on_logistic_regression():
    samples = Samples.gaussian(4, 12, 30, seed=1, heterogeneity=0.3)
    problem = Logistic(Samples(samples.features, np.sign(samples.targets), samples.counts), 0.1)
    method = AnchoredIST(Permutation(4, 12, 2.0), 0.2, 3)
    run = simulate(problem, method, np.zeros(12), 1500, 2)
    assert run.gap[:, -1].max() <= 1e-10 * run.gap[0, 0]
    plain = simulate(problem, IST(Permutation(4, 12), 0.05), np.zeros(12), 1500, 2)
    assert plain.gap[:, -1].min() > 1e-3 * run.gap[0, 0]


@pytest.mark.parametrize("heterogeneity", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("condition", [10.0, 100.0])
def test_momentum_pays_where_anchors_are_ill_conditioned(condition, heterogeneity):
    """Nesterov's momentum for the mean converges in mean square too, by the exact second moments, and faster."""
    problem = random_quadratic(4, 8, condition, heterogeneity, seed=3)
    setting = Setting(problem, np.ones(8), 1)
    plain = with_default_stepsize(AnchoredIST(Permutation(4, 8, 2.0), 1.0, 5), setting)
    momentum = best_momentum(problem, plain)
    assert 0.0 < momentum < 1.0
    fast = replace(plain, momentum=momentum)
    assert asymptotic_factor(problem, fast) < asymptotic_factor(problem, plain) ** 1.5


def test_momentum_is_nesterovs_with_one_round_periods():
    """m = 1 is gradient descent: N = gamma I, so beta = (1 - sqrt(gamma mu))/(1 + sqrt(gamma mu))."""
    problem = random_quadratic(3, 6, 10.0, 1.0, seed=2)
    root = np.sqrt(0.01 * problem.spectrum[0])
    found = best_momentum(problem, AnchoredIST(Permutation(3, 6), 0.01, 1))
    assert found == pytest.approx((1 - root) / (1 + root), rel=1e-10)


def test_bounds_are_the_exact_course_and_the_theorem():
    problem = random_quadratic(3, 6, 10.0, 1.0, seed=2)
    setting = Setting(problem, np.ones(6), 40)
    method = with_default_stepsize(AnchoredIST(Permutation(3, 6), 1.0, 4), setting)
    exact, theorem = bounds(method, setting)
    assert (exact.kind, theorem.kind) == ("tight", "upper")
    measured = measure(problem, method, setting.x0, Budget(40, 400), {"gap"})
    assert judge(exact, measured).holds
    assert judge(theorem, measured).holds is not False
    wrong = Bound("", "gap", 0.9 * exact.values, "tight", (), "")
    assert judge(wrong, measured).holds is False


def test_moments_that_are_not_known_are_refused():
    class Sampled:
        def sample(self, random):
            return np.ones((2, 3))

    problem = random_quadratic(2, 3, 10.0, 1.0, seed=2)
    with pytest.raises(InvalidInput, match="does not enumerate"):
        anchored_dynamics(problem, AnchoredIST(Sampled(), 0.1, 2), np.ones(3), 3)
    with pytest.raises(InvalidInput, match="known by its samples only"):
        surrogate(problem, AnchoredIST(Sampled(), 0.1, 2).sketch)
    run = simulate(problem, AnchoredIST(Sampled(), 0.05, 2), np.ones(3), 5, 2)
    plain = simulate(problem, GradientDescent(0.05), np.ones(3), 5, 2)
    np.testing.assert_allclose(run.gap, plain.gap, rtol=1e-10)


def test_the_rule_is_half_the_contraction_limit_for_the_unbiased_scale():
    from isthmus.lab.theory.stepsizes import contraction_limit

    problem = random_quadratic(3, 6, 10.0, 1.0, seed=2)
    setting = Setting(problem, np.ones(6), 1)
    sketch = Permutation(3, 6)
    assert largest_stepsize(AnchoredIST(sketch, 1.0, 50), setting) == 0.5 * contraction_limit(problem, sketch)


@pytest.mark.parametrize("period", [3, 0.4])
def test_permuting_the_coordinates_permutes_the_exact_moments(period):
    problem = random_quadratic(3, 7, 10.0, 1.0, seed=4)
    order = np.random.default_rng(0).permutation(7)
    turned = Quadratic(problem.L[:, order][:, :, order], problem.b[:, order])
    x0 = np.arange(7.0)
    method = AnchoredIST(Permutation(3, 7), 0.05, period)
    one, other = anchored_dynamics(problem, method, x0, 30), anchored_dynamics(turned, method, x0[order], 30)
    assert np.allclose(other.mean, one.mean[:, order], rtol=1e-10, atol=1e-12)
    assert np.allclose(other.bias, one.bias, rtol=1e-9)
    assert np.allclose(other.variance, one.variance, rtol=1e-9, atol=1e-14)
