"""What the rates say at their edges: anchored IST's formulas a second time, flat problems, factors of exactly 1."""

from __future__ import annotations

import inspect
import itertools
import math
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from isthmus.errors import InvalidInput
from isthmus.lab import IST, Bernoulli, Identity, Permutation, Quadratic, RandomSparsification
from isthmus.lab.compressors import PermK, RandK, Scaled, TopK
from isthmus.lab.methods import (
    DCGD,
    DIANA,
    EF21,
    GDCI,
    MARINA,
    AcceleratedGradientDescent,
    AnchoredIST,
    BlockCoordinateDescent,
    BlockGradientIST,
    DistributedGDCI,
    GradientDescent,
    LocalGradientDescent,
)
from isthmus.lab.problems import LeastSquares, Logistic, Minibatch, Samples, random_quadratic
from isthmus.lab.rates import (
    Setting,
    anchored_dynamics,
    anchored_factor,
    best_momentum_of,
    best_scale,
    bounds,
    extrapolated_fixed_point,
    extrapolation_weights,
    largest_stepsize,
    local_fixed_point,
    surrogate,
    with_default_stepsize,
)
from isthmus.lab.rates.anchored_dynamics import lifted_round as anchored_round
from isthmus.lab.rates.gradients import sketch_constants
from isthmus.lab.theory import contraction_limit
from isthmus.lab.theory.enumeration import enumerate_round

PROBLEM = random_quadratic(2, 4, 10.0, 0.8, seed=5)
X0 = np.arange(1.0, 5.0)
SETTING = Setting(PROBLEM, X0, 5)
FLAT = Quadratic([np.diag([2.0, 0.0]), np.diag([4.0, 0.0])], [[1.0, 0.0], [2.0, 0.0]])
UNIT = Quadratic([np.eye(5)], [np.ones(5)])  # L = mu = 1, one worker


class Sampled:
    def sample(self, random):
        return np.ones((2, 4))


def named(method, setting):
    return {bound.name: bound for bound in bounds(method, setting)}


def means(problem, sketch):
    """E[B] and X -> E[B X B] over every outcome of the sketch."""
    support = sketch.support()
    B = np.einsum("pia,iab,pib->pab", support.diagonals, problem.L, support.diagonals) / problem.workers
    p = support.probabilities
    return np.einsum("p,pab->ab", p, B), lambda X: np.einsum("p,pab,bc,pcd->ad", p, B, X, B, optimize=True)


@pytest.mark.parametrize("unit", [1.0, 1e-140, 1e140])
@pytest.mark.parametrize("sketch", [Permutation(2, 4), Permutation(2, 4, 2**0.5), Bernoulli(2, 4, 0.6)], ids=repr)
def test_a_surrogate_has_the_constants_of_its_definition(sketch, unit):
    P, sandwich = means(PROBLEM, sketch)
    inverted = np.linalg.inv(P)
    found = surrogate(Quadratic(unit * PROBLEM.L, unit * PROBLEM.b), sketch)
    np.testing.assert_allclose(found.matrix, unit * P, rtol=1e-10, atol=1e-12 * unit)
    assert found.theta == pytest.approx(unit * np.linalg.eigvals(inverted @ sandwich(P) @ inverted).real.max())
    assert found.mu == pytest.approx(unit * np.linalg.eigvalsh(P)[0])
    assert found.largest == pytest.approx(unit * np.linalg.eigvalsh(P)[-1])
    ratios = np.sort(np.linalg.eigvals(inverted @ PROBLEM.mean_matrix).real)
    np.testing.assert_allclose(found.ratios, ratios, rtol=1e-9)


@pytest.mark.parametrize("period", [1, 2, 5])
def test_the_factor_from_anchor_to_anchor_is_the_formula(period):
    g, found = 0.03, surrogate(PROBLEM, Permutation(2, 4, 2**0.5))
    small = Quadratic(PROBLEM.L / 64, PROBLEM.b)
    less = surrogate(small, Permutation(2, 4, 2**0.5))
    assert anchored_factor(small, less, 64 * g, period) == pytest.approx(anchored_factor(PROBLEM, found, g, period))
    N = sum((g * np.linalg.matrix_power(np.eye(4) - g * found.matrix, k) for k in range(period)), np.zeros((4, 4)))
    moved = np.linalg.eigvals(N @ PROBLEM.mean_matrix).real
    gathered = sum(
        (1 - g * found.mu) ** (period - 1 - k) * (1 - (1 - g * found.largest) ** k) ** 2 for k in range(period)
    )
    L = float(np.linalg.eigvalsh(PROBLEM.mean_matrix)[-1])
    expected = np.abs(1 - moved).max() ** 2 + found.ratios[-1] * found.theta * L * g**2 * gathered
    assert anchored_factor(PROBLEM, found, g, period) == pytest.approx(expected, rel=1e-11)
    bound = named(AnchoredIST(Permutation(2, 4, 2**0.5), g, period), SETTING)["anchored IST, from anchor to anchor"]
    gap = PROBLEM.value(X0) - PROBLEM.optimal_value
    values = [expected ** (k // period) * gap if k % period == 0 else math.inf for k in range(6)]
    np.testing.assert_allclose(bound.values, values, rtol=1e-9)


def test_the_theorem_of_anchors_needs_its_step():
    limit = 1 / surrogate(PROBLEM, Permutation(2, 4)).theta
    for share, applies in ((0.999, True), (1.001, False)):
        method = AnchoredIST(Permutation(2, 4), share * limit, 3)
        assert named(method, SETTING)["anchored IST, from anchor to anchor"].applies is applies


def test_the_best_scale_is_the_middle_of_the_spectrum():
    ratios = surrogate(PROBLEM, Permutation(2, 4, 2**0.5)).ratios
    assert best_scale(2, PROBLEM) == pytest.approx(math.sqrt((ratios[0] + ratios[-1]) / 2 * 2))
    assert best_scale(1, Quadratic([np.diag([1.0, 3.0])], [[1.0, 1.0]])) == pytest.approx(1.0)  # no sketch at all
    with pytest.raises(InvalidInput, match="`workers` must be at least 1"):
        best_scale(0, PROBLEM)


@pytest.mark.parametrize(("period", "local_steps"), [(4, 1), (3, 2), (0.3, 1)])
def test_the_rule_takes_the_largest_step_that_overshoots_nothing(period, local_steps):
    """At the end of the bisection lambda_max(N Lbar) is 1; where it is below 1 at half the limit, that is taken."""
    sketch = Permutation(2, 4, 0.8)
    method = AnchoredIST(sketch, 1.0, period, local_steps)
    step = largest_stepsize(method, SETTING)
    P = means(PROBLEM, sketch)[0]

    def furthest(g):
        left = np.linalg.matrix_power(np.eye(4) - g * P, local_steps)
        if isinstance(period, int):
            gone = np.eye(4) - np.linalg.matrix_power(left, period)
        else:
            law = [period * (1 - period) ** k for k in range(300)]
            gone = sum(p * (np.eye(4) - np.linalg.matrix_power(left, k + 1)) for k, p in enumerate(law))
        return np.linalg.eigvals(gone @ np.linalg.inv(P) @ PROBLEM.mean_matrix).real.max()

    limit = 0.5 * contraction_limit(PROBLEM, sketch)
    assert furthest(limit) > 1.01
    assert furthest(step) == pytest.approx(1.0, abs=1e-9)
    gentle = replace(method, sketch=Permutation(2, 4))  # unbiased: P >= Lbar
    assert largest_stepsize(gentle, SETTING) == 0.5 * contraction_limit(PROBLEM, gentle.sketch)


def test_one_round_of_a_steep_scale_overshoots_nothing_at_half_the_limit():
    sketch = Permutation(2, 4, 2**0.5)  # some ratio above 1, one round too short to go that far
    assert surrogate(PROBLEM, sketch).ratios[-1] > 1.0
    assert largest_stepsize(AnchoredIST(sketch, 1.0, 1), SETTING) == 0.5 * contraction_limit(PROBLEM, sketch)


def test_the_rule_without_a_surrogate_is_half_the_limit():
    flat = Setting(FLAT, np.ones(2), 2)
    method = AnchoredIST(Permutation(2, 2, 0.5), 1.0, 3)
    assert largest_stepsize(method, flat) == 0.5 * contraction_limit(FLAT, method.sketch)
    sampled = AnchoredIST(Sampled(), 1.0, 3)
    assert largest_stepsize(sampled, SETTING) == 0.5 * contraction_limit(PROBLEM, sampled.sketch)
    assert bounds(sampled, SETTING) == ()
    assert list(named(method, flat)) == ["anchored IST, exact"]  # its theorem needs Lbar > 0
    with pytest.raises(InvalidInput, match="positive definite"):
        surrogate(FLAT, method.sketch)


def test_the_exact_course_is_a_bound_for_one_local_step_300_rounds_and_100_coordinates():
    tiny = Setting(Quadratic([[[1.0]]], [[1.0]]), np.zeros(1), 301)
    gap = named(AnchoredIST(Permutation(1, 1), 0.5, 2), tiny)["anchored IST, exact"].values
    assert np.isfinite(gap[:301]).all()
    assert gap.shape == (302,)
    assert np.isinf(gap[301])
    method = AnchoredIST(Permutation(2, 4), 0.01, 2)
    np.testing.assert_allclose(
        named(method, SETTING)["anchored IST, exact"].values, anchored_dynamics(PROBLEM, method, X0, 5).gap
    )
    assert "anchored IST, exact" not in named(replace(method, local_steps=2), SETTING)
    assert list(named(replace(method, period=0.5), SETTING)) == ["anchored IST, exact"]
    for dim, exact in ((100, True), (101, False)):
        wide = Setting(Quadratic([np.eye(dim)], [np.zeros(dim)]), np.ones(dim), 0)
        assert ("anchored IST, exact" in named(AnchoredIST(Permutation(1, dim), 0.5, 0.5), wide)) is exact


def test_an_exact_anchored_course_that_overflows_is_infinite_from_there():
    found = anchored_dynamics(PROBLEM, AnchoredIST(Permutation(2, 4), 1e80, 10), X0, 6)
    finite = np.isfinite(found.gap)
    assert finite[0]
    assert finite.sum() < 7
    assert np.isinf(found.gap[~finite]).all()
    assert np.isinf(found.mean[~finite]).all()
    np.testing.assert_array_equal(found.mean[0], X0)
    still = Quadratic([np.eye(2)] * 2, np.zeros((2, 2)))
    calm = anchored_dynamics(still, AnchoredIST(Identity(2, 2), 0.5, 2), [1.0, 1.0], 3)
    np.testing.assert_allclose(calm.variance, 0.0)  # nothing is drawn
    np.testing.assert_allclose(calm.covariance, np.zeros((2, 2)), atol=1e-15)
    np.testing.assert_array_equal(calm.gap_error, np.zeros(4))
    np.testing.assert_allclose(calm.gap, [0.25**k for k in range(4)])


def test_an_exact_anchored_course_says_how_far_it_is(monkeypatch):
    said = []

    @contextmanager
    def told(title, total):
        said.append(total)
        yield said.append

    monkeypatch.setitem(inspect.unwrap(anchored_dynamics).__globals__, "progress", told)
    anchored_dynamics(PROBLEM, AnchoredIST(Permutation(2, 4), 0.01, 2), X0, 3)
    assert said == [3, 0, 1, 1, 1]


def test_too_many_outcomes_for_the_dimension_are_refused():
    problem = random_quadratic(2, 80, 2.0, 0.0, seed=0)
    many = AnchoredIST(RandomSparsification(2, 80, 1), 0.1, 2, local_steps=2)  # 80^2 outcomes of 80^2 numbers
    with pytest.raises(InvalidInput, match="few enough outcomes"):
        anchored_dynamics(problem, many, np.ones(80), 1)
    few = AnchoredIST(RandomSparsification(2, 80, 80), 0.01, 2, local_steps=2)
    assert np.isfinite(anchored_dynamics(problem, few, np.ones(80), 1).gap).all()


def test_flat_problems_have_the_theorems_that_need_no_mu():
    setting = Setting(FLAT, np.ones(2), 3)
    c = setting.constants
    assert c.mu == 0
    for method, name in ((MARINA(RandK(2, 1), 0.1, 0.5), "MARINA"), (EF21(Scaled(RandK(2, 1)), 0.05), "EF21")):
        found = named(method, setting)
        assert found[f"{name}, smooth"].applies
        assert not found[f"{name}, PL"].applies
        held = [a.holds for a in found[f"{name}, PL"].assumptions if a.name == "strong convexity"]
        assert held == [False]
    A = 1 / 2  # Rand-1 of 2, 2 workers
    smooth = 1 / (c.L + math.sqrt(A * c.L_plus**2))  # not the one with 2 under the root
    assert largest_stepsize(MARINA(RandK(2, 1), 0.1, 0.5), setting) == pytest.approx(smooth)
    root = math.sqrt(0.5)
    assert largest_stepsize(EF21(Scaled(RandK(2, 1)), 0.1), setting) == pytest.approx(
        1 / (c.L + c.L_tilde * root / (1 - root))
    )
    level = named(BlockGradientIST(Permutation(2, 2), 0.1), setting)["block-gradient IST"]
    np.testing.assert_allclose(level.values, setting.distance)  # factor 1 and no level


@pytest.mark.parametrize("compressor", [RandK(4, 2), PermK(2, 4)], ids=repr)
def test_each_part_of_a_limit_can_be_the_one_that_binds(compressor):
    c = SETTING.constants
    A, B = compressor.joint_constants(2)
    spread = (A - B) * c.L_plus**2 + B * c.L_pm**2
    limit = 1 / (c.L + math.sqrt(2 * spread / 9))  # p = 0.9
    assert limit < 0.9 / (2 * c.mu)
    assert largest_stepsize(MARINA(compressor, 1.0, 0.9), SETTING) == pytest.approx(limit, rel=1e-11)
    round_ = Setting(Quadratic([2 * np.eye(4)], [np.ones(4)]), np.zeros(4), 1)
    assert largest_stepsize(EF21(Scaled(RandK(4, 3)), 1.0), round_) == pytest.approx(0.5 / (2 * 2), rel=1e-11)
    assert largest_stepsize(MARINA(RandK(4, 4), 1.0, 0.5), round_) == pytest.approx(0.5 / (2 * 2), rel=1e-11)


def test_a_factor_of_exactly_one_contracts_nothing():
    setting = Setting(UNIT, np.zeros(5), 2)
    (whole,) = bounds(GDCI(RandK(5, 2), 0.5), setting)  # r = 1/4, omega = 3/2
    (mixed,) = bounds(DistributedGDCI(RandK(5, 5), 2.0, 0.5), setting)  # r = 1, omega = 0
    for bound in (whole, mixed):
        (contraction,) = [a for a in bound.assumptions if a.name == "contraction"]
        assert contraction.number == 1.0
        assert contraction.holds is False
        assert ">= 1" in contraction.why
        assert np.isinf(bound.values).all()
    (below,) = bounds(GDCI(RandK(5, 2), 0.6), setting)
    (contraction,) = [a for a in below.assumptions if a.name == "contraction"]
    assert (contraction.holds, contraction.why.split()[-2:]) == (True, ["<", "1"])


def test_ends_of_parameters():
    still = bounds(DIANA(RandK(4, 2), 0.01, 0.0), SETTING)[0]  # shifts that learn nothing
    assert not still.applies
    assert np.isinf(still.values).all()
    setting = Setting(UNIT, np.zeros(5), 2)
    (fast,) = bounds(AcceleratedGradientDescent(2.0, 0.0), setting)  # gamma mu above 1: no root of a negative number
    np.testing.assert_allclose(fast.values[1:], 0.0, atol=1e-300)
    assert [best_momentum_of(a) for a in (0.0, 1.0, 4.0)] == [0.0, 0.0, 0.0]
    one = Setting(Quadratic([[[3.0]]], [[1.0]]), np.zeros(1), 1)
    assert largest_stepsize(BlockCoordinateDescent(1, 1.0), one) == pytest.approx(1 / 3)
    two = Setting(Quadratic([[[3.0, 1.0], [1.0, 3.0]]], [[1.0, 1.0]]), np.zeros(2), 1)
    assert largest_stepsize(BlockCoordinateDescent(1, 1.0), two) == pytest.approx(1 / 3)
    assert largest_stepsize(BlockCoordinateDescent(2, 1.0), two) == pytest.approx(1 / 4)
    (wild,) = bounds(GradientDescent(1e100), Setting(UNIT, np.zeros(5), 3))
    assert np.isinf(wild.values[2:]).all()


def test_the_constants_of_a_sketch_as_a_compressor():
    assert sketch_constants(Identity(2, 4)) == (0.0, 0.0)
    assert sketch_constants(Permutation(2, 4)) == PermK(2, 4).joint_constants(2)
    assert sketch_constants(Bernoulli(3, 4, 0.25)) == pytest.approx((3 / 3, 0.0))
    assert sketch_constants(RandomSparsification(2, 4, 1)) == pytest.approx((3 / 2, 0.0))
    for sketch in (Permutation(2, 4, 1.0), Bernoulli(2, 4, 0.5, 1.0)):  # biased
        assert np.isnan(sketch_constants(sketch)).all()


def test_methods_without_a_quadratic_have_no_bound_of_one():
    samples = Samples.gaussian(2, 4, 8, seed=0)
    logistic = Setting(Logistic(Samples(samples.features, np.sign(samples.targets), samples.counts), 0.1), X0, 2)
    for method in (
        AnchoredIST(Permutation(2, 4), 0.1, 2),
        BlockCoordinateDescent(2, 0.1),
        IST(Permutation(2, 4), 0.1),
    ):
        assert math.isnan(largest_stepsize(method, logistic))
        assert bounds(method, logistic) == ()
        with pytest.raises(InvalidInput, match="`stepsize` must be given"):
            with_default_stepsize(method, logistic)
    assert bounds(LocalGradientDescent(0.1, 2), logistic) == ()
    assert logistic.distance == pytest.approx(float(((X0 - logistic.problem.minimizer) ** 2).sum()))
    rough = Setting(Logistic(logistic.problem.samples, 0.1, "nonconvex"), X0, 2)
    assert math.isnan(rough.distance)
    few = Setting(Minibatch(LeastSquares(samples), 2), X0, 2)
    (bound,) = bounds(GradientDescent(0.01), few)
    assert not bound.applies
    assert [a.why for a in bound.assumptions if not a.holds] == ["minibatches"]
    assert largest_stepsize(object(), SETTING) != largest_stepsize(object(), SETTING)  # nan
    assert bounds(object(), SETTING) == ()
    assert SETTING.constants.L > 2
    assert with_default_stepsize(GradientDescent(9.0), SETTING) == GradientDescent(1 / SETTING.constants.L)


@pytest.mark.parametrize("steps", [1, 3])
def test_local_gradient_descent_has_its_exact_course(steps):
    method, g = LocalGradientDescent(0.05, steps), 0.05
    x, gaps = X0, []
    for _ in range(6):
        gaps.append(float(PROBLEM.value(x) - PROBLEM.optimal_value))
        models = []
        for L, b in zip(PROBLEM.L, PROBLEM.b, strict=True):
            z = x
            for _ in range(steps):
                z = z - g * (L @ z - b)
            models.append(z)
        x = np.mean(models, axis=0)
    (bound,) = bounds(method, SETTING)
    np.testing.assert_allclose(bound.values, gaps, rtol=1e-10)
    assert bound.applies
    limit = local_fixed_point(PROBLEM, method)
    after = [np.linalg.matrix_power(np.eye(4) - g * L, steps) for L in PROBLEM.L]
    own = [A @ limit + (np.eye(4) - A) @ np.linalg.solve(L, b)
           for A, L, b in zip(after, PROBLEM.L, PROBLEM.b, strict=True)]  # fmt: skip
    np.testing.assert_allclose(np.mean(own, axis=0), limit, rtol=1e-10)
    assert bounds(replace(method, participants=2), SETTING)[0].applies
    assert not bounds(replace(method, participants=1), SETTING)[0].applies
    assert largest_stepsize(method, SETTING) == pytest.approx(1 / SETTING.constants.L_max)


def test_ist_is_bounded_from_below_by_its_mean_and_from_above_where_all_agree():
    zero = Setting(Quadratic([np.diag([1.0, 2.0])] * 2, np.zeros((2, 2))), np.ones(2), 3)
    method = IST(Permutation(2, 2), 0.1)
    found = named(method, zero)
    assert list(found) == ["IST, gap of the mean", "IST, theorem 1"]
    left = [(1 - 0.2 * v) ** k for k in range(4) for v in (1.0, 2.0)]
    below = [0.5 * (left[2 * k] ** 2 + 2 * left[2 * k + 1] ** 2) for k in range(4)]
    np.testing.assert_allclose(found["IST, gap of the mean"].values, below)
    np.testing.assert_allclose(found["IST, theorem 1"].values, [0.8**k * 1.5 for k in range(4)])  # one of n holds n x
    assert found["IST, theorem 1"].applies
    for other in (replace(method, local_steps=2), replace(method, merge="model")):
        assert "IST, theorem 1" not in named(other, zero)
    assert list(named(IST(Permutation(2, 4), 0.01), SETTING)) == ["IST, gap of the mean"]
    assert bounds(IST(Sampled(), 0.01), SETTING) == ()
    assert largest_stepsize(method, zero) == 0.5 * contraction_limit(zero.problem, method.sketch)


def test_extrapolation_by_its_definition():
    with pytest.raises(InvalidInput, match="at least one"):
        extrapolation_weights([])
    with pytest.raises(InvalidInput, match="`sizes` must be at least 1, got 0"):
        extrapolated_fixed_point(PROBLEM, [0])
    L, b = PROBLEM.mean_matrix, PROBLEM.mean_vector
    D = np.diag(np.diagonal(L))
    sizes, points = (1, 2, 3), []
    for q in sizes:
        t = (4 / q - 1) / 3
        points.append(np.linalg.solve(L + t * (4 * D - L), b))
    places = [4 / q - 1 for q in sizes]
    weights = [
        math.prod(o / (o - here) for o in places if o != here) for here in places
    ]  # Lagrange's polynomials at 0
    np.testing.assert_allclose(extrapolation_weights(places), weights)
    expected = sum(w * x for w, x in zip(weights, points, strict=True))
    np.testing.assert_allclose(extrapolated_fixed_point(PROBLEM, sizes), expected, rtol=1e-9)


def test_averages_and_courses_of_a_setting():
    assert list(itertools.islice(SETTING.average(6.0), 4)) == [math.inf, 6.0, 3.0, 2.0]
    assert list(SETTING.geometric(0.5, 8.0, 1.0)) == [9.0, 5.0, 3.0, 2.0, 1.5, 1.25]
    assert SETTING.n == 2
    assert SETTING.step_within(1.0, 1.0).holds
    assert not SETTING.step_within(1.0 + 1e-6, 1.0).holds
    assert "> 1," in SETTING.step_within(2.0, 1.0).why
    assert "<= 1," in SETTING.step_within(0.5, 1.0).why


def test_where_nothing_pulls_no_theorem_gives_a_step() -> None:
    flat = Setting(Quadratic(np.zeros((2, 3, 3)), np.zeros((2, 3))), np.ones(3), 2)
    with pytest.raises(InvalidInput, match="`stepsize` must be given for GradientDescent: no theorem gives one here"):
        with_default_stepsize(GradientDescent(1.0), flat)


@pytest.mark.parametrize("unit", [1e-20, 1.0, 1e20])
def test_whether_all_agree_does_not_depend_on_the_unit_of_x(unit: float) -> None:
    for shared in (False, True):
        problem = random_quadratic(3, 4, 10.0, 0.7, seed=4, shared_minimizer=shared)
        here = Setting(Quadratic(problem.L, unit * problem.b), unit * np.ones(4), 2)
        there = Setting(problem, np.ones(4), 2)
        method = DCGD(RandK(4, 2), 1.0)
        assert largest_stepsize(method, here) == pytest.approx(largest_stepsize(method, there), rel=1e-9)
    at_nought = Setting(Quadratic(problem.L, np.zeros((3, 4))), np.ones(4), 2)
    assert largest_stepsize(method, at_nought) == pytest.approx(largest_stepsize(method, there), rel=1e-9)


@pytest.mark.parametrize("curvature", [0.1, 10.0])
def test_ef21_without_compression_and_marina_with_rare_coins_stop_at_the_end_of_mu(curvature: float) -> None:
    here = Setting(Quadratic([curvature * np.eye(2)] * 2, np.zeros((2, 2))), np.ones(2), 2)
    assert largest_stepsize(EF21(TopK(2, 2), 1.0), here) == pytest.approx(0.5 / curvature)
    assert largest_stepsize(MARINA(RandK(2, 2), 1.0, 0.01), here) == pytest.approx(0.005 / curvature)


@pytest.mark.parametrize("steps", [1, 2])
def test_one_step_of_the_lifted_state_is_the_mean_over_its_outcomes(steps: int) -> None:
    """By hand, (e, u, p) -> (e + J w + K Lbar u, u, p) with w = e - u, for second moments without symmetry."""
    problem = random_quadratic(2, 3, 10.0, 0.7, seed=4)
    step = anchored_round(problem, AnchoredIST(Bernoulli(2, 3, 0.5), 0.05, 4, local_steps=steps))
    A = np.random.default_rng(0).standard_normal((9, 9))
    second, eye, zero = A @ A.T, np.eye(3), np.zeros((3, 3))
    if steps == 1:
        outcomes = enumerate_round(problem, IST(Bernoulli(2, 3, 0.5), 0.05))
        assert outcomes is not None
        L = problem.mean_matrix  # e+ = e + (J - I)(e - u) - gamma Lbar u
        parts = [(J, eye - J - 0.05 * L) for J in outcomes.matrices]
        chances = outcomes.probabilities
    else:
        parts, chances = list(zip(step.on_x, step.on_anchor, strict=True)), step.probabilities
    whole = [np.block([[x, u, zero], [zero, eye, zero], [zero, zero, eye]]) for x, u in parts]
    expected = sum(p * J @ second @ J.T for p, J in zip(chances, whole, strict=True))
    found = step.second(second.reshape(3, 3, 3, 3).transpose(0, 2, 1, 3))
    np.testing.assert_allclose(found.transpose(0, 2, 1, 3).reshape(9, 9), expected, rtol=1e-10, atol=1e-12)
    m = np.arange(9.0)
    np.testing.assert_allclose(
        step.mean(m.reshape(3, 3)).ravel(), sum(p * J @ m for p, J in zip(chances, whole, strict=True)), rtol=1e-10
    )


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_anchored_courses_go_with_the_scale_of_f(scale: float) -> None:
    problem, x0 = random_quadratic(2, 3, 10.0, 0.7, seed=4), np.ones(3)
    for steps in (1, 2):
        method = AnchoredIST(Permutation(2, 3), 0.05, 2, local_steps=steps)
        plain = anchored_dynamics(problem, method, x0, 4).gap
        scaled = Quadratic(scale * problem.L, scale * problem.b)
        found = anchored_dynamics(scaled, replace(method, stepsize=0.05 / scale), x0, 4).gap
        np.testing.assert_allclose(found / scale, plain, rtol=1e-9)


def test_a_function_without_curvature_in_some_direction_has_no_linear_rate() -> None:
    here = Setting(Quadratic(FLAT.L, [[1.0, 0.0], [3.0, 0.0]]), np.ones(2), 2)  # nor do workers agree
    (fast,) = bounds(AcceleratedGradientDescent(0.1, 0.0), here)
    assert [one.why for one in fast.assumptions if one.name == "strong convexity"] == [
        "mu = 0: no linear rate from this theorem"
    ]
    np.testing.assert_array_equal(fast.values, [here.gap] * 3)
    (compressed,) = bounds(DCGD(RandK(2, 1), 0.01), here)
    np.testing.assert_array_equal(compressed.values, [here.distance] * 3)
