"""Every bound on a grid of 108 problems, seeds averaged with a confidence level; and what flags a bound."""

import dataclasses
from functools import cache

import numpy as np
import pytest

from cases.methods import BUILDERS, build_for
from isthmus.errors import InvalidInput
from isthmus.lab import IST, GradientDescent, Permutation, Quadratic
from isthmus.lab.bounds import Bound
from isthmus.lab.compressors import RandK
from isthmus.lab.measure import Budget, judge, measure
from isthmus.lab.methods import DCGD, DIANA, MARINA, AcceleratedGradientDescent, BlockCoordinateDescent, ProxSkip
from isthmus.lab.problems import LeastSquares, Logistic, Minibatch, Samples, random_quadratic
from isthmus.lab.rates import Setting, best_momentum_of, bounds, largest_stepsize, with_default_stepsize
from isthmus.lab.theory import gradient_descent_rate

GRID = [
    (dim, workers, condition, heterogeneity, shared)
    for dim in (6, 20)
    for workers in (3, 5, 8)
    for condition in (2.0, 10.0, 100.0)
    for heterogeneity in (0.0, 0.3, 1.0)
    for shared in (False, True)
]


@cache
def on_grid(seed, rounds=40):
    """One setting for all methods: its constants and minimiser are worked out once."""
    dim, workers, condition, heterogeneity, shared = GRID[seed]
    return Setting(random_quadratic(workers, dim, condition, heterogeneity, seed, shared), np.full(dim, 2.0), rounds)


def verdicts(setting, name, seeds=48, seed=0):
    method = build_for(name, setting)
    found = bounds(method, setting)
    if not found:
        return []
    run = Budget(setting.rounds, seeds, seed)
    measured = measure(setting.problem, method, setting.x0, run, {bound.measure for bound in found})
    return [judge(bound, measured) for bound in found]


# No bound applies to several local steps; accelerated descent has a test of its own, with its momentum; rare long
# periods dominate the loopless mean, which few seeds miss: test_anchored compares it with every path and many seeds.
ELSEWHERE = {"accelerated gradient descent", "anchored IST, local steps", "anchored IST, loopless"}


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in ELSEWHERE])
def test_bounds_hold_on_the_grid(name):
    """A broken bound fails on the first problem; a bound that never applies fails too."""
    applied, ratios = 0, []
    for seed in range(len(GRID)):
        for verdict in verdicts(on_grid(seed), name, seed=seed):
            assert verdict.holds is not False, (verdict, GRID[seed])
            applied += verdict.applies
            ratios.append(verdict.ratio if verdict.applies else np.nan)
    if name == "local gradient descent, half the workers":
        assert applied == 0  # the closed form is for all workers
    elif ratios:
        assert applied >= 50
        assert np.nanmax(ratios) > 0.05  # not a bound so loose that it says nothing


def test_accelerated_gradient_descent_keeps_to_its_bound_with_its_momentum():
    for seed in range(len(GRID)):
        setting = on_grid(seed, 60)
        step = 1.0 / setting.constants.L
        method = AcceleratedGradientDescent(step, best_momentum_of(step * setting.constants.mu))
        (bound,) = bounds(method, setting)
        verdict = judge(bound, measure(setting.problem, method, setting.x0, Budget(60, 1), {"gap"}))
        assert verdict.applies
        assert verdict.holds
        (other,) = bounds(dataclasses.replace(method, momentum=0.99), setting)
        assert not other.applies


@pytest.mark.parametrize("name", ["gradient descent", "DCGD, Rand-K", "DIANA, Rand-K", "MARINA, Rand-K", "EF21, Top-K",
                                  "ProxSkip"])  # fmt: skip
@pytest.mark.parametrize("regularizer", ["l2", "nonconvex"])
def test_bounds_hold_on_logistic_regression(name, regularizer):
    samples = Samples.gaussian(4, 8, 20, seed=2)
    problem = Logistic(Samples(samples.features, np.sign(samples.targets), samples.counts), 0.1, regularizer)
    found = verdicts(Setting(problem, np.full(8, 2.0), 200), name, seeds=16)
    assert all(verdict.holds is not False for verdict in found), found
    if regularizer == "l2" or name.startswith(("MARINA", "EF21")):
        assert any(verdict.applies for verdict in found)
    else:
        assert all("mu = 0" in verdict.why or "mu_i = 0" in verdict.why for verdict in found)


def test_a_step_above_the_limit_is_allowed_and_flagged():
    problem = random_quadratic(4, 8, 10.0, 1.0, 0)
    setting = Setting(problem, np.ones(8), 20)
    method = DIANA(RandK(8, 2), 1.0)
    limit = largest_stepsize(method, setting)
    (bound,) = bounds(dataclasses.replace(method, stepsize=1.5 * limit), setting)
    assert not bound.applies
    assert any("> " in one.why and "the theorem's limit" in one.why for one in bound.assumptions if not one.holds)
    (bound,) = bounds(dataclasses.replace(method, stepsize=limit), setting)
    assert bound.applies


def test_no_strong_convexity_is_said_not_raised():
    singular = Quadratic(np.stack([np.diag([1.0, 0.0])] * 2), np.array([[1.0, 0.0], [3.0, 0.0]]))
    setting = Setting(singular, np.ones(2), 10)
    for method in (GradientDescent(0.5), DCGD(RandK(2, 1), 0.1), ProxSkip(0.5, 0.5), BlockCoordinateDescent(1, 0.5)):
        (bound,) = bounds(method, setting)
        assert not bound.applies
        assert any(one.holds is False and "= 0" in one.why for one in bound.assumptions)
    smooth, linear = bounds(with_default_stepsize(MARINA(RandK(2, 1), 1.0, 0.5), setting), setting)
    assert smooth.applies
    assert not linear.applies


def test_minibatches_void_the_full_gradient_theorems():
    problem = Minibatch(LeastSquares(Samples.gaussian(3, 4, 9, 0)), 2)
    (bound,) = bounds(GradientDescent(0.01), Setting(problem, np.ones(4), 5))
    assert not bound.applies
    assert "minibatches" in [one.why for one in bound.assumptions]


def test_theorem_1_is_judged_where_it_applies():
    problem = random_quadratic(3, 6, 5.0, 0.5, 0)
    problem = Quadratic(problem.L, np.zeros_like(problem.b))
    setting = Setting(problem, np.ones(6), 60)
    method = IST(Permutation(3, 6), 1e-3)
    found = {bound.name: bound for bound in bounds(method, setting)}
    measured = measure(problem, method, setting.x0, Budget(60, 200))
    assert judge(found["IST, theorem 1"], measured).holds
    assert judge(found["IST, gap of the mean"], measured).holds


def test_a_bound_that_is_broken_is_seen():
    problem = random_quadratic(3, 6, 5.0, 0.5, 0)
    measured = measure(problem, GradientDescent(0.1), np.ones(6), Budget(20, 4))
    gaps = measured.simulation.mean_gap
    for kind, factor in (("upper", 0.99), ("lower", 1.01), ("tight", 1.01)):
        verdict = judge(Bound("wrong", "gap", factor * gaps, kind, (), ""), measured)
        assert verdict.holds is False
        assert verdict.ratio == pytest.approx(1 / factor)
    assert judge(Bound("right", "gap", gaps, "tight", (), ""), measured).holds
    nothing = np.full(21, 5e-324)  # so far below what is measured that the ratio is no number
    assert judge(Bound("nothing", "gap", nothing, "upper", (), ""), measured).ratio == np.inf


def test_a_bound_on_what_no_run_measures_is_refused():
    problem, x0 = random_quadratic(3, 6, 5.0, 0.5, 0), np.ones(6)
    measured = measure(problem, GradientDescent(0.1), x0, Budget(5, 2))
    with pytest.raises(InvalidInput, match="`measure` must be one of gap, distance, gradient"):
        judge(gradient_descent_rate(problem, 0.1, x0, 5), measured)
    with pytest.raises(InvalidInput, match="`measure` must be one of gap, distance, gradient"):
        Bound("wrong", "gaps", np.ones(6), "upper", (), "")


def test_constants_of_a_known_problem():
    L = np.stack([np.diag([1.0, 4.0]), np.diag([3.0, 2.0])])
    b = np.array([[2.0, 0.0], [0.0, 3.0]])
    c = Setting(Quadratic(L, b), np.zeros(2), 1).constants
    assert (c.mu, c.L, c.mu_min, c.L_max) == pytest.approx((2.0, 3.0, 1.0, 4.0))
    assert c.L_tilde == pytest.approx(np.sqrt((16 + 9) / 2))
    assert c.L_plus == pytest.approx(np.sqrt(10.0))
    assert c.L_pm == pytest.approx(1.0)
    x = np.array([0.5, 0.5])
    assert c.zeta2 == pytest.approx(np.mean([((Li @ x - bi) ** 2).sum() for Li, bi in zip(L, b, strict=True)]))


def test_a_method_without_a_theorem_asks_for_a_step():
    problem = Logistic(Samples(np.ones((2, 3, 2)), np.ones((2, 3)), np.array([3, 3])), 0.1)
    with pytest.raises(InvalidInput, match="`stepsize` must be given for IST"):
        with_default_stepsize(IST(Permutation(2, 2), 1.0), Setting(problem, np.zeros(2), 1))
