"""Closed forms of the fixed point, the objective it minimises, readouts, local steps, theorems as bounds."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases.lab import BOUNDS, random_quadratic
from isthmus import lab
from isthmus.errors import InvalidInput
from isthmus.lab import (
    IST,
    Identity,
    ImportanceSampling,
    Permutation,
    Quadratic,
    RandomSparsification,
    ScaledPermutation,
    theory,
)
from isthmus.lab.theory.bounds import scaled_fixed_point


@given(n=st.integers(1, 4), size=st.integers(1, 4), seed=st.integers(0, 999))
@settings(max_examples=40)
def test_fixed_point_minimises_the_sketched_objective(n: int, size: int, seed: int) -> None:
    d = n * size
    problem = random_quadratic(n, d, seed)
    x_inf = theory.fixed_point(problem, IST(Permutation(n, d), 0.01))
    objective = theory.sketched_objective(problem, Permutation(n, d))
    random = np.random.default_rng(seed)
    values = objective.value(x_inf + 1e-2 * random.standard_normal((20, d)))
    assert (values >= objective.value(x_inf)).all()
    # the closed form: [Lbar + t (d Dbar - Lbar)]^{-1} bbar
    t = (n - 1) / (d - 1) if d > 1 else 0.0
    Lbar = problem.mean_matrix
    expected = np.linalg.solve(Lbar + t * (d * np.diag(np.diag(Lbar)) - Lbar), problem.mean_vector)
    np.testing.assert_allclose(x_inf, expected, rtol=1e-9, atol=1e-12)


def test_sketches_with_equal_second_moments_share_the_fixed_point() -> None:
    problem = random_quadratic(3, 6)
    step = 0.001
    perm = theory.fixed_point(problem, IST(Permutation(3, 6), step))
    rand = theory.fixed_point(problem, IST(RandomSparsification(3, 6, 2), step))
    np.testing.assert_allclose(perm, rand, rtol=1e-12)
    np.testing.assert_allclose(theory.fixed_point(problem, IST(Identity(3, 6), step)), problem.minimizer, rtol=1e-10)
    bernoulli = theory.fixed_point(problem, IST(ImportanceSampling(3, np.full(6, 0.5)), step))
    D = np.diag(np.diag(problem.mean_matrix))
    np.testing.assert_allclose(bernoulli, np.linalg.solve(problem.mean_matrix + D, problem.mean_vector), rtol=1e-10)


@pytest.mark.parametrize("steps", [1, 2, 7, math.inf])
def test_single_units_with_local_steps(steps: float) -> None:
    problem = random_quadratic(4, 4)
    gamma = 0.5 / problem.diagonals.max()
    w = 1 - (1 - gamma * problem.diagonals) ** steps if steps < math.inf else np.ones((4, 4))
    expected = (w * problem.b / problem.diagonals).sum(axis=0) / w.sum(axis=0)
    found = theory.fixed_point(problem, IST(Permutation(4, 4, 1.0), gamma, steps))
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    unscaled = theory.fixed_point(problem, IST(Permutation(4, 4), gamma / 4, steps))
    np.testing.assert_allclose(4 * unscaled, expected, rtol=1e-11)  # the same dynamics, another readout


def test_first_order_in_local_steps() -> None:
    problem = random_quadratic(2, 6)
    errors = []
    for gamma in (1e-3, 1e-4):
        method = IST(Permutation(2, 6, 2.0), gamma, 4)
        exact = theory.fixed_point(problem, method)
        errors.append(np.abs(theory.first_order_fixed_point(problem, method) - exact).max())
        first = theory.fixed_point(problem, IST(Permutation(2, 6, 2.0), gamma, 1))
        assert errors[-1] < 0.2 * np.abs(first - exact).max()  # it explains the change
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.3)  # and leaves a second-order error
    with pytest.raises(InvalidInput, match="permutation sketch"):
        theory.first_order_fixed_point(problem, IST(RandomSparsification(2, 6, 2), 0.1))


def test_homogeneous_unit_diagonal_readouts() -> None:
    random = np.random.default_rng(1)
    A = random.standard_normal((24, 12))
    L = A.T @ A
    L = L / np.sqrt(np.outer(np.diag(L), np.diag(L)))
    x_star = random.standard_normal(12)
    problem = Quadratic(np.broadcast_to(L, (3, 12, 12)), np.broadcast_to(L @ x_star, (3, 12)))
    y = theory.fixed_point(problem, IST(Permutation(3, 12, 1.0), 0.1))
    values, vectors = np.linalg.eigh(L)
    rho = (4 - 1) / (12 - 1)
    factors = values / (1 + rho * (values - 1))
    np.testing.assert_allclose(vectors.T @ y, factors * (vectors.T @ x_star), rtol=1e-9)
    read = theory.readouts(problem, y)
    assert read.gaps[2] <= min(read.gaps[:2])
    around = [float(problem.gap(c * y)) for c in read.scale * np.array([0.99, 1.01])]
    assert read.gaps[2] < min(around)
    np.testing.assert_allclose(read.averaged, theory.fixed_point(problem, IST(Permutation(3, 12), 0.1)), rtol=1e-10)


def test_theorem_1_bounds_hold_where_they_apply() -> None:
    problem = random_quadratic(3, 6, biased=False)
    theta = theory.theorem1(problem, Permutation(3, 6)).theta
    for share in (0.2, 1.0):
        method = IST(Permutation(3, 6), share / theta)
        for bound in (theory.theorem1_contraction, theory.theorem1_average):
            found = bound(problem, method, np.ones(6), 40)
            assert found.applies, found.assumptions
            assert found.holds()
            assert 0 < found.worst_ratio <= 1 + 1e-9
    biased = theory.theorem1_contraction(random_quadratic(3, 6), IST(Permutation(3, 6), 0.01), np.ones(6), 5)
    assert not biased.applies
    assert biased.assumptions[0].name == "interpolation"
    large = theory.theorem1_contraction(problem, IST(Permutation(3, 6), 2 / theta), np.ones(6), 5)
    assert "above 1/theta" in {one.name: one.why for one in large.assumptions}["gamma"]
    flat = np.diag([3.0, 0.0])
    singular = theory.theorem1(Quadratic([flat, flat], np.zeros((2, 2))), Permutation(2, 2))
    assert [one.name for one in singular.assumptions if not one.holds] == ["Lbar > 0"]
    assert "in its range" in singular.verdict(0.01).why
    assert singular.rate == pytest.approx(2 * 3.0)


@pytest.mark.parametrize("kind", [float, np.float64])
def test_a_step_above_the_limit_fails_whatever_kind_of_number_it_is(kind: type[float]) -> None:
    problem = random_quadratic(3, 6)
    limit = 2 / float(problem.spectrum[-1])
    for share, applies in ((0.5, True), (1.5, False)):
        found = theory.gradient_descent_rate(problem, kind(share * limit), np.ones(6), 3)
        assert found.applies is applies
        assert [one.holds for one in found.assumptions] == [applies]


def test_an_exact_bound_is_a_bound_with_one_exact_value_for_each_of_its_own() -> None:
    found = theory.gradient_descent_rate(random_quadratic(3, 6), 0.01, np.ones(6), 3)
    assert isinstance(found, lab.Bound)
    assert theory.Bound is lab.Bound
    with pytest.raises(InvalidInput, match="`exact` must have the shape"):
        dataclasses.replace(found, exact=found.exact[1:])
    with pytest.raises(InvalidInput, match="`kind` must be one of"):
        dataclasses.replace(found, kind="above")


@pytest.mark.parametrize("name", BOUNDS)
@given(n=st.integers(1, 4), size=st.integers(1, 3), seed=st.integers(0, 999), share=st.floats(0.05, 1.0))
@settings(max_examples=25)
def test_no_bound_is_broken(name: str, n: int, size: int, seed: int, share: float) -> None:
    _, unbiased, build = BOUNDS[name]
    d = n * (1 if name.startswith("theorem 2") else size)  # the scaled sketch is for n = d
    problem = random_quadratic(n, d, seed, biased=not unbiased)
    bound = build(problem, np.random.default_rng(seed).standard_normal(d), 25, share)
    assert not bound.applies or bound.holds()


@pytest.mark.parametrize("name", BOUNDS)
def test_every_bound_applies_somewhere(name: str) -> None:
    """Where none of its assumptions fails; otherwise "never broken" says nothing."""
    _, unbiased, build = BOUNDS[name]
    applied = [
        build(random_quadratic(4, 4, seed, biased=not unbiased), np.ones(4), 5, 0.5).applies for seed in range(20)
    ]
    assert any(applied)


@given(n=st.integers(2, 5), seed=st.integers(0, 999), gamma=st.floats(0.05, 1.0))
@settings(max_examples=40)
def test_theorem_2_in_its_three_forms(n: int, seed: int, gamma: float) -> None:
    problem = random_quadratic(n, n, seed)
    x0 = np.random.default_rng(seed).standard_normal(n)
    forms = {form: theory.theorem2(problem, gamma, x0, 30, form) for form in ("printed", "tight", "beta-free")}
    for bound in forms.values():
        assert not bound.applies or bound.holds()
    said = slice(1, None)
    assert (forms["beta-free"].values[said] <= forms["tight"].values[said] * (1 + 1e-12)).all()
    assert (forms["tight"].values[said] <= forms["printed"].values[said] * (1 + 1e-12)).all()
    exact = theory.exact_scaled_gap(problem, gamma, x0, 30)
    method = IST(ScaledPermutation(problem), gamma)
    np.testing.assert_allclose(exact, theory.dynamics(problem, method, x0, 30).gap, rtol=1e-9)
    np.testing.assert_allclose(theory.fixed_point(problem, method), scaled_fixed_point(problem), rtol=1e-9, atol=1e-12)


def test_theorem_2_is_an_equality_at_one() -> None:
    bound = theory.theorem2(random_quadratic(4, 4), 1.0, np.ones(4), 10)
    assert bound.kind == "tight"
    assert bound.holds()
    assert bound.worst_ratio == pytest.approx(1.0, abs=1e-9)


def test_theorem_2_says_up_to_which_step_it_applies() -> None:
    problem = random_quadratic(3, 3)
    for form, at_one in (("printed", False), ("tight", False), ("beta-free", True)):
        applies = [theory.theorem2(problem, step, np.ones(3), 3, form).applies for step in (0.999, 1.0, 1.001)]
        assert applies == [True, at_one, False]
    alone = theory.theorem2(Quadratic([[[3.0]]], [[2.0]]), 1.0, np.ones(1), 3)  # one worker, one number: no noise
    np.testing.assert_allclose(alone.values[1:], alone.exact[1:], rtol=1e-12)


def test_a_bound_holds_on_the_side_that_its_kind_says() -> None:
    found = theory.gradient_descent_rate(random_quadratic(3, 6), 0.01, np.ones(6), 3)
    for share, kinds in ((0.5, ["upper"]), (1.0, ["upper", "lower", "tight"]), (2.0, ["lower"])):
        beside = dataclasses.replace(found, exact=share * found.values)
        assert [kind for kind in ("upper", "lower", "tight") if dataclasses.replace(beside, kind=kind).holds()] == kinds
        assert beside.worst_ratio == pytest.approx(share, rel=1e-12)


def test_gradient_descent_and_sgd_rates() -> None:
    problem = random_quadratic(3, 6)
    descent = theory.gradient_descent_rate(problem, 1 / problem.spectrum[-1], np.ones(6), 30)
    assert descent.applies
    assert descent.holds()
    assert not theory.gradient_descent_rate(problem, 3 / problem.spectrum[-1], np.ones(6), 3).applies
    limit = theory.sgd_rate(problem, IST(Permutation(3, 6), 1e-9), np.ones(6), 1).assumptions[0].number
    for share in (0.1, 1.0):
        bound = theory.sgd_rate(problem, IST(Permutation(3, 6), share * limit), np.ones(6), 60)
        assert bound.applies
        assert bound.holds()


@pytest.mark.parametrize(("workers", "dim"), [(2, 4), (3, 3), (2, 8), (1, 3)])
def test_perm_q_form_of_W(workers: int, dim: int) -> None:
    problem = random_quadratic(workers, dim)
    found = theory.theorem1(problem, Permutation(workers, dim)).W
    np.testing.assert_allclose(theory.perm_q_form(problem, dim // workers), found, rtol=1e-12, atol=1e-12)


def test_perm_q_needs_a_size_that_fits() -> None:
    with pytest.raises(InvalidInput, match="`size` must be dim / workers, got 3 for 4 coordinates and 2 workers"):
        theory.perm_q_form(random_quadratic(2, 4), 3)


def test_homogeneous_preconditioning_has_theta_n() -> None:
    problem = random_quadratic(1, 4)
    homogeneous = Quadratic(np.broadcast_to(problem.L[0], (4, 4, 4)), np.zeros((4, 4)))
    D = np.sqrt(np.diag(problem.L[0]))
    tilde = Quadratic(np.broadcast_to(problem.L[0] / np.outer(D, D), (4, 4, 4)), np.zeros((4, 4)))
    np.testing.assert_allclose(theory.expected_matrix(tilde, Permutation(4, 4)), 4 * np.eye(4), atol=1e-12)
    assert theory.theorem1(tilde, Permutation(4, 4)).theta == pytest.approx(4.0)
    scaled = ScaledPermutation(homogeneous, homogeneous=True)
    np.testing.assert_allclose(theory.expected_matrix(homogeneous, scaled), np.eye(4), atol=1e-12)


def test_the_relative_gap_is_a_share_of_the_initial_one() -> None:
    problem = Quadratic([[[2.0]]], [[0.0]])
    assert theory.relative_gap(problem, np.array([1.0]), np.array([3.0])) == 1 / 9
    assert np.isnan(theory.relative_gap(problem, np.array([1.0]), np.array([0.0])))


def test_theorem_1_says_no_just_above_its_step() -> None:
    problem = random_quadratic(2, 4, seed=1, biased=False)
    found = theory.theorem1(problem, Identity(2, 4))  # gradient descent: theta = L
    assert found.stepsize == pytest.approx(1 / problem.spectrum[-1])
    assert found.verdict(found.stepsize).holds
    above = found.verdict(1.001 * found.stepsize)
    assert above.holds is False
    assert "is above 1/theta" in above.why
