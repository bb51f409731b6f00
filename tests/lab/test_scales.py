"""Nothing depends on the scale of f, on the coordinates' units, or on a worker standing there twice."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.lab import IST, GradientDescent, Identity, Permutation, Quadratic, RandomSparsification, rates, theory
from isthmus.lab.definite import inverse, is_definite, is_solvable, largest_relative, null_space, solve
from isthmus.lab.methods import AnchoredIST
from isthmus.lab.methods.local_steps import local_map
from isthmus.lab.problems import constants

EXTREMES = [1e-300, 1e-140, 1e-30, 1e30, 1e140, 1e300]
UNITS = [1e-70, 1e-20, 1e-5, 1e5, 1e20, 1e70]  # curvatures go with their squares: 1e-140 .. 1e140


def drawn(workers: int = 2, dim: int = 4, seed: int = 0) -> Quadratic:
    random = np.random.default_rng([seed, workers, dim])
    A = random.standard_normal((workers, dim, dim))
    return Quadratic(np.einsum("nka,nkb->nab", A, A) + 0.3 * np.eye(dim), random.standard_normal((workers, dim)))


def times(problem: Quadratic, scale: float) -> Quadratic:
    return Quadratic(problem.L * scale, problem.b * scale)


def in_units(problem: Quadratic, units: np.ndarray) -> Quadratic:
    """The same functions of x / units."""
    return Quadratic(problem.L * units[:, None] * units, problem.b * units)


@pytest.mark.parametrize("scale", EXTREMES)
def test_results_go_with_the_scale_of_f(scale: float) -> None:
    plain, large = drawn(), times(drawn(), scale)
    sketch, step = Permutation(2, 4), 0.05
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(large.minimizer, plain.minimizer, rtol=1e-12)
        assert large.optimal_value / scale == pytest.approx(plain.optimal_value, rel=1e-12)
        for build in (lambda g: IST(sketch, g), lambda g: IST(sketch, g, 3), lambda g: IST(sketch, g, merge="model")):
            before, after = build(step), build(step / scale)
            np.testing.assert_allclose(
                theory.dynamics(large, after, np.ones(4), 6).gap / scale,
                theory.dynamics(plain, before, np.ones(4), 6).gap,
                rtol=1e-11,
            )
            np.testing.assert_allclose(
                theory.fixed_point(large, after), theory.fixed_point(plain, before), rtol=1e-11
            )
            assert theory.stationary(large, after).gap / scale == pytest.approx(
                theory.stationary(plain, before).gap, rel=1e-9
            )
        ends = theory.stable_stepsizes(plain, IST(sketch, 1.0)).largest
        assert theory.stable_stepsizes(large, IST(sketch, 1.0)).largest * scale == pytest.approx(ends, rel=1e-11)
        first, second = (theory.theorem1(one, sketch) for one in (plain, large))
        assert (second.theta / scale, second.rate / scale) == pytest.approx((first.theta, first.rate), rel=1e-11)
        assert [one.holds for one in first.assumptions] == [one.holds for one in second.assumptions]
        before, after = (rates.surrogate(one, sketch) for one in (plain, large))
        assert after.theta / scale == pytest.approx(before.theta, rel=1e-11)
        np.testing.assert_allclose(after.ratios, before.ratios, rtol=1e-11)


@pytest.mark.parametrize("scale", [1e-140, 1e-30, 1e30, 1e140])
def test_constants_and_default_steps_go_with_the_scale_of_f(scale: float) -> None:
    plain, large = drawn(), times(drawn(), scale)
    first, second = constants(plain), constants(large)
    for name in ("mu", "L", "mu_min", "L_max", "L_tilde", "L_plus", "L_pm"):
        assert getattr(second, name) / scale == pytest.approx(getattr(first, name), rel=1e-10), name
    assert second.zeta2 / scale / scale == pytest.approx(first.zeta2, rel=1e-10)
    before, after = (rates.Setting(one, np.ones(4), 5) for one in (plain, large))
    for method in (IST(Permutation(2, 4), 1.0), AnchoredIST(Permutation(2, 4, 1.4), 1.0, 3), GradientDescent(1.0)):
        step = rates.largest_stepsize(method, before)
        assert rates.largest_stepsize(method, after) * scale == pytest.approx(step, rel=1e-10)


def test_a_search_for_stable_steps_goes_with_the_scale_of_f() -> None:
    method = IST(Permutation(2, 2), 1.0, merge="model")
    (_, high), *_ = theory.stable_stepsizes(drawn(2, 2), method).intervals
    (_, large), *_ = theory.stable_stepsizes(times(drawn(2, 2), 1e12), method).intervals
    assert large * 1e12 == pytest.approx(high, rel=1e-10)


@pytest.mark.parametrize("unit", UNITS)
def test_coordinates_have_units_of_their_own(unit: float) -> None:
    units = np.array([1.0, unit, 1.0, unit])
    plain, turned = drawn(), in_units(drawn(), units)
    assert not turned.singular
    np.testing.assert_allclose(turned.minimizer * units, plain.minimizer, rtol=1e-11)
    assert turned.optimal_value == pytest.approx(plain.optimal_value, rel=1e-11)
    for sketch in (Permutation(2, 4), Permutation(2, 4, 1.0), RandomSparsification(2, 4, 2)):
        limits = [theory.fixed_point(one, IST(sketch, 1e-150)) for one in (plain, turned)]  # of any step
        np.testing.assert_allclose(limits[1] * units, limits[0], rtol=1e-9)
    steepest = float(turned.diagonals.max())
    minimized = [theory.dynamics(one, IST(Permutation(2, 4, 1.0), step, math.inf), np.zeros(4), 1).mean[-1]
                 for one, step in ((plain, 1e-3), (turned, 1e-3 / steepest))]  # fmt: skip
    np.testing.assert_allclose(minimized[1] * units, minimized[0], rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-140, 1.0, 1e140])
@pytest.mark.parametrize("copies", [2, 3])
def test_a_worker_that_stands_there_twice_changes_no_mean_function(scale: float, copies: int) -> None:
    plain = times(drawn(), scale)
    often = Quadratic(np.tile(plain.L, (copies, 1, 1)), np.tile(plain.b, (copies, 1)))
    np.testing.assert_allclose(often.minimizer, plain.minimizer, rtol=1e-11)
    first, second = constants(plain), constants(often)
    assert (second.L, second.mu, second.L_max) == pytest.approx((first.L, first.mu, first.L_max), rel=1e-11)
    for build in (lambda n: GradientDescent(0.05 / scale), lambda n: IST(Identity(n, 4), 0.05 / scale)):
        gaps = [theory.dynamics(one, build(one.workers), np.ones(4), 5).gap for one in (plain, often)]
        np.testing.assert_allclose(gaps[0], gaps[1], rtol=1e-11)
    firsts = [theory.theorem1(one, Identity(one.workers, 4)) for one in (plain, often)]
    assert firsts[0].theta == pytest.approx(firsts[1].theta, rel=1e-11)


def test_a_curvature_far_below_another_is_one() -> None:
    problem = Quadratic([[[1e13, 0.0], [0.0, 1.0]]], [[0.0, 1.0]])
    np.testing.assert_array_equal(problem.minimizer, [0.0, 1.0])
    assert problem.optimal_value == -0.5
    assert constants(problem).mu == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("mu", [1e-9, 1e-12, 1e-15, 1e-20])
def test_slow_methods_settle_too(mu: float) -> None:
    problem = Quadratic([np.diag([1.0, mu])] * 2, [[1.0, mu]] * 2)
    for method in (GradientDescent(0.1), IST(Permutation(2, 2), 0.1)):
        settled = theory.stationary(problem, method)
        assert settled.exists
        expected = [1.0, 1.0] if isinstance(method, GradientDescent) else [0.5, 0.5]
        np.testing.assert_allclose(settled.mean, expected, rtol=1e-12)
    assert not theory.stationary(problem, GradientDescent(2.0 + 1e-9)).exists


def test_every_workers_curvature_is_its_own_with_local_steps_without_end() -> None:
    L = np.array([1e13 * np.eye(2), np.eye(2)])
    problem = Quadratic(L, [[1e13, 1e13], [3.0, 3.0]])  # local minimisers 1 and 3, mean 2
    method = IST(Permutation(2, 2, 1.0), 1e-14, math.inf)
    np.testing.assert_allclose(theory.fixed_point(problem, method), [2.0, 2.0], rtol=1e-12)
    # keep 1, and a worker's move goes to its minimiser: x+ = x + mean of (x_i* - x) over the one that holds it
    np.testing.assert_allclose(theory.dynamics(problem, method, [0.0, 0.0], 3).mean[-1], [1.75, 1.75], rtol=1e-12)
    for matrix in (np.diag([1e13, 1.0]), np.array([[1e13, 1.0], [1.0, 1.0]])):
        G, g = local_map(matrix, np.array([1.0, 1.0]), np.ones(2), 1e-14, math.inf)
        assert not G.any()
        np.testing.assert_allclose(g, np.linalg.solve(matrix, [1.0, 1.0]), rtol=1e-12, atol=1e-25)


def test_flat_directions_stay_and_steep_ones_leave() -> None:
    matrix, values = np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([1.0, 4.0])
    far, near = (local_map(matrix, np.array([1.0, 1.0]), values, 0.1, T) for T in (math.inf, 4000))
    for limit, late in zip(far, near, strict=True):
        np.testing.assert_allclose(limit, late, atol=1e-12)
    G, g = local_map(matrix, np.array([1.0, 1.0]), values, 0.5, math.inf)  # curvature 5 and gamma = 0.5: 2.5 > 2
    assert np.isinf(G).all()
    assert np.isinf(g).all()


@pytest.mark.parametrize("k", [0, 2, 4, 5, 6, 12, 60])
def test_theorem_1_says_of_w_and_theta_what_rational_arithmetic_says(k: int) -> None:
    """d = 2, n = 2, Perm-1 in units 1 : 10^-k, against fractions."""
    random = np.random.default_rng(k)
    for _ in range(60):
        A = random.standard_normal((2, 2, 2))
        units = np.array([1.0, 10.0**-k])
        L = (A.transpose(0, 2, 1) @ A + 0.3 * np.eye(2)) * units[:, None] * units
        problem = Quadratic(0.5 * (L + L.transpose(0, 2, 1)), np.zeros((2, 2)))
        found = theory.theorem1(problem, Permutation(2, 2))
        theta = theta_of_fractions([[[Fraction(float(v)) for v in row] for row in M] for M in problem.L])
        assert found.assumptions[1].holds == (theta is not None)
        assert found.theta == (np.inf if theta is None else pytest.approx(theta, rel=1e-9))


def theta_of_fractions(L: list) -> float | None:
    """The larger root of det(E - t W) = 0, or None where W is indefinite."""
    mean = [[(L[0][a][b] + L[1][a][b]) / 2 for b in range(2)] for a in range(2)]
    outcomes = [[2 * L[0][0][0], 2 * L[1][1][1]], [2 * L[1][0][0], 2 * L[0][1][1]]]
    EB = [(outcomes[0][j] + outcomes[1][j]) / 2 for j in range(2)]
    E = [[sum(B[a] * mean[a][b] * B[b] for B in outcomes) / 2 for b in range(2)] for a in range(2)]
    W = [[mean[a][b] * (EB[a] + EB[b]) / 2 for b in range(2)] for a in range(2)]
    det = W[0][0] * W[1][1] - W[0][1] ** 2
    if det <= 0:
        return None
    half = (E[0][0] * W[1][1] + E[1][1] * W[0][0] - 2 * E[0][1] * W[0][1]) / det / 2
    rest = (E[0][0] * E[1][1] - E[0][1] ** 2) / det
    return float(half) + math.sqrt(float(half**2 - rest))


def test_where_theorem_1_says_yes_its_bounds_hold_in_any_units() -> None:
    random, said = np.random.default_rng(0), 0
    for _ in range(30):
        A = random.standard_normal((2, 2, 2))
        units = np.array([1.0, 10.0 ** random.uniform(-5, 0)])
        L = (A.transpose(0, 2, 1) @ A + 0.3 * np.eye(2)) * units[:, None] * units
        problem = Quadratic(0.5 * (L + L.transpose(0, 2, 1)), np.zeros((2, 2)))
        found = theory.theorem1(problem, Permutation(2, 2))
        if not found.applies:
            continue
        said += 1
        method = IST(Permutation(2, 2), found.stepsize)
        for x0 in (np.array([0.0, 1.0]) / units, np.array([1.0, -1.0]) / units, np.linalg.eigh(found.W)[1][:, 0]):
            assert theory.theorem1_contraction(problem, method, x0, 20).worst_ratio <= 1 + 1e-9
            assert theory.theorem1_average(problem, method, x0, 20).holds(1e-9)
    assert 3 <= said <= 27


SIZES = st.lists(st.sampled_from([1e-140, 1e-20, 1e-3, 1.0, 1e3, 1e20, 1e140]), min_size=3, max_size=3)


@given(sizes=SIZES, seed=st.integers(0, 99), rank=st.integers(1, 3))
@examples(max_examples=60)
def test_semi_definite_algebra_has_no_units(sizes: list[float], seed: int, rank: int) -> None:
    factor = np.random.default_rng(seed).standard_normal((rank, 3))
    matrix, units = factor.T @ factor, np.sqrt(sizes)
    turned = matrix * units[:, None] * units
    assert is_definite(turned) == (rank == 3)
    assert null_space(turned).shape == (3, 3 - rank)
    inside = turned @ (np.array([1.0, -2.0, 3.0]) / units)
    assert is_solvable(turned, inside)
    if rank == 3:
        x = solve(turned, inside) * units
        np.testing.assert_allclose(x, [1.0, -2.0, 3.0], rtol=1e-12 * np.linalg.cond(matrix))
        np.testing.assert_allclose(inverse(turned) @ inside * units, x, rtol=1e-12 * np.linalg.cond(matrix))
        assert largest_relative(2.0 * turned, turned) == pytest.approx(2.0, rel=1e-12 * np.linalg.cond(matrix))
    else:
        assert largest_relative(np.diag(np.square(units)), turned) == np.inf


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_least_norm_answers_are_those_of_numpy_in_equal_units(rank: int) -> None:
    factor = np.random.default_rng(rank).standard_normal((rank, 4))
    matrix = factor.T @ factor
    inside, outside = matrix @ np.ones(4), np.linalg.svd(factor)[2][-1]
    np.testing.assert_allclose(solve(matrix, inside), np.linalg.pinv(matrix) @ inside, atol=1e-12)
    assert is_solvable(matrix, inside)
    assert not is_solvable(matrix, inside + 1e-3 * outside)


def test_bad_matrices_are_found_in_their_own_units() -> None:
    small = np.array([[1.0, 2e-10], [2e-10, 1e-20]])
    with pytest.raises(InvalidInput, match=r"`L\[0\]` must be positive semi-definite"):
        Quadratic([small], [[0.0, 0.0]])
    with pytest.raises(InvalidInput, match=r"`L\[0\]` must be symmetric"):
        Quadratic([[[1.0, 1e-11], [2e-11, 1e-20]]], [[0.0, 0.0]])
    with pytest.raises(InvalidInput, match="unbounded below"):
        Quadratic([np.array([[1.0, 1e-10], [1e-10, 1e-20]])], [[1.0, -1e-10]])
    Quadratic([np.diag([1.0, -1e-17])], [[1.0, 0.0]])  # a rounding error beside 1 is no curvature


@pytest.mark.parametrize("seed", range(5))
def test_variances_are_never_negative(seed: int) -> None:
    """Where nothing is random the variance is a difference of equal numbers."""
    problem = drawn(3, 5, seed)
    method = IST(Identity(3, 5), 0.03)
    course = theory.dynamics(problem, method, 1e6 * np.ones(5), 30)
    assert (course.variance >= 0.0).all()
    assert theory.stationary(problem, method).variance >= 0.0
    same = np.broadcast_to(np.linspace(0.3, 1.7, 5), (3, 5))
    coordinates = theory.coordinate_dynamics(same, same * 1e5 / 3, IST(Permutation(3, 5), 0.01), 1e6 * np.ones(5), 60)
    assert (coordinates.variance >= 0.0).all()
    assert (coordinates.spread >= 0.0).all()
    anchored = rates.anchored_dynamics(problem, AnchoredIST(Identity(3, 5), 0.03, 2), 1e6 * np.ones(5), 30)
    assert (anchored.variance >= 0.0).all()
