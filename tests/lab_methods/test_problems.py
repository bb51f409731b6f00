"""Problems with data on the workers: gradients against finite differences, shares, the heterogeneity dial."""

import itertools

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from isthmus.lab import LeastSquares, Logistic, Minibatch, Quadratic, Samples, constants, random_quadratic
from isthmus.lab.problems import exact, gradient_work
from isthmus.randomness import generator


def uneven(classes=False):
    """Three workers with 5, 4 and 4 samples of 3 features."""
    random = generator(0, "test/uneven")
    targets = random.standard_normal(13)
    return Samples.split(random.standard_normal((13, 3)), np.sign(targets) if classes else targets, 3, seed=1)


PROBLEMS = {
    "least squares": lambda: LeastSquares(uneven(), 0.2),
    "logistic, l2": lambda: Logistic(uneven(True), 0.2),
    "logistic, nonconvex": lambda: Logistic(uneven(True), 0.2, "nonconvex"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_are_the_derivatives_of_the_value(name):
    problem = PROBLEMS[name]()
    for x in generator(1, "test/points").standard_normal((4, 3)):
        slope = approx_fprime(x, lambda point: float(problem.value(point)), 1e-7)
        np.testing.assert_allclose(problem.gradient(x), slope, atol=2e-6)
        np.testing.assert_allclose(problem.worker_gradients(x[None])[0].mean(axis=0), problem.gradient(x), atol=1e-12)
        together, apart = problem.worker_gradients(x[None]), problem.worker_gradients(np.tile(x, (1, 3, 1)))
        np.testing.assert_allclose(together, apart, rtol=1e-12)


def test_logistic_value_is_the_mean_over_workers_of_means_over_samples():
    problem, x = Logistic(uneven(True), 0.2), np.array([0.3, -1.0, 2.0])
    s = problem.samples
    means = [
        np.mean([np.log1p(np.exp(-y * (a @ x))) for a, y in zip(A[:m], t[:m], strict=True)])
        for A, t, m in zip(s.features, s.targets, s.counts, strict=True)
    ]
    assert float(problem.value(x)) == pytest.approx(np.mean(means) + 0.1 * x @ x, rel=1e-12)


def test_the_minimiser_of_logistic_regression_is_one():
    problem = Logistic(uneven(True), 0.05)
    assert np.abs(problem.gradient(problem.minimizer)).max() < 1e-13
    points = problem.minimizer + generator(2, "test/near").standard_normal((50, 3))
    assert (problem.gap(points) > 0).all()
    assert PROBLEMS["logistic, nonconvex"]().minimizer is None


def test_samples_split_like_the_quadratic_of_the_same_data():
    random = generator(3, "test/data")
    features, targets = random.standard_normal((23, 4)), random.standard_normal(23)
    kept, plain = LeastSquares(Samples.split(features, targets, 4, 7), 0.1), Quadratic.least_squares(
        features, targets, 4, 7, 0.1
    )
    np.testing.assert_allclose(kept.L, plain.L, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(kept.b, plain.b, rtol=1e-12, atol=1e-14)
    assert sorted(kept.samples.counts) == [5, 6, 6, 6]


def test_smoothness_and_convexity_hold_between_random_points():
    for name, build in PROBLEMS.items():
        problem = build()
        c = constants(problem)
        points = generator(4, "test/pairs").standard_normal((200, 2, 3))
        difference = problem.worker_gradients(points[:, 0]) - problem.worker_gradients(points[:, 1])
        far = ((points[:, 0] - points[:, 1]) ** 2).sum(axis=1)
        each = (difference**2).sum(axis=2)
        assert (each.max(axis=1) <= c.L_max**2 * far * (1 + 1e-9)).all(), name
        assert (each.mean(axis=1) <= c.L_plus**2 * far * (1 + 1e-9)).all(), name
        spread = ((difference - difference.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).mean(axis=1)
        assert (spread <= c.L_pm**2 * far * (1 + 1e-9)).all(), name
        rise = ((points[:, 0] - points[:, 1]) * difference.mean(axis=1)).sum(axis=1)
        assert (rise >= c.mu * far * (1 - 1e-9)).all() or c.mu == 0, name
        assert c.mu <= c.L <= c.L_max * (1 + 1e-12)
        assert c.condition_number == (c.L / c.mu if c.mu else np.inf)


def test_the_dial_turns_heterogeneity_and_nothing_else():
    spread = [constants(random_quadratic(4, 8, 20.0, h, seed=1)) for h in (0.0, 0.25, 0.5, 1.0)]
    assert spread[0].L_pm < 1e-6
    assert spread[0].zeta2 < 1e-20
    assert all(a.L_pm < b.L_pm and a.zeta2 < b.zeta2 for a, b in itertools.pairwise(spread))
    assert all(c.mu >= 1 - 1e-9 and c.L_max <= 20 * (1 + 1e-9) for c in spread)
    shared = constants(random_quadratic(4, 8, 20.0, 1.0, seed=1, shared_minimizer=True))
    assert shared.zeta2 < 1e-20
    assert shared.L_pm == pytest.approx(spread[-1].L_pm)


def test_work_goes_the_cheaper_way():
    problem = LeastSquares(Samples.gaussian(2, 50, 4, seed=0))
    assert gradient_work(problem) == 2 * 4 * 100
    assert gradient_work(Quadratic(problem.L, problem.b)) == 2 * 50 * 50
    assert gradient_work(problem, 2, 2) == 2 * 2 * 2
    assert gradient_work(Minibatch(problem, 1)) == 2 * 100
    assert exact(Minibatch(problem, 1)) is problem
