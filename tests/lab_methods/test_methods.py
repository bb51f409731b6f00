"""What every method must keep to: degenerate cases, purity, batches, divergence, misuse."""

import math

import numpy as np
import pytest

from cases.methods import BUILDERS, averaged, build, degenerate
from isthmus.errors import InvalidInput
from isthmus.lab import IST, GradientDescent, Permutation, Quadratic, simulate
from isthmus.lab.compressors import (
    Participation,
    PermK,
    RandK,
    TopK,
)
from isthmus.lab.methods import (
    DCGD,
    DIANA,
    EF21,
    MARINA,
    AnchoredIST,
    BlockCoordinateDescent,
    BlockGradientIST,
    DistributedGDCI,
    Draws,
    LocalGradientDescent,
    ProxSkip,
)
from isthmus.lab.problems import LeastSquares, Logistic, Minibatch, Samples, random_quadratic
from isthmus.lab.rates import local_fixed_point

N, D, GAMMA = 4, 10, 0.05
PROBLEM = random_quadratic(N, D, 10.0, 1.0, seed=1)
EQUAL = random_quadratic(N, D, 10.0, 0.0, seed=1)
X0 = np.linspace(-1.0, 2.0, D)


def course(method, problem=PROBLEM, rounds=30, seeds=3):
    return simulate(problem, method, X0, rounds, seeds, seed=5)


def assert_same(one, other, tolerance=1e-12):
    """The same iterates in every round, to rounding."""
    scale = float(one.gap[0, 0])
    np.testing.assert_allclose(one.gap, other.gap, rtol=1e-9, atol=tolerance * scale)
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", degenerate(N, D, GAMMA), ids=repr)
def test_degenerate_cases_are_gradient_descent(method):
    assert_same(course(method), course(GradientDescent(GAMMA)))


@pytest.mark.parametrize(
    "method", [DCGD(PermK(N, D), GAMMA), MARINA(PermK(N, D), GAMMA, 0.2), BlockGradientIST(Permutation(N, D), GAMMA)]
)
def test_perm_k_with_equal_workers_is_gradient_descent(method):
    assert_same(course(method, EQUAL), course(GradientDescent(GAMMA), EQUAL))


def test_ist_of_one_worker_is_gradient_descent():
    problem = random_quadratic(1, D, 10.0, 1.0, seed=1)
    for method in (IST(Permutation(1, D), GAMMA), AnchoredIST(Permutation(1, D), GAMMA, 3)):
        assert_same(course(method, problem), course(GradientDescent(GAMMA), problem))


def test_diana_without_learning_is_dcgd():
    one, other = course(DIANA(RandK(D, 3), GAMMA, 0.0)), course(DCGD(RandK(D, 3), GAMMA))
    np.testing.assert_array_equal(one.gap, other.gap)


def test_block_gradient_ist_is_dcgd_with_perm_k():
    """One law drawn under two names: the same distribution, seen in the mean over many seeds."""
    one = course(BlockGradientIST(Permutation(N, D), GAMMA), rounds=4, seeds=20_000)
    other = course(DCGD(PermK(N, D), GAMMA), rounds=4, seeds=20_000)
    error = 5 * np.hypot(one.standard_error, other.standard_error)
    assert (np.abs(one.mean_gap - other.mean_gap) <= error + 1e-12).all()


def test_proxskip_controls_sum_to_zero():
    method, state = ProxSkip(GAMMA, 0.3), None
    state = method.init(PROBLEM, np.tile(X0, (3, 1)))
    for k in range(1, 40):
        state = method.step(PROBLEM, state, Draws(0, k, 3))
        assert np.abs(state.controls.sum(axis=1)).max() < 1e-10


def test_a_loopless_period_is_the_fixed_one_where_both_always_renew():
    """A probability next to 1 renews in every one of these rounds."""
    loopless = AnchoredIST(Permutation(N, D), GAMMA, 1.0 - 1e-12)
    assert_same(course(loopless), course(AnchoredIST(Permutation(N, D), GAMMA, 1)))


def test_local_gradient_descent_goes_to_its_exact_limit():
    method = LocalGradientDescent(GAMMA, 6)
    L, b = PROBLEM.L, PROBLEM.b
    A = [np.eye(D) - np.linalg.matrix_power(np.eye(D) - GAMMA * Li, 6) for Li in L]
    limit = np.linalg.solve(sum(A), sum(Ai @ np.linalg.solve(Li, bi) for Ai, Li, bi in zip(A, L, b, strict=True)))
    np.testing.assert_allclose(local_fixed_point(PROBLEM, method), limit, rtol=1e-11)
    np.testing.assert_allclose(course(method, rounds=200).final[0], limit, rtol=1e-11)
    assert PROBLEM.gap(limit) > 1e-5


EXACT = ["gradient descent", "DIANA, Rand-K", "DIANA, dithering", "DIANA, Perm-K", "DIANA, natural on Rand-K",
         "DIANA, partial participation", "MARINA, Rand-K", "MARINA, Perm-K", "EF21, Top-K", "EF21, scaled Rand-K",
         "ProxSkip", "block coordinate descent", "anchored IST", "anchored IST, loopless",
         "anchored IST, local steps", "anchored IST, momentum"]  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_the_minimiser_is_where_exact_methods_end(name):
    problem = random_quadratic(N, D, 3.0, 1.0, seed=2)
    run = simulate(problem, build(name, problem, X0), X0, 6000, 2, seed=1)
    assert run.gap[:, -1].max() <= 1e-10 * run.gap[0, 0]


@pytest.mark.parametrize("name", ["DCGD, Rand-K", "GDCI, natural", "distributed GDCI", "local gradient descent", "IST",
                                  "block-gradient IST"])  # fmt: skip
def test_the_others_stall_where_workers_differ(name):
    problem = random_quadratic(N, D, 3.0, 1.0, seed=2)
    run = simulate(problem, build(name, problem, X0), X0, 2000, 8, seed=1)
    assert run.mean_gap[-500:].min() > 1e-6 * run.gap[0, 0]


@pytest.mark.parametrize("name", BUILDERS)
def test_a_seed_does_not_depend_on_the_batch_and_a_step_changes_nothing_it_was_given(name):
    method = build(name, PROBLEM, X0)
    few, many = course(method, rounds=12, seeds=2), course(method, rounds=12, seeds=7)
    np.testing.assert_allclose(few.gap, many.gap[:2], rtol=1e-9)
    state = method.init(PROBLEM, np.tile(X0, (2, 1)))
    before = {key: np.array(value) for key, value in vars(state).items()}
    first = method.step(PROBLEM, state, Draws(0, 5, 2))
    for key, value in before.items():
        np.testing.assert_array_equal(getattr(state, key), value)
    np.testing.assert_array_equal(first.x, method.step(PROBLEM, state, Draws(0, 5, 2)).x)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_step_far_too_large_diverges_as_a_result(name):
    method = type(build(name, PROBLEM, X0))(**{**vars(build(name, PROBLEM, X0)), "stepsize": 50.0})
    assert course(method, rounds=400).diverged_at is not None


@pytest.mark.parametrize("name", ["anchored IST", "anchored IST, local steps", "IST"])
def test_quadratics_agree_with_the_path_for_other_problems(name):
    """The same least squares by matrices, and by gradients alone through full minibatch-free samples."""
    samples = Samples.gaussian(N, D, 15, seed=3)
    problem = LeastSquares(samples)
    method = build(name, problem, X0)

    class ByGradients:
        workers, dim = N, D
        gap, gradient, worker_gradients = problem.gap, problem.gradient, problem.worker_gradients

    one, other = course(method, problem), course(method, ByGradients())
    np.testing.assert_allclose(one.gap, other.gap, rtol=1e-8)


@pytest.mark.parametrize("name", BUILDERS)
def test_minibatches_and_logistic_regression_run(name):
    """Descent on real use: stochastic gradients for all methods, and a problem that is not quadratic."""
    samples = Samples.gaussian(N, D, 15, seed=3, heterogeneity=0.3)
    signs = Samples(samples.features, np.where(samples.targets > 0, 1.0, -1.0), samples.counts)
    for problem in (Minibatch(LeastSquares(samples), 5), Logistic(signs, 0.1), Minibatch(Logistic(signs, 0.1), 5)):
        method = build(name, problem, X0)
        method = type(method)(**{**vars(method), "stepsize": 0.3 * method.stepsize})
        run = simulate(problem, method, X0, 150, 4)
        assert run.diverged_at is None
        assert run.mean_gap[-1] < 0.9 * run.mean_gap[0]


def test_minibatch_gradients_are_unbiased_with_the_variance_of_a_mean():
    samples = Samples.gaussian(3, 4, 11, seed=3)
    for problem in (LeastSquares(samples, 0.1), Logistic(Samples(samples.features, np.sign(samples.targets),
                                                               samples.counts), 0.1)):  # fmt: skip
        x = np.tile([1.0, -1.0, 0.5, 0.0], (40_000, 1))
        drawn = Minibatch(problem, 4).sampled_gradients(x, Draws(0, 1, 1).generator("t"))
        single = Minibatch(problem, 1).sampled_gradients(x, Draws(0, 1, 1).generator("t"))
        exact = problem.worker_gradients(x[:1])[0]
        error = 5 * drawn.std(axis=0) / 200
        assert (np.abs(drawn.mean(axis=0) - exact) <= error + 1e-12).all()
        ratio = single.var(axis=0).sum() / drawn.var(axis=0).sum()
        assert ratio == pytest.approx(4.0, rel=0.1)


def test_marina_compares_the_same_samples():
    """With Perm-K, equal workers' data and one sample each, a difference at one point is exactly zero."""
    samples = Samples.gaussian(N, D, 15, seed=3)
    problem = Minibatch(LeastSquares(samples), 1)
    method = MARINA(RandK(D, 2), 1e-300, 0.01)
    state = method.init(problem, np.tile(X0, (2, 1)))
    after = method.step(problem, state, Draws(0, 1, 2))
    np.testing.assert_array_equal(after.estimate, state.estimate)


def test_averages_are_means_of_the_iterates():
    method = build("DCGD, Rand-K", PROBLEM, X0)
    mean = averaged(method)
    state, inner, seen = mean.init(PROBLEM, X0[None]), method.init(PROBLEM, X0[None]), []
    for k in range(1, 9):
        state, inner = mean.step(PROBLEM, state, Draws(0, k, 1)), method.step(PROBLEM, inner, Draws(0, k, 1))
        seen.append(inner.x)
    np.testing.assert_allclose(state.x, np.mean(seen[3:], axis=0), rtol=1e-12)


def test_participants_are_as_many_as_asked_for():
    """With one local step of huge effect on one worker only, the mean over half of two is all or nothing."""
    problem = Quadratic(np.stack([np.eye(1), np.eye(1)]), np.array([[0.0], [8.0]]))
    run = simulate(problem, LocalGradientDescent(1.0, 1, 1), [0.0], 1, 400)
    ends = np.unique(run.final)
    assert ends.tolist() == [0.0, 8.0]
    assert abs(run.final.mean() - 4.0) < 5 * 4.0 / math.sqrt(400)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DCGD(TopK(D, 2), 0.1), "`compressor` must be unbiased"),
        (lambda: EF21(RandK(D, 2), 0.1), "wrap an unbiased one in `Scaled`"),
        (lambda: MARINA(RandK(D, 2), 0.1, 0.0), "`probability` must be greater than 0.0, got 0.0"),
        (lambda: MARINA(RandK(D, 2), 0.1, 1.2), "`probability` must be at most 1.0, got 1.2"),
        (lambda: ProxSkip(0.1, -1.0), "`probability` must be greater than 0.0"),
        (lambda: DIANA(RandK(D, 2), 0.1, 2.0), "`shift_rate` must be at most 1.0"),
        (lambda: DistributedGDCI(RandK(D, 2), 0.1, 0.0), "`mixing` must be greater than 0.0"),
        (lambda: course(LocalGradientDescent(0.1, 1, 9)), "`participants` must be at most the 4 workers, got 9"),
        (lambda: course(BlockCoordinateDescent(11, 0.1)), "`size` must be at most 10, got 11"),
        (lambda: course(DCGD(RandK(9, 2), 0.1)), "must be for 10 coordinates like the vectors, got 9"),
        (lambda: course(DCGD(PermK(3, D), 0.1)), "must be for 4 workers like the problem, got 3"),
        (lambda: AnchoredIST(Permutation(N, D), 0.1, 0), "`period` must be at least 1, got 0"),
        (lambda: AnchoredIST(Permutation(N, D), 0.1, 1.0), "`period` must be less than 1.0, got 1.0"),
        (lambda: AnchoredIST(Permutation(N, D), 0.1, 5, momentum=1.0), "`momentum` must be less than 1.0"),
        (lambda: AnchoredIST("sketch", 0.1, 5), "`sketch` must be a Sketch"),
        (lambda: Participation(TopK(D, 2), 0.5), "`compressor` must be unbiased"),
        (lambda: Minibatch(PROBLEM, 2), "must keep its samples"),
        (lambda: random_quadratic(2, 3, 0.5, 0.0, 0), "`condition_number` must be at least 1.0"),
        (lambda: Logistic(Samples.gaussian(2, 3, 4, 0), 0.1), "`targets` must be -1 or 1 for the logistic loss"),
        (lambda: Samples.sorted_split(np.ones((4, 2)), np.ones(4), 5, 0.0), "`workers` must be at most 4, got 5"),
    ],
)
def test_bad_input_is_one_line(make, said):
    with pytest.raises(InvalidInput) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
