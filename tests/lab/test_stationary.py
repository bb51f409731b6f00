"""Stationary moments against enumeration; predicted stability against what happens."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import isthmus.lab
from cases.lab import SKETCHES, random_quadratic
from cases.naive import affine
from isthmus.lab import (
    IST,
    Bernoulli,
    GradientDescent,
    Permutation,
    Quadratic,
    RandomSparsification,
    ScaledPermutation,
    theory,
)
from isthmus.lab.theory.dynamics import covariance_step, known_moments


def lifted(problem: Quadratic, method: IST) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    support = method.sketch.support()
    J, j = (np.stack(parts) for parts in zip(*(affine(problem, method, c) for c in support.diagonals), strict=True))
    return support.probabilities, J, j


@pytest.mark.parametrize("name", [name for name in SKETCHES if name != "identity"])
def test_stationary_moments_solve_the_enumerated_equations(name: str) -> None:
    workers, dim, build = SKETCHES[name]
    problem = random_quadratic(workers, dim)
    sketch = build(problem)
    method = IST(sketch, 0.4 * theory.contraction_limit(problem, sketch))
    settled = theory.stationary(problem, method)
    assert settled.exists
    p, J, j = lifted(problem, method)
    moved = np.einsum("p,pab,b->a", p, J, settled.mean) + p @ j
    np.testing.assert_allclose(moved, settled.mean, rtol=1e-10, atol=1e-12)
    x = J @ settled.mean + j - settled.mean
    after = np.einsum("p,pab,bc,pdc->ad", p, J, settled.covariance, J, optimize=True)
    after += np.einsum("p,pa,pb->ab", p, x, x)
    np.testing.assert_allclose(after, settled.covariance, rtol=1e-10, atol=1e-13)
    kron = np.einsum("p,pab,pcd->acbd", p, J, J).reshape(dim**2, dim**2)
    assert settled.radius == pytest.approx(np.abs(np.linalg.eigvals(kron)).max(), rel=1e-8)
    far = theory.dynamics(problem, method, np.ones(dim), 1200)
    assert far.gap[-1] == pytest.approx(settled.gap, rel=1e-3, abs=1e-12 * far.gap[0])


def test_model_merge_has_a_stationary_law_of_its_own() -> None:
    problem = random_quadratic(2, 4)
    method = IST(Permutation(2, 4, 1.0), 0.05, local_steps=3, merge="model")
    settled = theory.stationary(problem, method)
    assert settled.exists
    far = theory.dynamics(problem, method, np.ones(4), 400)
    assert far.gap[-1] == pytest.approx(settled.gap, rel=1e-9)
    np.testing.assert_allclose(far.mean[-1], settled.mean, rtol=1e-9)


@given(n=st.integers(1, 3), size=st.integers(1, 3), seed=st.integers(0, 99), scale=st.sampled_from([0.5, 1.0, 3.0]))
@settings(max_examples=15)
def test_predicted_stability_is_observed(n: int, size: int, seed: int, scale: float) -> None:
    problem = random_quadratic(n, n * size, seed)
    method = IST(Permutation(n, n * size, scale), 1.0)
    steps = theory.stable_stepsizes(problem, method)
    assert steps.how == "closed form"
    limit = steps.largest
    below, above = (theory.stationary(problem, replace(method, stepsize=f * limit)) for f in (0.995, 1.005))
    assert below.exists
    assert not above.exists
    assert theory.contraction_limit(problem, method.sketch) <= limit * (1 + 1e-9)
    stable = theory.dynamics(problem, replace(method, stepsize=0.8 * limit), np.ones(n * size), 300).gap
    unstable = theory.dynamics(problem, replace(method, stepsize=1.3 * limit), np.ones(n * size), 300).gap
    settled = theory.stationary(problem, replace(method, stepsize=0.8 * limit))
    assert stable[-1] < 1e3 * (stable[0] + settled.gap)  # it may rise on its way to a biased end
    assert not unstable[-1] < 1e3 * unstable[0]


@pytest.mark.parametrize(
    "build",
    [
        lambda p: IST(Permutation(2, 4), 1.0, merge="model"),
        lambda p: IST(Permutation(2, 4, 1.0), 1.0, local_steps=2),
        lambda p: IST(RandomSparsification(2, 4, 2), 1.0, merge="model"),
    ],
)
def test_searched_stability_is_observed(build: Callable[[Quadratic], IST]) -> None:
    problem = random_quadratic(2, 4)
    method = build(problem)
    steps = theory.stable_stepsizes(problem, method)
    assert steps.how == "search"
    for low, high in steps.intervals:
        for end, inside, outside in ((low, 1.01, 0.99), (high, 0.99, 1.01)):
            if 0 < end < math.inf:
                assert theory.stationary(problem, replace(method, stepsize=end * inside)).exists
                assert not theory.stationary(problem, replace(method, stepsize=end * outside)).exists


def test_unbiased_partitions_have_one_interval_however_they_merge() -> None:
    problem = random_quadratic(2, 4)
    by_gradients = theory.stable_stepsizes(problem, IST(Permutation(2, 4), 1.0))
    by_models = theory.stable_stepsizes(problem, IST(Permutation(2, 4), 1.0, merge="model"))
    assert by_models.intervals[0] == pytest.approx(by_gradients.intervals[0], rel=1e-8)
    assert 0.5 * by_models.largest in by_models


def test_averaging_independent_sketches_diverges_for_small_steps() -> None:
    # scalar: E x+^2 / x^2 = (1 - gamma L / p)^2 (1 + omega / n), omega = 1/p - 1
    n, p, L = 2, 0.5, 3.0
    problem = Quadratic([[[L]]] * n, [[0.0]] * n)
    method = IST(Bernoulli(n, 1, p), 0.01, merge="model")
    growth = (1 - 0.01 * L / p) ** 2 * (1 + (1 / p - 1) / n)
    course = theory.dynamics(problem, method, [1.0], 5).gap
    np.testing.assert_allclose(course[1:] / course[:-1], growth, rtol=1e-12)
    assert growth > 1
    low, high = theory.stable_stepsizes(problem, method).intervals[0]
    edge = 1 / math.sqrt(1 + (1 / p - 1) / n)
    assert (low, high) == pytest.approx(((1 - edge) * p / L, (1 + edge) * p / L), rel=1e-9)
    assert not theory.stationary(problem, method).exists


def test_gradient_descent_and_singular_problems() -> None:
    problem = random_quadratic(2, 4)
    assert theory.stable_stepsizes(problem, GradientDescent(1.0)).largest == pytest.approx(2 / problem.spectrum[-1])
    flat = np.diag([3.0, 0.0])
    singular = Quadratic([flat, flat], [[1.0, 0.0], [2.0, 0.0]])
    settled = theory.stationary(singular, IST(Permutation(2, 2), 0.05))
    assert not settled.exists
    assert "singular" in settled.why
    steps = theory.stable_stepsizes(singular, IST(Permutation(2, 2), 0.05))
    assert steps.largest == pytest.approx(2 / (2 * 3.0))  # the coordinate that moves: gamma n L < 2
    np.testing.assert_allclose(theory.fixed_point(singular, IST(Permutation(2, 2), 0.05)), [0.25, 0.0], atol=1e-14)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seed", [0, 2, 5, 8])
def test_a_step_at_the_very_edge_settles_nowhere_and_one_just_below_does(seed: int) -> None:
    """2/L, where the radius is 1 but for rounding, with too many coordinates for a dense solve."""
    problem = isthmus.lab.random_quadratic(3, 40, condition_number=10.0 + seed, heterogeneity=1.0, seed=seed)
    edge = 2.0 / np.linalg.eigvalsh(problem.mean_matrix)[-1]
    assert not theory.stationary(problem, GradientDescent(edge)).exists
    assert theory.stationary(problem, GradientDescent(edge * (1.0 - 1e-10))).exists
    assert not theory.stationary(problem, GradientDescent(edge * (1.0 + 1e-10))).exists


def test_scaled_sketch_is_stable_below_two() -> None:
    problem = random_quadratic(4, 4)
    assert theory.stable_stepsizes(problem, IST(ScaledPermutation(problem), 1.0)).largest == pytest.approx(2.0)


class OnlySamples:
    """A permutation sketch that nobody knows but by its draws."""

    def __init__(self, workers: int, dim: int) -> None:
        self.known = Permutation(workers, dim)

    def sample(self, random: np.random.Generator) -> np.ndarray:
        return self.known.sample(random)


@pytest.mark.parametrize("local_steps", [1, 3])
def test_a_sketch_that_only_samples_has_estimates_that_say_so(local_steps: int) -> None:
    problem = random_quadratic(2, 4)
    step = 0.3 * theory.contraction_limit(problem, Permutation(2, 4))
    exact, sampled = (IST(sketch, step, local_steps) for sketch in (Permutation(2, 4), OnlySamples(2, 4)))
    true, estimate = theory.stationary(problem, exact), theory.stationary(problem, sampled)
    assert (true.how, estimate.how) == ("exact", "Monte Carlo, 2000 draws")
    np.testing.assert_allclose(estimate.mean, theory.fixed_point(problem, sampled))
    scale = np.abs(true.mean).max()
    assert np.abs(estimate.mean - true.mean).max() < 0.05 * scale  # five errors of 2000 draws, 1 % each
    assert not np.array_equal(estimate.mean, true.mean)
    assert estimate.gap == pytest.approx(true.gap, rel=0.2)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_edge_beside_steps_that_diverge_is_found_by_bisection(scale: float) -> None:
    """Local steps without end are infinite from gamma = 2/(s max L) on: finite below that, for one unit a worker."""
    problem = Quadratic([np.diag([4.0, 1.0])] * 2, [[1.0, 1.0]] * 2)
    steps = theory.stable_stepsizes(problem, IST(Permutation(2, 2, scale), 1.0, math.inf, merge="model"))
    if scale == 1.0:  # x+ is the mean of local minimisers in either case: nothing grows
        assert steps.intervals == ((0.0, pytest.approx(0.5, rel=1e-9)),)
    else:
        assert steps.largest == pytest.approx(0.25, rel=1e-9)


def test_the_covariance_of_many_coordinates_solves_its_equation_too() -> None:
    """Beyond the dimensions that are solved directly."""
    problem = random_quadratic(3, 18)
    method = IST(Permutation(3, 18), 0.3 * theory.contraction_limit(problem, Permutation(3, 18)))
    moments, settled = known_moments(problem, method), theory.stationary(problem, method)
    m, S = settled.mean, settled.covariance
    drift = moments.drift(m)
    step = moments.mean_matrix @ m + moments.mean_vector
    after = covariance_step(moments, S, m) + drift + drift.T + moments.noise() - np.outer(step, step)
    assert np.abs(after - S).max() <= 1e-11 * np.abs(S).max()
