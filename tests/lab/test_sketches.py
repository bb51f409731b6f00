"""Every sketch through the same checks: support, samples, unbiasedness, moments against enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cases.lab import SKETCHES, random_quadratic
from cases.laws import Window
from cases.naive import affine, partition_counts
from isthmus.errors import InvalidInput
from isthmus.lab import (
    IST,
    Bernoulli,
    Dealt,
    ImportanceSampling,
    Permutation,
    Quadratic,
    RandomSparsification,
    ScaledPermutation,
    Sketch,
    simulate,
    theory,
)
from isthmus.lab.methods import Draws, Iterate
from isthmus.lab.sketches import Support, as_sketch
from isthmus.lab.theory.dynamics import RoundMoments, round_moments
from isthmus.partitions import Axis, Core, Rotated, Uniform, random_partition
from isthmus.randomness import generator

SHAPES = st.integers(1, 12).flatmap(lambda units: st.tuples(st.just(units), st.integers(1, units)))
Build = Callable[[Quadratic], Sketch]


def case(name: str) -> tuple[Quadratic, Sketch]:
    workers, dim, build = SKETCHES[name]
    problem = random_quadratic(workers, dim)
    return problem, build(problem)


@pytest.mark.parametrize("name", SKETCHES)
def test_support_is_the_law(name: str) -> None:
    _, sketch = case(name)
    support = sketch.support()
    assert support.probabilities.sum() == pytest.approx(1.0, abs=1e-12)
    draws = sketch.sample_many(generator(0, "test"), 6000)
    assert draws.shape == (6000, sketch.workers, sketch.dim)
    outcomes = np.round(support.diagonals, 9).reshape(len(support.probabilities), -1)
    keys = {row.tobytes(): k for k, row in enumerate(outcomes)}
    counts = np.zeros(len(keys))
    for row in np.round(draws, 9).reshape(6000, -1):
        counts[keys[row.tobytes()]] += 1  # a draw outside the support is a KeyError
    # Pearson's statistic against its own mean and spread
    expected = 6000 * support.probabilities
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = max(len(counts) - 1, 1)
    assert statistic < freedom + 5 * math.sqrt(2 * freedom + (1 / expected).sum())


@pytest.mark.parametrize("name", SKETCHES)
def test_mean_and_second_moment(name: str) -> None:
    _, sketch = case(name)
    support = sketch.support()
    mean = np.einsum("p,pna->na", support.probabilities, support.diagonals)
    np.testing.assert_allclose(sketch.mean, mean, rtol=1e-12)
    assert sketch.unbiased == (np.abs(mean - 1).max() < 1e-12)
    M = np.random.default_rng(1).standard_normal((sketch.dim, sketch.dim))
    for worker in range(sketch.workers):
        c = support.diagonals[:, worker]
        expected = np.einsum("p,pa,ab,pb->ab", support.probabilities, c, M, c)
        np.testing.assert_allclose(sketch.second_moment(M, worker), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("merge", ["gradient", "model"])
@pytest.mark.parametrize("name", SKETCHES)
def test_moments_of_a_round(name: str, merge: str) -> None:
    problem, sketch = case(name)
    method = IST(sketch, 0.03, merge=merge)
    moments = round_moments(problem, method)
    assert moments is not None
    check_moments(problem, method, moments)


@pytest.mark.parametrize("steps", [2, 7, 40, math.inf])
@pytest.mark.parametrize("merge", ["gradient", "model"])
@pytest.mark.parametrize("name", ["perm 5 of 5", "perm 3 of 2", "scaled", "perm 2 of 4", "perm 2 of 5", "rand 2 of 3"])
def test_moments_of_many_local_steps(name: str, merge: str, steps: float) -> None:
    problem, sketch = case(name)
    method = IST(sketch, 0.02, steps, merge)
    moments = round_moments(problem, method)
    assert moments is not None
    check_moments(problem, method, moments)


def check_moments(problem: Quadratic, method: IST, moments: RoundMoments) -> None:
    support = method.sketch.support()
    J, j = (np.stack(parts) for parts in zip(*(affine(problem, method, c) for c in support.diagonals), strict=True))
    J -= moments.keep * np.eye(problem.dim)  # what is left is H
    random = np.random.default_rng(2)
    A = random.standard_normal((problem.dim, problem.dim))
    X, m = A @ A.T, random.standard_normal(problem.dim)
    p = support.probabilities
    expected = {
        "mean matrix": (moments.mean_matrix, np.einsum("p,pab->ab", p, J)),
        "mean vector": (moments.mean_vector, p @ j),
        "sandwich": (moments.sandwich(X), np.einsum("p,pab,bc,pdc->ad", p, J, X, J, optimize=True)),
        "drift": (moments.drift(m), np.einsum("p,pa,pb->ab", p, J @ m, j)),
        "noise": (moments.noise(), np.einsum("p,pa,pb->ab", p, j, j)),
    }
    for what, (found, enumerated) in expected.items():
        error = np.abs(found - enumerated).max() / max(np.abs(enumerated).max(), 1e-3)  # a full merge of T = inf is 0
        assert error < (1e-12 if method.local_steps == 1 else 1e-10), (what, error)


def test_partitions_are_counted() -> None:
    for workers, dim in [(2, 5), (3, 7), (4, 6), (3, 2), (5, 2)]:
        sketch = Permutation(workers, dim)
        outcomes = {tuple(row.ravel() > 0) for row in sketch.support().diagonals}
        assert len(outcomes) == len(sketch.support().probabilities) == partition_counts(workers, dim)


@given(workers=st.integers(1, 9), dim=st.integers(1, 9))
def test_a_permutation_covers(workers: int, dim: int) -> None:
    draws = Permutation(workers, dim, 1.0).sample_many(generator(1, "test"), 20)
    holders, sizes = draws.sum(axis=1), draws.sum(axis=2)
    if workers <= dim:
        assert (holders == 1).all()
        assert sizes.max() - sizes.min() <= 1
    else:
        assert (sizes == 1).all()
        assert holders.max() - holders.min() <= 1
    assert Permutation(workers, dim).unbiased


@given(SHAPES, st.integers(0, 2**32), st.integers(0, 5))
def test_lab_and_trainer_draw_the_same_blocks_from_the_same_key(
    shape: tuple[int, int], seed: int, round: int
) -> None:
    """What the trainer's law deals of an axis is what the lab's sketch draws by that axis's key."""
    units, workers = shape
    axis = Axis("layers.0", units)
    held = Uniform().deal(axis, workers, seed, round)
    for draw in (Permutation(workers, units).sample, lambda random: sample_first(workers, units, random)):
        drawn = draw(axis.generator(seed, round))
        assert [np.flatnonzero(row).tolist() for row in drawn] == [block.tolist() for block in held]
    dealt = Dealt("rotated", workers, units, seed, axis.name, scale=1.0)
    rounds = [Rotated().deal(axis, workers, seed, number) for number in range(workers)]
    masks = np.array([[np.isin(np.arange(units), block) for block in blocks] for blocks in rounds])
    assert np.array_equal(dealt.support().diagonals, masks)


def sample_first(workers: int, dim: int, random: np.random.Generator) -> np.ndarray:
    """The first of many, as a simulation of many seeds draws them."""
    return Permutation(workers, dim).sample_many(random, 7)[0]


def test_a_simulated_round_is_the_round_of_the_trainer_s_partition() -> None:
    problem, x, step = random_quadratic(3, 7), np.ones((1, 7)), 0.01
    after = IST(Permutation(3, 7), step).step(problem, Iterate(x), Draws(5, 2, 1)).x[0]
    partition = random_partition(7, 3, Draws(5, 2, 1).generator("sketch"))
    expected = x[0].copy()
    for worker, block in enumerate(partition.blocks):
        inner = 3.0 * x[0, block]
        gradient = problem.L[worker][np.ix_(block, block)] @ inner - problem.b[worker, block]
        expected[block] -= step * gradient  # n times a mean over n
    np.testing.assert_allclose(after, expected, rtol=1e-13)


def test_a_law_that_never_repeats_is_sampled_and_says_so() -> None:
    sketch = Dealt("uniform", 2, 4)
    assert sketch.period is None
    draws = sketch.sample_many(generator(0, "test"), 600)
    assert np.array_equal(draws[:5], sketch.sample_many(generator(0, "test"), 5))
    assert set(np.unique(draws)) == {0.0, 2.0}
    assert sketch.unbiased
    estimate, error = sketch.second_moment_estimate(np.ones((4, 4)))
    exact = Permutation(2, 4).second_moment(np.ones((4, 4)))
    np.testing.assert_array_less(np.abs(estimate - exact), 4.5 * error + 1e-12)
    problem = random_quadratic(2, 4)
    course = theory.dynamics(problem, IST(sketch, 0.02), np.ones(4), 5, seeds=50)
    assert course.method == "Monte Carlo"
    with pytest.raises(InvalidInput, match="`law` must repeat itself within 100000 rounds"):
        sketch.support()


def test_a_law_of_ones_own_runs_in_the_lab() -> None:
    """A sliding window with a core: exact moments over its period, and a simulation that agrees with them."""
    problem = random_quadratic(2, 6)
    sketch = Dealt(Core(Window(), 1 / 3), 2, 6)
    assert sketch.period == 4
    assert np.array_equal(np.flatnonzero(sketch.weights == 1.0), Core(Window(), 1 / 3).core(Axis("coordinates", 6), 0))
    course = theory.dynamics(problem, IST(sketch, 0.02), np.ones(6), 6)
    assert (course.method, course.how) == ("exact", "enumeration")
    run = simulate(problem, IST(sketch, 0.02), np.ones(6), 6, seeds=20_000)
    assert (np.abs(run.mean_gap - course.gap)[1:] < 4.5 * run.standard_error[1:]).all()


def test_scaled_sketch_makes_every_realisation_the_identity() -> None:
    problem = random_quadratic(4, 4)
    for c in ScaledPermutation(problem).support().diagonals:
        B = np.mean([row[:, None] * L * row for row, L in zip(c, problem.L, strict=True)], axis=0)
        np.testing.assert_allclose(B, np.eye(4), atol=1e-12)
    assert theory.theorem1(problem, ScaledPermutation(problem)).theta == pytest.approx(1.0)


class Halves:
    """A sketch of a user's own: half of the workers hold everything, twice as heavily."""

    def sample(self, random: np.random.Generator) -> np.ndarray:
        chosen = random.permutation(4) < 2
        return np.repeat(2.0 * chosen[:, None], 3, axis=1)


def test_a_sketch_that_only_samples() -> None:
    sketch = as_sketch(Halves())
    assert (sketch.workers, sketch.dim) == (4, 3)
    assert sketch.unbiased
    estimate, error = sketch.second_moment_estimate(np.ones((3, 3)))
    assert np.abs(estimate - 2.0).max() < 4 * error.max()
    assert 0 < error.max() < 0.05
    problem = random_quadratic(4, 3)
    course = theory.dynamics(problem, IST(Halves(), 0.02), np.ones(3), 10, seeds=400)
    assert course.method == "Monte Carlo"
    assert (course.gap_error[1:] > 0).all()
    # the same law with its moments by hand: x+ = x - gamma (2/n) sum over a random pair of grad f_i
    found = theory.theorem1(problem, sketch)
    assert not found.exact
    np.testing.assert_allclose(found.mean, 2 * problem.mean_matrix, rtol=0.1)
    np.testing.assert_allclose(theory.expected_matrix(problem, sketch), found.mean, rtol=1e-12)
    pairs = [problem.L[i] + problem.L[j] for i in range(4) for j in range(i)]
    square = np.mean([B @ problem.mean_matrix @ B for B in pairs], axis=0)
    assert np.abs(found.square - square).max() <= 0.05 * np.abs(square).max()  # five errors of 2000 draws
    # E B = 2 Lbar and E c = bbar: half of the minimizer, from draws
    np.testing.assert_allclose(theory.fixed_point(problem, IST(Halves(), 0.02)), problem.minimizer / 2, rtol=0.1)


class Corner(Sketch):
    """A user's sketch that enumerates itself: one of two pairs of masks, not exchangeable."""

    workers, dim = 2, 3
    outcomes = np.array([[[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]], [[1.0, 0.0, 1.0], [0.0, 3.0, 0.0]]])

    def sample(self, random: np.random.Generator) -> np.ndarray:
        return self.outcomes[int(random.random() < 0.25)]

    def support(self, limit: int = 100_000) -> Support:
        return Support(np.array([0.75, 0.25]), self.outcomes)


@pytest.mark.parametrize("steps", [1, 3])
def test_a_sketch_that_enumerates_itself_is_exact(steps: int) -> None:
    problem, method = random_quadratic(2, 3), IST(Corner(), 0.03, steps)
    moments = round_moments(problem, method)
    assert moments is not None
    check_moments(problem, method, moments)
    np.testing.assert_allclose(Corner().mean, [[1.0, 0.75, 0.25], [0.0, 0.75, 1.5]], rtol=1e-15)
    assert not Corner().unbiased
    M, c = np.arange(9.0).reshape(3, 3), Corner.outcomes[:, 1]
    expected = 0.75 * np.diag(c[0]) @ M @ np.diag(c[0]) + 0.25 * np.diag(c[1]) @ M @ np.diag(c[1])
    np.testing.assert_allclose(Corner().second_moment(M, 1), expected, rtol=1e-15)
    course = theory.dynamics(problem, method, np.ones(3), 6)
    assert (course.method, course.how) == ("exact", "enumeration")
    run = simulate(problem, method, np.ones(3), 6, seeds=20_000)
    assert (np.abs(run.mean_gap - course.gap)[1:] < 4 * run.standard_error[1:]).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RandomSparsification(2, 4, 5), "`size` must be at most 4, got 5"),
        (lambda: RandomSparsification(2, 4, 0), "`size` must be at least 1"),
        (lambda: Bernoulli(2, 4, 0.0), "`probability` must be greater than 0"),
        (lambda: Bernoulli(2, 4, 1.5), "`probability` must be at most 1"),
        (lambda: ImportanceSampling(2, [0.5, 0.0]), r"`marginals` must be in \(0, 1\]"),
        (lambda: ImportanceSampling(2, np.ones((3, 2))), r"`marginals` must have shape \[2, d\]"),
        (lambda: ScaledPermutation(random_quadratic(2, 4)), "as many workers as coordinates"),
        (lambda: ScaledPermutation(random_quadratic(5, 4), homogeneous=True), "at most as many workers"),
        (lambda: ScaledPermutation(Quadratic([np.diag([1.0, 0.0])] * 2, np.zeros((2, 2)))), r"got 0 at \[0, 1\]"),
        (lambda: Permutation(4, 40).support(), "more than 100000"),
        (lambda: Bernoulli(3, 20, 0.5).support(), "more than 100000"),
        (lambda: Dealt("weighted", 2, 4), "`capacities` must be given with law 'weighted'"),
        (lambda: Dealt("rotated", 5, 4), "has 4 units, too few for 5 workers"),
        (lambda: Dealt("rotated", 2, 4, scale=0.0), "`scale` must be greater than 0"),
        (lambda: as_sketch(Halves()).support(), "does not enumerate"),
    ],
)
def test_refuses(build: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        build()  # type: ignore[operator]
