"""The theory at its edges: limits of memory, ends of searches, bounds that say nothing, a worker alone."""

from __future__ import annotations

import inspect
import math
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from isthmus.errors import InvalidInput
from isthmus.lab import (
    IST,
    Bernoulli,
    GradientDescent,
    ImportanceSampling,
    Permutation,
    Quadratic,
    RandK,
    RandomSparsification,
    ScaledPermutation,
    TopK,
    random_quadratic,
    simulate,
    theory,
)
from isthmus.lab.arrays import Array
from isthmus.lab.compressors import IdentityCompressor, Natural
from isthmus.lab.methods import DCGD, DIANA, EF21, GDCI, MARINA, AnchoredIST
from isthmus.lab.sketches import as_sketch
from isthmus.lab.sketches.scaled import WeightedPermutation
from isthmus.lab.theory import bounds, estimates
from isthmus.lab.theory.dynamics import blocks, course, covariance_step, known_moments
from isthmus.lab.theory.enumeration import enumerate_round
from isthmus.lab.theory.estimates import sampled_matrix_moments
from isthmus.lab.theory.fixed_points import fixed_point_of
from isthmus.lab.theory.lifted import lifted_round
from isthmus.lab.theory.moments import Moments
from isthmus.lab.theory.powers import powered, repeated
from isthmus.lab.theory.rate import RateSearch, second_moment_map
from isthmus.lab.theory.spectrum import Radius, _by_powers, matrix_radius, operator_radius, positive_radius
from isthmus.lab.theory.stable_steps import _intervals
from isthmus.lab.theory.symmetric import matrix_on_svec, smat, svec
from isthmus.lab.theory.tails import tails
from isthmus.lab.theory.update import affine_update

PROBLEM = random_quadratic(2, 4, 10.0, 0.8, seed=5)
X0 = np.arange(1.0, 5.0)


def bound(values, exact, kind="upper"):
    return bounds.ExactBound("b", "q", np.array(values, float), kind, (), "r", np.array(exact, float))


def test_the_worst_ratio_is_over_what_the_bound_says_after_the_start():
    assert bound([1.0, 2.0, 4.0], [9.0, 1.0, 1.0]).worst_ratio == 0.5
    assert bound([1.0, math.inf, 4.0, 0.0, 2.0], [9.0, 50.0, 1.0, 3.0, math.nan]).worst_ratio == 0.25
    assert math.isnan(bound([1.0, math.inf], [1.0, 5.0]).worst_ratio)
    assert math.isnan(bound([1.0], [1.0]).worst_ratio)


def test_a_bound_holds_up_to_rounding_of_the_larger_of_two_sizes():
    assert bound([1.0, 1.0], [1.0, 1.0 + 0.9e-9]).holds()
    assert not bound([1.0, 1.0], [1.0, 1.0 + 1.1e-9]).holds()
    assert bound([1.0, 0.0], [1.0, 0.9e-12]).holds()  # a thousandth of the largest
    assert not bound([1.0, 0.0], [1.0, 1.1e-12]).holds()
    assert bound([1.0, 1.0], [1.0, 1.0 - 0.9e-9], "lower").holds()
    assert not bound([1.0, 1.0], [1.0, 1.0 - 1.1e-9], "lower").holds()
    for off in (1.1e-9, -1.1e-9):
        assert not bound([1.0, 1.0], [1.0, 1.0 + off], "tight").holds()
    assert bound([math.inf, 1.0], [3.0, 1.0], "tight").holds()


def test_theorem_2_is_its_formula_in_every_form():
    problem = random_quadratic(3, 3, 5.0, 0.5, seed=1)
    gamma, x0, K = 0.3, np.ones(3), 4
    gaps = bounds.exact_scaled_gap(problem, gamma, x0, K)
    h = problem.minimizer - bounds.scaled_fixed_point(problem)
    square = float(h @ problem.mean_matrix @ h)
    beta = 0.5 * (1 - gamma) / (1 + gamma)
    for form, A in (("printed", 2 * (1 - gamma) / beta + gamma), ("tight", (1 - gamma) / (2 * beta) + gamma),
                    ("beta-free", 1.0)):  # fmt: skip
        found = theory.theorem2(problem, gamma, x0, K, form)
        expected = [
            2 * (gaps[0] - gaps[k]) / (gamma * k) + A * square + gamma * bounds.scaled_noise(problem)
            for k in range(1, K + 1)
        ]
        np.testing.assert_allclose(found.values[1:], expected, rtol=1e-9)
        assert np.isinf(found.values[0])
        assert math.isnan(found.exact[0])
        assert found.kind == "upper"
    assert theory.theorem2(problem, 1.0, x0, K).kind == "tight"


def test_the_scaled_sketchs_noise_is_the_covariance_over_all_partitions():
    problem = random_quadratic(3, 3, 5.0, 0.5, seed=1)
    sketch = ScaledPermutation(problem)
    support = sketch.support()
    drawn = np.einsum("pna,na->pa", support.diagonals, problem.b) / 3
    mean = support.probabilities @ drawn
    np.testing.assert_allclose(mean, bounds.scaled_fixed_point(problem), rtol=1e-12)
    covariance = np.einsum("p,pa,pb->ab", support.probabilities, drawn - mean, drawn - mean)
    assert bounds.scaled_noise(problem) == pytest.approx(float(np.sum(problem.mean_matrix * covariance)), rel=1e-11)
    assert bounds.scaled_noise(Quadratic([[[2.0]]], [[1.0]])) == 0.0
    method, x0 = IST(sketch, 0.7), np.ones(3)
    course = theory.dynamics(problem, method, x0, 5).gap
    np.testing.assert_allclose(bounds.exact_scaled_gap(problem, 0.7, x0, 5), course, rtol=1e-10)
    for step in (0.0, 2.0):
        with pytest.raises(InvalidInput):
            bounds.exact_scaled_gap(problem, step, x0, 5)


@pytest.mark.parametrize("step", [0.02, 0.15])  # the slow end decides, the steep end decides
def test_gradient_descents_rate_is_that_of_the_further_end(step):
    mu, L = PROBLEM.spectrum[0], PROBLEM.spectrum[-1]
    factor = max(abs(1 - step * mu), abs(1 - step * L)) ** 2
    found = theory.gradient_descent_rate(PROBLEM, step, X0, 4)
    np.testing.assert_allclose(found.values, float(PROBLEM.gap(X0)) * factor ** np.arange(5), rtol=1e-9)
    assert [a.number for a in found.assumptions] == [pytest.approx(2 / L)]
    flat = Quadratic([np.diag([4.0, 2.0, 0.0])], [[0.0] * 3])
    values = theory.gradient_descent_rate(flat, 0.1, np.ones(3), 1).values
    np.testing.assert_allclose(values, [3.0, 3.0 * 0.8**2])  # mu is the smallest curvature that is not 0
    overflowing = theory.gradient_descent_rate(PROBLEM, 1e60, X0, 5)
    assert np.isinf(overflowing.values[-1])


def test_theorem_1s_two_forms_are_their_formulas():
    problem = Quadratic(PROBLEM.L, np.zeros((2, 4)))
    method = IST(Permutation(2, 4), 0.5 * theory.theorem1(problem, Permutation(2, 4)).stepsize)
    support, Lbar = method.sketch.support(), problem.mean_matrix
    B = np.einsum("pia,iab,pib->pab", support.diagonals, problem.L, support.diagonals) / 2
    p = support.probabilities
    mean, square = np.einsum("p,pab->ab", p, B), np.einsum("p,pab,bc,pcd->ad", p, B, Lbar, B, optimize=True)
    W = 0.5 * (Lbar @ mean + mean @ Lbar)
    theta = np.linalg.eigvals(np.linalg.solve(W, square)).real.max()
    rate = np.linalg.eigvals(np.linalg.solve(Lbar, W)).real.min()
    found = theory.theorem1(problem, method.sketch)
    assert (found.theta, found.rate) == (pytest.approx(theta), pytest.approx(rate))
    assert found.stepsize == pytest.approx(1 / theta)
    contraction = theory.theorem1_contraction(problem, method, X0, 4)
    g, start = method.stepsize, float(X0 @ Lbar @ X0)
    np.testing.assert_allclose(contraction.values, [(1 - g * rate) ** k * start for k in range(5)], rtol=1e-9)
    gaps = theory.dynamics(problem, method, X0, 4).gap
    np.testing.assert_allclose(contraction.exact, 2 * gaps, rtol=1e-9)
    average = theory.theorem1_average(problem, method, X0, 4)
    np.testing.assert_allclose(average.values[1:], [2 * (gaps[0] - gaps[k]) / (g * k) for k in range(1, 5)], rtol=1e-9)
    assert np.isinf(average.values[0])
    M, norms = np.outer(X0, X0), []
    for _ in range(4):
        norms.append(float(np.sum(M * W)))  # |Lbar x|^2 in the norm of Lbar^-1 W Lbar^-1
        J = np.eye(4) - g * B
        M = np.einsum("p,pab,bc,pdc->ad", p, J, M, J, optimize=True)
    np.testing.assert_allclose(average.exact[1:], np.cumsum(norms) / np.arange(1, 5), rtol=1e-9)
    for share, applies in ((1.9, True), (2.1, False)):
        there = replace(method, stepsize=share * g)
        assert theory.theorem1_contraction(problem, there, X0, 2).applies is applies
        assert found.verdict(there.stepsize).holds is applies


def test_sgds_rate_is_its_formula():
    sketch, step = Permutation(2, 4), 0.01
    support = sketch.support()
    B = np.einsum("pia,iab,pib->pab", support.diagonals, PROBLEM.L, support.diagonals) / 2
    c = np.einsum("pia,ia->pa", support.diagonals, PROBLEM.b) / 2
    p, mean = support.probabilities, np.einsum("p,pab->ab", support.probabilities, B)
    square = np.einsum("p,pab,pbc->ac", p, B, B)
    smooth = np.linalg.eigvals(np.linalg.solve(mean, square)).real.max()
    mu = np.linalg.eigvalsh(mean)[0]
    center = np.linalg.solve(mean, p @ c)
    noise = float(p @ ((B @ center - c) ** 2).sum(axis=1))
    found = theory.sgd_rate(PROBLEM, IST(sketch, step), X0, 4)
    start = float(((X0 - center) ** 2).sum())
    expected = [(1 - step * mu) ** k * start + 2 * step * noise / mu for k in range(5)]
    np.testing.assert_allclose(found.values, expected, rtol=1e-9)
    assert found.assumptions[0].number == pytest.approx(0.5 / smooth, rel=1e-9)
    assert found.assumptions[1].number == pytest.approx(mu, rel=1e-9)


@pytest.mark.parametrize("merge", ["gradient", "model"])
def test_the_course_by_coordinates_is_that_over_all_partitions(merge):
    l, b = np.array([[1.0, 2.0], [3.0, 0.5]]), np.array([[1.0, -1.0], [2.0, 0.0]])
    problem, method = Quadratic([np.diag(row) for row in l], b), IST(Permutation(2, 2), 0.1, 2, merge)
    flat = np.zeros((2, 1))
    wide, x0 = replace(method, sketch=Permutation(2, 3)), np.array([1.0, 1.0, 2.0])
    found = theory.coordinate_dynamics(np.hstack([l, flat]), np.hstack([b, flat]), wide, x0, 4)
    full = theory.dynamics(problem, method, np.ones(2), 4)
    np.testing.assert_allclose(found.gap, full.gap, rtol=1e-11)
    np.testing.assert_allclose(found.bias, full.bias, rtol=1e-11)
    np.testing.assert_allclose(found.mean[:2], full.mean[-1], rtol=1e-11)
    np.testing.assert_allclose(found.spread[:2], np.diag(full.covariance), rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found.fixed_point[:2], theory.fixed_point(problem, method), rtol=1e-9)
    if merge == "gradient":  # a coordinate that nobody sees stays, and has no limit of its own
        assert found.mean[2] == 2.0
        assert np.isnan(found.fixed_point[2])


def test_limits_of_memory():
    wide = random_quadratic(2, 80, 2.0, 0.0, seed=0)
    assert enumerate_round(wide, IST(RandomSparsification(2, 80, 1), 0.1, 2)) is None  # 80^2 outcomes of 80^2 numbers
    assert enumerate_round(wide, IST(RandomSparsification(2, 80, 80), 0.1, 2)) is not None
    assert enumerate_round(PROBLEM, IST(Permutation(2, 4), 0.1), limit=5) is None  # of 6 outcomes
    assert enumerate_round(PROBLEM, IST(Permutation(2, 4), 0.1), limit=6) is not None
    many = random_quadratic(40, 40, 2.0, 0.0, seed=0)
    assert lifted_round(many, DCGD(RandK(40, 1), 0.1)) is None  # 1,600 numbers are sent
    few = random_quadratic(3, 40, 2.0, 0.0, seed=0)
    assert lifted_round(few, DCGD(RandK(40, 1), 0.1)) is not None


def test_a_worker_alone_has_a_lifted_state_too():
    alone = Quadratic([np.diag([8.0, 2.0])], [[1.0, 1.0]])
    method = GDCI(RandK(2, 1), 0.05)
    step, shift = np.eye(2) - 0.05 * alone.mean_matrix, 0.05 * alone.mean_vector
    lifted = [np.block([[step @ C, shift[:, None]], [np.zeros((1, 2)), np.ones((1, 1))]])
              for C in (np.diag([2.0, 0.0]), np.diag([0.0, 2.0]))]  # fmt: skip
    x = np.array([1.0, -1.0])
    whole, gaps = np.outer([*x, 1.0], [*x, 1.0]), []  # E (x, 1)(x, 1)'
    to_error = np.hstack([np.eye(2), -alone.minimizer[:, None]])
    for _ in range(4):
        gaps.append(0.5 * float(np.sum(alone.mean_matrix * (to_error @ whole @ to_error.T))))
        whole = sum(A @ whole @ A.T for A in lifted) / 2
    np.testing.assert_allclose(theory.dynamics(alone, method, x, 3).gap, gaps, rtol=1e-10)


def test_a_search_for_stable_steps_goes_on_where_its_grid_ends_stable():
    """One unit each, scale 1/10, models merged: x+ = (1/20)(1 - gamma/10) x, stable up to gamma = 210."""
    problem = Quadratic([np.eye(2)] * 2, np.zeros((2, 2)))
    steps = theory.stable_stepsizes(problem, IST(Permutation(2, 2, 0.1), 1.0, merge="model"))
    assert steps.how == "search"
    assert steps.largest == pytest.approx(210.0, rel=1e-9)
    assert steps.intervals[0][0] == 0.0


@pytest.mark.parametrize("period", [1, 3])
def test_the_rate_is_1_at_the_end_of_the_stable_steps_of_a_method_with_periods(period):
    problem = Quadratic([np.diag([1.0, 3.0]), np.diag([2.0, 1.0])], np.ones((2, 2)))
    method = AnchoredIST(Permutation(2, 2), 0.1, period)
    largest = theory.stable_stepsizes(problem, method).largest
    assert 0 < largest < math.inf
    assert theory.asymptotic_rate(problem, replace(method, stepsize=largest)) == pytest.approx(1.0, abs=1e-8)


def test_the_ends_of_the_stable_steps_are_not_stable():
    steps = theory.StableSteps(((0.0, 1.0), (2.0, 3.0)), "search")
    assert [step for step in (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0) if step in steps] == [0.5, 2.5]
    assert steps.largest == 3.0
    assert theory.StableSteps((), "search").largest == 0.0


def test_a_state_at_rest_at_nought_is_a_fixed_point():
    problem = Quadratic(PROBLEM.L, np.zeros((2, 4)))
    settled = theory.stationary(problem, DCGD(RandK(4, 2), 0.01))
    assert settled.exists
    np.testing.assert_array_equal(settled.mean, np.zeros(4))
    assert (settled.bias, settled.variance) == (0.0, 0.0)
    too_far = theory.stationary(problem, DCGD(RandK(4, 2), 0.5))
    assert too_far.radius > 1.0
    assert not too_far.exists


def test_the_stationary_variance_of_a_lifted_state_is_that_of_its_course():
    settled = theory.stationary(PROBLEM, DCGD(RandK(4, 2), 0.01))
    far = theory.dynamics(PROBLEM, DCGD(RandK(4, 2), 0.01), X0, 3000)
    assert settled.variance == pytest.approx(far.variance[-1], rel=1e-8)
    assert settled.bias == pytest.approx(far.bias[-1], abs=1e-12)
    np.testing.assert_allclose(settled.covariance, far.covariance, rtol=1e-7)


def test_a_simulated_course_takes_a_thousand_seeds_from_the_first():
    method = EF21(TopK(4, 2), 0.01)
    one, other = theory.dynamics(PROBLEM, method, X0, 2), theory.dynamics(PROBLEM, method, X0, 2, seeds=1000, seed=0)
    assert one.how.startswith("simulation of 1000 seeds")
    np.testing.assert_array_equal(one.gap, other.gap)
    drawn = IST(OnlySamples(), 0.01)
    first = theory.dynamics(PROBLEM, drawn, X0, 2)
    np.testing.assert_array_equal(first.gap, theory.dynamics(PROBLEM, drawn, X0, 2, seed=0).gap)
    np.testing.assert_allclose(first.gap, first.bias + first.variance)
    assert (first.variance[1:] > 0).all()


class OnlySamples:
    """Either worker has either half, by its draws alone."""

    def sample(self, random):
        held = np.repeat(random.permutation(2), 2)
        return 2.0 * (held == np.arange(2)[:, None])


@pytest.mark.parametrize("rounds", [3, 200])  # round by round, and by powers of one matrix
def test_an_exact_course_says_how_far_it_is(rounds, monkeypatch):
    said = []

    @contextmanager
    def told(title, total):
        assert total == rounds
        yield said.append

    monkeypatch.setitem(inspect.unwrap(theory.dynamics).__globals__, "progress", told)
    theory.dynamics(PROBLEM, IST(Permutation(2, 4), 0.01), X0, rounds)
    assert sum(said) == rounds
    assert said[0] == (0 if rounds == 3 else 63)


def test_nothing_moves_without_curvature():
    level = Quadratic(np.zeros((2, 2, 2)), np.zeros((2, 2)))
    assert theory.stable_stepsizes(level, DCGD(RandK(2, 1), 0.1)).intervals == ((0.0, math.inf),)
    assert theory.stable_stepsizes(level, GradientDescent(0.1)).largest == math.inf
    assert theory.local_limit(level, Permutation(2, 2)) == math.inf
    assert theory.contraction_limit(level, Permutation(2, 2)) == math.inf


def test_step_rules_by_their_definition():
    L = PROBLEM.L
    tops = [np.linalg.eigvalsh(matrix)[-1] for matrix in L]
    assert theory.contraction_limit(PROBLEM, Permutation(2, 4)) == pytest.approx(2 / (4 * max(tops) / 2))
    assert theory.contraction_limit(PROBLEM, Bernoulli(2, 4, 0.5)) == pytest.approx(2 / (4 * np.mean(tops)))
    assert theory.local_limit(PROBLEM, Permutation(2, 4)) == pytest.approx(2 / (2 * max(tops)))
    units = random_quadratic(4, 4, 5.0, 0.5, seed=2)
    diagonal = max(np.diag(matrix).max() for matrix in units.L)
    assert theory.contraction_limit(units, Permutation(4, 4)) == pytest.approx(2 / (16 * diagonal / 4))
    assert theory.local_limit(units, Permutation(4, 4)) == pytest.approx(2 / (4 * diagonal))


def test_first_order_needs_a_partition_with_one_scale():
    square = random_quadratic(4, 4, 2.0, 0.0, 0)
    for sketch in (Bernoulli(2, 4, 0.5), Permutation(5, 4), ScaledPermutation(square)):
        problem = random_quadratic(sketch.workers, 4, 2.0, 0.0, 0)
        with pytest.raises(InvalidInput, match="must be a permutation sketch with n <= d and one scale"):
            theory.first_order_fixed_point(problem, IST(sketch, 0.1, 2))
    one = theory.first_order_fixed_point(PROBLEM, IST(Permutation(2, 4), 0.1, 1))
    np.testing.assert_allclose(one, theory.fixed_point(PROBLEM, IST(Permutation(2, 4), 0.1)), rtol=1e-10)


def test_tails_by_hand():
    found = tails([0.5, 0.5], [[[1.2]], [[0.2]]])
    assert found.spread == pytest.approx(1.0376 / 0.74**2)
    assert found.rounds(100) == pytest.approx(math.log(100) / math.log(1.0376 / 0.74**2))
    still = tails([1.0], [[[0.5]]])
    assert (still.spread, still.rounds(10)) == (pytest.approx(1.0), math.inf)
    assert theory.Tails(Radius(0.0), Radius(0.0)).spread == 1.0
    with pytest.raises(InvalidInput, match=r"`matrices` must have shape \[P, d, d\], got \[1, 1, 2\]"):
        tails([1.0], np.ones((1, 1, 2)))
    J = np.array([[[0.5, 0.2], [0.1, 0.3]], [[0.1, -0.4], [0.6, 0.2]]])
    both = tails([0.3, 0.7], J)
    squares = sum(p * np.kron(A, A) for p, A in zip((0.3, 0.7), J, strict=True))
    fours = sum(p * np.kron(np.kron(A, A), np.kron(A, A)) for p, A in zip((0.3, 0.7), J, strict=True))
    assert both.second == pytest.approx(np.abs(np.linalg.eigvals(squares)).max(), rel=1e-10)
    assert both.fourth == pytest.approx(np.abs(np.linalg.eigvals(fours)).max(), rel=1e-10)
    for p in ([0.5, 0.6], [-0.5, 1.5]):
        with pytest.raises(InvalidInput, match="sum to 1"):
            tails(p, [[[1.0]], [[1.0]]])


class OneRow(WeightedPermutation):
    """A user's own sketch, which gives the weights that all workers share as one row."""

    weights = property(lambda self: self._weights[0])


@pytest.mark.parametrize(
    "sketch",
    [Permutation(3, 6), Permutation(2, 6, 1.3), Permutation(4, 4), Permutation(3, 2), Bernoulli(2, 3, 0.4),
     ImportanceSampling(2, [0.3, 0.9, 0.5]), RandomSparsification(2, 4, 2), RandomSparsification(2, 4, 1),
     WeightedPermutation([[0.5, 1.0, 1.5, 2.0], [2.5, 0.7, 1.2, 0.4]]), OneRow([[0.5, 1.0, 1.5, 2.0]] * 2)],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("merge", ["gradient", "model"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_every_moment_of_a_round_is_that_over_all_outcomes(sketch, merge, shared):
    n, d = sketch.workers, sketch.dim
    problem = random_quadratic(n, d, 10.0, 0.8, seed=3)
    if shared:
        L, b = problem.L, problem.b
        problem = Quadratic(np.broadcast_to(L[0], L.shape), np.broadcast_to(b[0], b.shape))
    update = affine_update(problem, IST(sketch, 0.03, merge=merge))
    found, support = Moments(update), sketch.support()
    p, P = support.probabilities, (support.diagonals > 0).astype(float)
    W, keep = np.broadcast_to(sketch.weights, (n, d)), merge == "gradient"
    G = np.stack([(0.0 if keep else np.diag(w)) - 0.03 * np.diag(w) @ L @ np.diag(w)
                  for w, L in zip(W, problem.L, strict=True)])  # fmt: skip
    H = np.einsum("pia,iab,pib->pab", P, G, P) / n
    h = np.einsum("pia,ia->pa", P, 0.03 * W * problem.b) / n
    random = np.random.default_rng(0)
    m, X = random.standard_normal(d), random.standard_normal((d, d))
    X = X + X.T
    near = {"rtol": 1e-9, "atol": 1e-13}
    np.testing.assert_allclose(found.mean_matrix, np.einsum("p,pab->ab", p, H), **near)
    np.testing.assert_allclose(found.mean_vector, p @ h, **near)
    np.testing.assert_allclose(found.sandwich(X), np.einsum("p,pab,bc,pcd->ad", p, H, X, H, optimize=True), **near)
    np.testing.assert_allclose(found.drift(m), np.einsum("p,pa,pb->ab", p, H @ m, h), **near)
    np.testing.assert_allclose(found.noise(), np.einsum("p,pa,pb->ab", p, h, h), **near)
    np.testing.assert_allclose(found.mean_times(X), np.einsum("p,pab->ab", p, H) @ X, **near)


def test_theorem_1_says_no_where_w_is_indefinite_and_its_bound_is_infinite() -> None:
    sharp = Quadratic(np.broadcast_to(np.array([[1.0, 2.9], [2.9, 9.0]]), (2, 2, 2)), np.zeros((2, 2)))
    found = theory.theorem1(sharp, Permutation(2, 2))
    assert found.assumptions[1].holds is False
    verdict = found.verdict(1e-9)
    assert (verdict.holds, verdict.number) == (False, found.assumptions[1].number)
    checked = theory.theorem1_contraction(sharp, IST(Permutation(2, 2), 1e-3), np.ones(2), 5)
    assert checked.values.tolist() == [math.inf] * 6


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1e9, 1e200])
def test_a_radius_is_as_accurate_at_any_scale(scale: float) -> None:
    found = operator_radius(lambda x: scale * np.array([[2.0, 1.0], [1.0, 2.0]]) @ x, 2)
    assert found / scale == pytest.approx(3.0, rel=1e-12)
    assert found.error < 1e-12


def test_a_search_of_rates_keeps_an_eigenmatrix_to_start_from() -> None:
    problem = random_quadratic(2, 9, 10.0, 0.8, seed=6)
    method = DCGD(RandK(9, 4), 0.2 / problem.spectrum[-1])
    search = RateSearch(problem)
    found = search.rate(method)
    assert found == pytest.approx(theory.asymptotic_rate(problem, method), rel=1e-9)
    S = search.eigenmatrix
    assert np.trace(S) == pytest.approx(9.0)
    np.testing.assert_allclose(second_moment_map(method, problem).apply(S), found * S, atol=1e-6)


@pytest.mark.parametrize("kind", ["upper", "lower", "tight"])
def test_a_bound_that_is_met_exactly_holds_without_any_slack(kind: str) -> None:
    assert bound([1.0, 0.5], [1.0, 0.5], kind).holds(rounding=0.0)


def test_a_search_for_stable_steps_goes_on_until_it_sees_an_end() -> None:
    grid = np.array([1.0, 2.0])
    assert _intervals(lambda step: step - 50.0, grid) == ((0.0, pytest.approx(50.0, rel=1e-10)),)
    assert _intervals(lambda step: step - 3e6, grid) == ((0.0, math.inf),)  # too far to look
    assert _intervals(lambda step: 1.0, grid) == ()
    assert _intervals(lambda step: -1.0 if step < 1.3 else math.inf, grid) == ((0.0, pytest.approx(1.3, rel=1e-12)),)
    asked: list[float] = []
    _intervals(lambda step: asked.append(step) or (-1.0 if step < 8.0 else 0.0), grid)
    assert asked[:4] == [1.0, 2.0, 4.0, 8.0]  # each as far again as the last
    assert max(asked) == 8.0


def test_powers_of_a_map_are_told_with_how_far_they_have_settled() -> None:
    calls = iter(range(2000))

    def apply(vector: np.ndarray) -> np.ndarray:
        at = next(calls)
        return vector * (5.0 if at < 500 else 2.0 if at < 700 else 4.0 if at < 1000 else 3.0)

    found = _by_powers(apply, np.ones(2))
    assert (found, found.how) == (pytest.approx(3.0), "powers")
    assert found.error == pytest.approx(abs(1 - 3 / (2**0.4 * 4**0.6)))  # 3 against their mean before


@pytest.mark.parametrize(("matrix", "vector"), [(np.zeros((2, 2)), np.ones(2)), (np.full((2, 2), np.inf), np.zeros(2))])
def test_there_is_no_fixed_point_of_a_round_that_moves_everything_or_overflows(matrix: Array, vector: Array) -> None:
    moments = SimpleNamespace(keep=1.0, mean_matrix=matrix, mean_vector=vector)
    assert np.isnan(fixed_point_of(moments)).all()


@pytest.mark.parametrize("method", [DCGD(RandK(2, 1), 0.1), DCGD(IdentityCompressor(2), 0.1)])
def test_nothing_moves_on_a_flat_function(method: DCGD) -> None:
    flat = Quadratic(np.zeros((2, 2, 2)), np.zeros((2, 2)))
    found = lifted_round(flat, method)
    assert found is not None
    np.testing.assert_array_equal(found.mean(np.array([1.0, 2.0])), [1.0, 2.0])
    assert theory.stable_stepsizes(flat, method).largest == math.inf


def test_a_mean_of_no_rounds_is_the_start() -> None:
    assert theory.mean_trajectory(PROBLEM, GradientDescent(0.1), X0, 0).tolist() == [X0.tolist()]


@pytest.mark.parametrize("curvature", [0.125, 8.0])
def test_theorem_1s_step_is_one_over_theta_below_and_above_1(curvature: float) -> None:
    flat = Quadratic(np.broadcast_to(curvature * np.eye(2), (2, 2, 2)), np.zeros((2, 2)))
    found = theory.theorem1(flat, Permutation(2, 2))
    assert (found.theta, found.stepsize) == pytest.approx((2 * curvature, 0.5 / curvature))  # B = n L P
    assert found.assumptions[0].why == "all b_i are 0"
    pulled = theory.theorem1(Quadratic(flat.L, np.ones((2, 2))), Permutation(2, 2))
    assert "b is not 0 (largest entry 1)" in pulled.assumptions[0].why


def test_a_bound_that_says_nothing_says_so_of_every_round() -> None:
    """Where the mean of the sketched matrices is singular: infinite, beside an exact course of the same length."""
    flat = Quadratic([np.diag([1.0, 0.0]), np.diag([2.0, 0.0])], [[1.0, 0.0], [0.0, 0.0]])
    bound = bounds.sgd_rate(flat, IST(RandomSparsification(2, 2, 1), 0.1), np.ones(2), 7)
    assert bound.values.tolist() == [math.inf] * 8
    assert bound.exact.shape == (8,)


@pytest.mark.parametrize("factor", [2.0**-250, 2.0**200])
def test_theorem_1_has_the_units_of_f(factor: float) -> None:
    """E[B], theta and the rate once, W and its smallest eigenvalue twice, E[B L B] three times; far from 1, where
    everything is worked out for another scale of f."""
    problem = replace(PROBLEM, L=factor * PROBLEM.L, b=factor * PROBLEM.b)
    sketch = RandomSparsification(2, 4, 2)
    one, other = theory.theorem1(PROBLEM, sketch), theory.theorem1(problem, sketch)
    for name, power in {"mean": 1, "square": 3, "W": 2, "smallest_eigenvalue": 2, "theta": 1, "rate": 1}.items():
        expected = getattr(one, name) * factor**power
        np.testing.assert_allclose(getattr(other, name), expected, rtol=1e-12, atol=1e-14 * np.max(np.abs(expected)))


def test_a_relative_gap_is_known_however_small_the_first_is() -> None:
    problem = Quadratic([[[1.0]]], [[0.0]])
    assert theory.relative_gap(problem, np.array([1e-4]), np.array([1e-3])) == pytest.approx(1e-2, rel=1e-12)
    assert math.isnan(theory.relative_gap(problem, np.array([1.0]), np.array([0.0])))


def test_a_simulated_gap_is_that_of_the_runs_in_two_parts() -> None:
    method = EF21(TopK(4, 2), 0.02)
    found = theory.dynamics(PROBLEM, method, X0, 30, seeds=5, seed=3)
    runs = simulate(PROBLEM, method, X0, 30, 5, 3)
    np.testing.assert_allclose(found.gap, runs.mean_gap, rtol=1e-12)
    np.testing.assert_allclose(found.bias, PROBLEM.gap(runs.mean), rtol=1e-12)
    noisy = DCGD(Natural(4), 0.02)
    both, runs = theory.dynamics(PROBLEM, noisy, X0, 30, seeds=5, seed=3), simulate(PROBLEM, noisy, X0, 30, 5, 3)
    np.testing.assert_allclose(both.gap, runs.mean_gap, rtol=1e-12)
    assert (both.variance[1:] > 0).all()


def test_one_coordinate_has_the_course_of_a_geometric_series() -> None:
    problem = Quadratic([[[2.0]], [[6.0]]], [[3.0], [5.0]])  # x* = 1, f'' = 4
    series = 0.5 * 4.0 * 4.0 * (1 - 0.1 * 4.0) ** (2.0 * np.arange(8))
    whole = IdentityCompressor(1)
    for method in (DCGD(whole, 0.1), MARINA(whole, 0.1, 0.5), EF21(whole, 0.1)):
        np.testing.assert_allclose(theory.dynamics(problem, method, [3.0], 7).gap, series, rtol=1e-12)
    assert theory.stable_stepsizes(problem, DCGD(RandK(1, 1), 0.1)).largest == pytest.approx(0.5)


def test_a_readout_of_nothing_is_nothing() -> None:
    found = theory.readouts(PROBLEM, np.zeros(4))
    assert found.searched.tolist() == [0.0] * 4
    assert found.scale == 0.0
    assert len({float(gap) for gap in found.gaps}) == 1


def test_steps_may_be_stable_in_several_intervals() -> None:
    grid = np.linspace(0.5, 9.5, 19)
    for roots in ((1.2, 2.9), (1.2, 2.9, 4.1, 7.7), (1.2, 2.9, 4.1)):

        def excess(step: float, roots: tuple[float, ...] = roots) -> float:
            return float(np.prod(step - np.array(roots)))  # below 0 at 0.5 where the number of roots is odd

        found = _intervals(excess, grid)
        ends = [*roots] if len(roots) % 2 == 0 else [0.0, *roots]
        np.testing.assert_allclose(np.ravel(found), ends, rtol=1e-10)


def test_theorem_1_names_the_lack_of_a_theta_where_w_is_indefinite() -> None:
    sharp = Quadratic(np.broadcast_to(np.array([[1.0, 2.9], [2.9, 9.0]]), (2, 2, 2)), np.zeros((2, 2)))
    (theta,) = (one for one in theory.theorem1(sharp, Permutation(2, 2)).assumptions if one.name == "theta")
    assert theta.holds is False


@pytest.mark.parametrize("accuracy", [0.0, 1.0, 1.5])
def test_an_accuracy_lies_between_0_and_1(accuracy: float) -> None:
    with pytest.raises(InvalidInput, match="`accuracy` must be"):
        theory.best_stepsize(PROBLEM, GradientDescent(0.1), accuracy)


def test_symmetric_matrices_and_their_vectors_have_the_same_inner_products() -> None:
    S, T = (matrix + matrix.T for matrix in np.random.default_rng(0).standard_normal((2, 5, 5)))
    assert svec(S).shape == (15,)
    assert svec(S) @ svec(T) == pytest.approx(np.vdot(S, T), rel=1e-14)
    np.testing.assert_allclose(smat(svec(np.stack([S, T]))), [S, T], rtol=1e-15)
    J = np.random.default_rng(1).standard_normal((5, 5))
    matrix = matrix_on_svec(lambda X: J @ X @ J.T, 5)
    np.testing.assert_allclose(smat(matrix @ svec(S)), J @ S @ J.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(matrix, 2), np.linalg.norm(J, 2) ** 2, rtol=1e-12)


def test_a_map_that_is_too_large_for_its_matrix_is_repeated_up_to_a_limit() -> None:
    half = repeated(lambda S: 0.5 * S, 37, 1000, "period")  # 703 entries
    np.testing.assert_array_equal(half(np.eye(37)), 0.5**1000 * np.eye(37))
    with pytest.raises(InvalidInput, match="`period` must be at most 1000"):
        repeated(lambda S: 0.5 * S, 37, 1001, "period")
    assert repeated(lambda S: 1.0 * S, 36, 1001, "period")(np.eye(36)).shape == (36, 36)  # 666
    J = np.array([[0.9, 0.3], [-0.2, 0.8]])
    power = np.linalg.matrix_power(J, 50)
    S = np.array([[2.0, 1.0], [1.0, 3.0]])
    at_once = repeated(lambda S: J @ S @ J.T, 2, 50, "period")
    np.testing.assert_allclose(at_once(S), power @ S @ power.T, rtol=1e-10)


def test_a_course_has_an_error_for_every_round_and_takes_two_seeds_at_least() -> None:
    exact = theory.dynamics(PROBLEM, IST(Permutation(2, 4), 0.01), X0, 7)
    np.testing.assert_array_equal(exact.gap_error, np.zeros(8))
    method = EF21(TopK(4, 2), 0.01)
    assert theory.dynamics(PROBLEM, method, X0, 2, seeds=2).how.startswith("simulation of 2 seeds")
    with pytest.raises(InvalidInput, match="`seeds` must be at least 2"):
        theory.dynamics(PROBLEM, method, X0, 2, seeds=1)


def test_a_small_bound_that_is_broken_is_seen_and_what_is_not_known_is_left_out() -> None:
    assert not bound([1e-15], [1.1e-15]).holds()
    assert bound([np.inf, 1.0], [np.nan, 0.5]).holds()
    assert bound([np.nan, 1.0], [0.3, 0.5]).holds()


def test_one_worker_with_all_of_two_coordinates_has_the_square() -> None:
    alone = Quadratic([[[2.0, 1.0], [1.0, 3.0]]], [[0.0, 0.0]])
    np.testing.assert_allclose(theory.perm_q_form(alone, 2), alone.mean_matrix @ alone.mean_matrix)


def test_stable_steps_end_where_the_rate_passes_1_and_not_where_it_overflows() -> None:
    def excess(step: float) -> float:
        return -1.0 if step < 1.3 else 0.5 if step < 1.6 else math.inf

    assert _intervals(excess, np.array([1.0, 2.0])) == ((0.0, pytest.approx(1.3, rel=1e-12)),)


def test_radii_square_with_their_errors_and_nothing_is_known_to_the_last_digit() -> None:
    found = Radius(0.5, 1e-6, "dense").squared
    assert (found, found.error, found.how) == (0.25, 2e-6, "dense")
    assert Radius(0.5).error == 0.0
    assert matrix_radius(np.diag([1.0, 0.5])).error <= 1e-14
    nothing = _by_powers(lambda v: 0.0 * v, np.ones(2))
    assert (nothing, nothing.error, nothing.how) == (0.0, 0.0, "powers")


@pytest.mark.parametrize(("merge", "steps"), [("gradient", 1), ("model", 1), ("model", 3)])
def test_the_mean_has_the_course_of_the_whole_law(merge: str, steps: int) -> None:
    method = IST(Bernoulli(2, 4, 0.6), 0.02, steps, merge=merge)
    means = theory.mean_trajectory(PROBLEM, method, X0, 6)
    np.testing.assert_allclose(means, theory.dynamics(PROBLEM, method, X0, 6).mean, rtol=1e-12)


def test_a_search_and_a_single_question_have_the_same_rate_of_a_method_with_periods() -> None:
    method = AnchoredIST(Permutation(2, 4), 0.02, 3)
    assert RateSearch(PROBLEM).rate(method) == pytest.approx(theory.asymptotic_rate(PROBLEM, method), rel=1e-10)


def test_a_fixed_point_is_one_to_the_last_digit() -> None:
    problem = random_quadratic(3, 5, 100.0, 1.0, seed=3)
    found = lifted_round(problem, DIANA(RandK(5, 2), 0.1 / float(problem.spectrum[-1]), 0.2))
    assert found is not None
    m = found.fixed_point
    assert np.linalg.norm(found.mean(m) - m) <= 1e-15 * np.linalg.norm(m)


class OnlyTwice:
    """Everyone has everything, twice over, by draws alone."""

    def sample(self, random: np.random.Generator) -> Array:
        return np.full((2, 4), 2.0)

    def sample_many(self, random: np.random.Generator, count: int) -> Array:
        return np.full((count, 2, 4), 2.0)


def test_moments_by_samples_are_means_over_as_many_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, square = sampled_matrix_moments(PROBLEM, as_sketch(OnlyTwice()))
    np.testing.assert_allclose(mean, 4.0 * PROBLEM.mean_matrix, rtol=1e-12)
    np.testing.assert_allclose(square, 4.0 * PROBLEM.mean_matrix @ PROBLEM.mean_matrix @ mean, rtol=1e-12)
    assert theory.stationary(PROBLEM, IST(OnlySamples(), 0.01)).how == "Monte Carlo, 2000 draws"
    monkeypatch.setattr(estimates, "MOST_NUMBERS", 100)
    assert theory.stationary(PROBLEM, IST(OnlySamples(), 0.01)).how == "Monte Carlo, 6 draws"


@pytest.mark.parametrize("sketch", [Permutation(2, 4), OnlySamples()])
def test_theorem_1_says_whether_its_moments_are_exact(sketch: object) -> None:
    assert theory.theorem1(PROBLEM, sketch).exact is isinstance(sketch, Permutation)


def test_a_diverging_course_keeps_the_rounds_before_its_powers_overflow() -> None:
    method = IST(Permutation(2, 4), 1.0)
    growth = theory.asymptotic_rate(PROBLEM, replace(method, stepsize=1e3))
    method = replace(method, stepsize=1e3 * math.sqrt(2e3 / growth))  # times 2,000 a round: 64 rounds fit, not 127
    moments = known_moments(PROBLEM, method)
    slow = [S for _, S in course(moments, X0, 64)]
    fast = np.concatenate([covariances for _, covariances in blocks(moments, X0, 64)])
    assert len(fast) == len(slow) == 65
    np.testing.assert_allclose(fast[-1], slow[-1], rtol=1e-9)


def test_a_course_ends_where_the_covariance_overflows_though_the_mean_settles() -> None:
    flat = Quadratic([np.eye(4)] * 4, np.ones((4, 4)))
    lifted = lifted_round(Quadratic([np.eye(4)], np.ones((1, 4))), DCGD(RandK(4, 1), 1.0))
    assert lifted is not None
    ist = known_moments(flat, IST(Permutation(4, 4), 0.9))
    for path in (lifted.course(np.ones(lifted.size) * 2.0, 1500), course(ist, X0, 1500)):
        *_, (m, S) = rounds = list(path)
        assert 100 < len(rounds) < 1500
        assert np.isfinite(m).all()
        assert np.isfinite(S).all()
        assert np.abs(S).max() > 1e250


def test_no_rounds_are_a_course_too() -> None:
    assert theory.quadratic_forms(PROBLEM, IST(Permutation(2, 4), 0.1), X0, 0, [np.eye(4)]).shape == (1, 1)
    whole = theory.coordinate_dynamics([1.0, 1.0], [1.0, 1.0], IST(Permutation(2, 2), 0.5), [0.0, 0.0], 0)  # n = d
    np.testing.assert_array_equal(whole.gap, [1.0])


class Gambles:
    """One worker, whose round multiplies x by -1.3 or 0.1: E J^2 = 0.85 and E J^4 = 1.43."""

    def sample(self, random: np.random.Generator) -> Array:
        return np.full((1, 1), math.sqrt(2.3 if random.random() < 0.5 else 0.9))


def test_a_simulated_course_with_heavy_tails_says_that_its_errors_cover_nothing() -> None:
    found = theory.dynamics(Quadratic([[[1.0]]], [[0.0]]), IST(as_sketch(Gambles()), 1.0), [1.0], 40, seeds=200)
    assert found.how.startswith("simulation of 200 seeds, heavy tails (index ")
    assert found.how.endswith("): its errors cover nothing")


def test_theorem_1_is_of_one_local_step_merged_by_gradients() -> None:
    def said(steps: int, merge: str) -> bool | None:
        bound = theory.theorem1_contraction(PROBLEM, IST(Permutation(2, 4), 1e-3, steps, merge=merge), X0, 1)
        (found,) = (one for one in bound.assumptions if one.name == "method (2)")
        return found.holds

    assert [said(1, "gradient"), said(2, "gradient"), said(1, "model")] == [True, False, False]


@pytest.mark.parametrize("curvature", [1e-9, 0.5, 1e9])
def test_a_readout_searches_at_any_curvature(curvature: float) -> None:
    found = theory.readouts(Quadratic([[[curvature]]], [[3.0 * curvature]]), np.array([2.0]))
    assert (found.scale, found.searched.tolist()) == (pytest.approx(1.5), pytest.approx([3.0]))


@pytest.mark.parametrize("same", [True, False], ids=["all alike", "alike but for b"])
@pytest.mark.parametrize("sketch", [Permutation(3, 6), Bernoulli(3, 6, 0.4), RandomSparsification(3, 6, 2)], ids=str)
def test_workers_that_share_a_matrix_have_the_moments_of_copies_of_it(sketch: object, same: bool) -> None:
    one = random_quadratic(1, 6, 10.0, 0.0, seed=4)
    b = np.broadcast_to(one.b, (3, 6)) if same else np.random.default_rng(0).standard_normal((3, 6))
    shared = known_moments(Quadratic(np.broadcast_to(one.L, (3, 6, 6)), b), IST(sketch, 0.02))
    copies = Quadratic(np.repeat(one.L, 3, axis=0), np.array(b))
    other = enumerate_round(copies, IST(sketch, 0.02), limit=10**6)
    assert other is not None
    X, m = random_quadratic(1, 6, 3.0, 0.0, seed=5).L[0], np.arange(6.0)
    np.testing.assert_allclose(covariance_step(shared, X), covariance_step(other, X), rtol=1e-10, atol=1e-13)
    drift = shared.drift(m) + np.outer(m, shared.mean_vector)  # outcomes are of I + H
    np.testing.assert_allclose(drift, other.drift(m), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(shared.noise(), other.noise(), rtol=1e-10, atol=1e-14)


def test_theorem_1s_step_where_theta_is_nothing_or_nowhere() -> None:
    found = theory.theorem1(PROBLEM, Permutation(2, 4))
    steps = [replace(found, theta=theta).stepsize for theta in (0.0, 0.25, 4.0, math.inf)]
    assert steps == [math.inf, 4.0, 0.25, 0.0]


@pytest.mark.parametrize("rounds", [62, 63, 64, 127])
def test_powers_give_as_many_rounds_as_are_asked_for(rounds: int) -> None:
    moments = known_moments(PROBLEM, IST(Permutation(2, 4), 0.01))
    parts = [means for means, _ in powered(moments, X0, rounds)]
    assert all(len(means) for means in parts)
    assert sum(map(len, parts)) == rounds + 1


@pytest.mark.parametrize("unit", [1e-10, 1e10])
def test_the_stationary_law_has_the_units_of_b(unit: float) -> None:
    method = DCGD(RandK(4, 2), 0.01)
    one, other = (theory.stationary(Quadratic(PROBLEM.L, c * PROBLEM.b), method) for c in (1.0, unit))
    np.testing.assert_allclose(other.covariance / unit**2, one.covariance, rtol=1e-9)
    ist = IST(Permutation(2, 4), 0.01)
    one, other = (theory.stationary(Quadratic(PROBLEM.L, c * PROBLEM.b), ist) for c in (1.0, unit))
    np.testing.assert_allclose(other.covariance / unit**2, one.covariance, rtol=1e-9)
    assert one.why == f"stationary: mean-square radius {one.radius:.6g}"  # and no word of what is left unsolved


@pytest.mark.parametrize("curvature", [0.01, 1.0, 100.0])
def test_step_limits_have_the_units_of_f(curvature: float) -> None:
    problem = Quadratic([curvature * np.eye(2)] * 2, np.zeros((2, 2)))
    assert theory.local_limit(problem, Permutation(2, 2, 1.0)) == pytest.approx(2.0 / curvature)
    assert theory.contraction_limit(problem, Permutation(2, 2)) == pytest.approx(1.0 / curvature)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_error_of_a_radius_is_relative(scale: float) -> None:
    J = np.diag(np.linspace(0.1, 1.0, 30))
    found = positive_radius(lambda S: scale * (J @ S @ J), 30)
    assert (found, found.how) == (pytest.approx(scale, rel=1e-10), "ARPACK")
    assert found.error <= 1e-10
