"""The exact course against enumeration and simulation, and the laws it must obey."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cases.lab import GRID, SCALES, partitions, permutation, random_quadratic
from cases.naive import affine, exact_gap
from isthmus.errors import InvalidInput
from isthmus.lab import (
    IST,
    Bernoulli,
    GradientDescent,
    ImportanceSampling,
    Permutation,
    Quadratic,
    RandomSparsification,
    ScaledPermutation,
    simulate,
    theory,
)
from isthmus.lab.compressors import Natural
from isthmus.lab.methods import DCGD, Draws
from isthmus.lab.theory.enumeration import enumerate_round


@pytest.mark.parametrize("merge", ["gradient", "model"])
@pytest.mark.parametrize("steps", [2, math.inf])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("dim", "workers"), [size for size in GRID if size != (8, 4)])
def test_local_steps_and_merges_against_enumeration(
    dim: int, workers: int, scale: str, steps: float, merge: str
) -> None:
    problem = random_quadratic(workers, dim, seed=1)
    sketch = permutation(workers, dim, scale)
    outcomes = [sketch.scale * masks for masks in partitions(workers, dim)]
    stepsize = 0.5 / (float(sketch.scale or 1.0) * np.linalg.eigvalsh(problem.L).max())
    x0 = np.random.default_rng(2).standard_normal(dim)
    method = IST(sketch, stepsize, steps, merge)
    means, gaps = exact_gap(problem, method, outcomes, x0, rounds=50)
    found = theory.dynamics(problem, method, x0, 50)
    assert found.method == "exact"
    np.testing.assert_allclose(found.mean, means, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(found.gap, gaps, rtol=1e-11)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("dim", "workers"), GRID)
def test_model_merge_against_enumeration(dim: int, workers: int, scale: str) -> None:
    problem = random_quadratic(workers, dim, seed=2)
    sketch = permutation(workers, dim, scale)
    method = IST(sketch, 0.5 * theory.contraction_limit(problem, sketch), merge="model")
    outcomes = [sketch.scale * masks for masks in partitions(workers, dim)]
    means, gaps = exact_gap(problem, method, outcomes, np.ones(dim), rounds=50)
    found = theory.dynamics(problem, method, np.ones(dim), 50)
    np.testing.assert_allclose(found.mean, means, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.gap, gaps, rtol=1e-12)


@pytest.mark.parametrize("merge", ["gradient", "model"])
@pytest.mark.parametrize("steps", [1, 4])
def test_against_monte_carlo_at_d_60(steps: int, merge: str) -> None:
    problem = random_quadratic(6, 60, seed=3)
    sketch = Permutation(6, 60, 6.0 if merge == "gradient" else 4.0)
    if steps > 1:  # exact for several steps where a worker holds one unit
        problem, sketch = random_quadratic(60, 60, seed=3), Permutation(60, 60, 50.0)
    method = IST(sketch, 0.3 * theory.contraction_limit(problem, sketch), steps, merge)
    if steps > 1:
        method = replace(method, stepsize=0.3 / (50.0 * problem.diagonals.max()))
    exact = theory.dynamics(problem, method, np.ones(60), 6)
    assert exact.method == "exact"
    run = simulate(problem, method, np.ones(60), 6, seeds=20_000, seed=4)
    z = (run.mean_gap - exact.gap)[1:] / run.standard_error[1:]
    assert np.abs(z).max() < 3.0
    assert (run.standard_error[1:] < 0.05 * exact.gap[1:]).all()


SKETCH_KINDS = {
    "permutation": lambda problem: Permutation(problem.workers, problem.dim),
    "rand": lambda problem: RandomSparsification(problem.workers, problem.dim, 2),
    "bernoulli": lambda problem: Bernoulli(problem.workers, problem.dim, 0.4),
    "importance": lambda problem: ImportanceSampling(problem.workers, np.linspace(0.3, 1.0, problem.dim)),
    "scaled": lambda problem: ScaledPermutation(problem, homogeneous=True),
}


@pytest.mark.parametrize("kind", SKETCH_KINDS)
def test_permuting_coordinates_permutes_the_moments(kind: str) -> None:
    problem = random_quadratic(3, 6)
    order = np.random.default_rng(5).permutation(6)
    permuted = Quadratic(problem.L[:, order][:, :, order], problem.b[:, order])
    sketch, other = SKETCH_KINDS[kind](problem), SKETCH_KINDS[kind](permuted)
    if kind == "importance":
        other = ImportanceSampling(3, np.linspace(0.3, 1.0, 6)[order])
    x0 = np.random.default_rng(6).standard_normal(6)
    step = 0.2 * theory.contraction_limit(problem, sketch)
    one = theory.dynamics(problem, IST(sketch, step), x0, 6)
    two = theory.dynamics(permuted, IST(other, step), x0[order], 6)
    np.testing.assert_allclose(two.mean, one.mean[:, order], rtol=1e-11, atol=1e-13)
    assert one.covariance is not None
    np.testing.assert_allclose(two.covariance, one.covariance[np.ix_(order, order)], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(two.gap, one.gap, rtol=1e-11)


@pytest.mark.parametrize("kind", SKETCH_KINDS)
def test_worker_order_does_not_matter(kind: str) -> None:
    problem = random_quadratic(3, 6)
    turned = Quadratic(problem.L[::-1], problem.b[::-1])
    step = 0.2 * theory.contraction_limit(problem, SKETCH_KINDS[kind](problem))
    gaps = [
        theory.dynamics(p, IST(SKETCH_KINDS[kind](p), step), np.ones(6), 5).gap for p in (problem, turned)
    ]
    np.testing.assert_allclose(gaps[0], gaps[1], rtol=1e-12)


def test_equal_workers_and_single_units_are_deterministic() -> None:
    L = random_quadratic(1, 5).L[0]
    problem = Quadratic(np.broadcast_to(L, (5, 5, 5)), np.broadcast_to(np.arange(5.0), (5, 5)))
    method = IST(Permutation(5, 5), 0.4 / (5 * np.diagonal(L).max()))
    course = theory.dynamics(problem, method, np.ones(5), 40)
    assert np.abs(course.variance).max() < 1e-13 * course.gap[0]
    spread = simulate(problem, method, np.ones(5), 40, seeds=5).gap.std(axis=0)
    assert spread.max() < 1e-12 * course.gap[0]
    # shared memory is one pass for all workers, and changes nothing
    apart = Quadratic(np.array(problem.L), np.array(problem.b))
    np.testing.assert_allclose(theory.dynamics(apart, method, np.ones(5), 40).gap, course.gap, rtol=1e-10)
    q2 = IST(Permutation(2, 5), 0.02)
    shared = Quadratic(np.broadcast_to(L, (2, 5, 5)), np.broadcast_to(np.arange(5.0), (2, 5)))
    np.testing.assert_allclose(
        theory.dynamics(shared, q2, np.ones(5), 9).gap,
        theory.dynamics(Quadratic(np.array(shared.L), np.array(shared.b)), q2, np.ones(5), 9).gap,
        rtol=1e-12,
    )


def test_bias_and_variance_are_what_they_say() -> None:
    problem = random_quadratic(2, 4)
    method = IST(Permutation(2, 4), 0.05)
    course = theory.dynamics(problem, method, np.ones(4), 8)
    np.testing.assert_allclose(course.bias, problem.gap(course.mean), rtol=1e-12)
    assert course.covariance is not None
    assert 0.5 * np.trace(problem.mean_matrix @ course.covariance) == pytest.approx(course.variance[-1], rel=1e-12)
    forms = theory.quadratic_forms(problem, method, np.ones(4), 8, [0.5 * problem.mean_matrix])
    np.testing.assert_allclose(forms[0], course.gap, rtol=1e-12)


def test_a_diverging_course_is_a_result() -> None:
    problem = random_quadratic(2, 4)
    course = theory.dynamics(problem, IST(Permutation(2, 4), 1e6), np.ones(4), 100)
    assert np.isinf(course.gap[-1])
    assert np.isfinite(course.gap[0])


def test_diverging_local_steps_are_a_result() -> None:
    problem = random_quadratic(4, 4)
    method = IST(Permutation(4, 4, 1.0), 1e3, math.inf)
    course = theory.dynamics(problem, method, np.ones(4), 3)
    assert np.isinf(course.gap[1:]).all()
    assert np.isnan(theory.fixed_point(problem, method)).all()
    assert theory.local_limit(problem, method.sketch) == pytest.approx(2 / problem.diagonals.max())


def test_monte_carlo_says_so() -> None:
    problem = random_quadratic(4, 40)
    method = IST(Permutation(4, 40), 0.001, local_steps=3)  # too many outcomes, blocks of ten, several steps
    assert enumerate_round(problem, method) is None
    course = theory.dynamics(problem, method, np.ones(40), 4, seeds=300)
    assert (course.method, course.how) == ("Monte Carlo", "simulation of 300 seeds")
    run = simulate(problem, method, np.ones(40), 4, seeds=300)
    np.testing.assert_array_equal(course.gap_error, run.standard_error)
    np.testing.assert_allclose(course.gap, run.mean_gap, rtol=1e-12)


@given(
    workers=st.integers(1, 4),
    size=st.integers(1, 3),
    seed=st.integers(0, 1000),
    power=st.floats(-2.0, 2.0),
)
@settings(max_examples=40)
def test_mean_sketched_matrix_is_above_the_mean_matrix(workers: int, size: int, seed: int, power: float) -> None:
    dim = workers * size
    base = random_quadratic(workers, dim, seed)
    spectrum = np.diag(np.linspace(1.0, 3.0, dim) ** power)
    problem = Quadratic(spectrum @ base.L @ spectrum, base.b)
    difference = theory.expected_matrix(problem, Permutation(workers, dim)) - problem.mean_matrix
    assert np.linalg.eigvalsh(difference)[0] >= -1e-10 * np.abs(problem.mean_matrix).max()


@given(n=st.integers(1, 3), size=st.integers(1, 3), scale=st.floats(0.3, 4.0), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_any_scale_equals_enumeration(n: int, size: int, scale: float, seed: int) -> None:
    problem = random_quadratic(n, n * size, seed)
    method = IST(Permutation(n, n * size, scale), 0.3 / (scale**2 * 40.0))
    outcomes = [scale * masks for masks in partitions(n, n * size)] if n * size <= 6 else None
    support = method.sketch.support()
    if outcomes is not None:
        assert len(outcomes) == len(support.probabilities)
    J, j = zip(*(affine(problem, method, c) for c in support.diagonals), strict=True)
    x = np.ones(n * size)
    after = np.array([a @ x + b for a, b in zip(J, j, strict=True)])
    assert theory.dynamics(problem, method, x, 1).gap[1] == pytest.approx(problem.gap(after).mean(), rel=1e-12)


@pytest.mark.parametrize("merge", ["gradient", "model"])
@pytest.mark.parametrize("steps", [1, 5, math.inf])
def test_diagonal_path_equals_the_full_one(steps: float, merge: str) -> None:
    random = np.random.default_rng(7)
    l, b = random.uniform(0.5, 2.0, (3, 6)), random.standard_normal((3, 6))
    problem = Quadratic(l[:, :, None] * np.eye(6), b)
    for scale in (None, 1.0, 2.0):
        method = IST(Permutation(3, 6, scale), 0.1, steps, merge)
        course = theory.coordinate_dynamics(l, b, method, np.ones(6), 20)
        full = theory.dynamics(problem, method, np.ones(6), 20)
        assert full.method == "exact"
        np.testing.assert_allclose(course.gap, full.gap, rtol=1e-10)
        np.testing.assert_allclose(course.mean, full.mean[-1], rtol=1e-10)
        assert full.covariance is not None
        np.testing.assert_allclose(course.spread, np.diagonal(full.covariance), rtol=1e-8, atol=1e-12)
        np.testing.assert_allclose(course.fixed_point, theory.fixed_point(problem, method), rtol=1e-10)


def test_a_million_coordinates() -> None:
    d = 10**6
    random = np.random.default_rng(8)
    curvature, linear = random.uniform(0.5, 1.0, d), random.standard_normal(d)
    course = theory.coordinate_dynamics(curvature, linear, IST(Permutation(d, d), 0.5 / d), np.zeros(d), 3)
    # equal workers, blocks of one: gradient descent with step gamma n
    x = np.zeros(d)
    for _ in range(3):
        x = x - 0.5 * (curvature * x - linear / d)
    np.testing.assert_allclose(course.mean, x, rtol=1e-9, atol=1e-18)
    assert course.variance.max() < 1e-12 * course.gap[0]


PAIRS, CROWD = IST(Permutation(2, 4), 0.1), IST(Permutation(5, 4), 0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: theory.dynamics(p, GradientDescent(0.1), np.ones(5), 3), r"`x0` must have shape \[4\], got \[5\]"),
        (lambda p: theory.dynamics(p, GradientDescent(0.1), np.ones(4), -1), "`rounds` must be at least 0"),
        (lambda p: theory.coordinate_dynamics(np.ones(3), np.ones(4), PAIRS, np.ones(4), 1), "must have shape"),
        (lambda p: theory.coordinate_dynamics(np.ones((3, 4)), np.ones(4), PAIRS, np.ones(4), 1), r"shape \[2, 4\]"),
        (lambda p: theory.coordinate_dynamics(-np.ones(4), np.ones(4), PAIRS, np.ones(4), 1), "at least 0, got -1"),
        (lambda p: theory.coordinate_dynamics(np.ones(4), np.ones(4), CROWD, np.ones(4), 1), "must be a Permutation"),
        (lambda p: Draws(-1, 0, 1).generator("x"), "`seed` must be at least 0"),
    ],
)
def test_refuses(build: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        build(random_quadratic(2, 4))  # type: ignore[operator]


def test_rounds_start_at_none() -> None:
    problem = random_quadratic(2, 4)
    method = IST(Permutation(2, 4), 0.01)
    course = theory.dynamics(problem, method, np.ones(4), rounds=0)
    assert course.gap.tolist() == [pytest.approx(float(problem.gap(np.ones(4))))]
    for ask in (theory.dynamics, theory.mean_trajectory):
        with pytest.raises(InvalidInput, match="`rounds` must be at least 0, got -1"):
            ask(problem, method, np.ones(4), -1)


def test_a_simulated_course_that_diverges_is_infinite_in_both_parts() -> None:
    problem = random_quadratic(2, 4)
    course = theory.dynamics(problem, DCGD(Natural(4), 50.0), np.ones(4), 40, seeds=3)
    gone = ~np.isfinite(course.gap)
    assert gone[-1]
    assert not gone[0]
    assert (course.bias[gone] == np.inf).all()
    assert (course.variance[gone] == np.inf).all()
    assert np.isfinite(course.variance[~gone]).all()
