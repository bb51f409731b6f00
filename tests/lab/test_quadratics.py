"""The problem: values, gradients, constructors, and what it refuses."""

import numpy as np
import pytest

from cases.lab import random_quadratic
from isthmus.data import load, standardize
from isthmus.errors import InvalidInput
from isthmus.lab import Quadratic


def test_value_gradient_and_gap_agree() -> None:
    problem = random_quadratic(3, 5)
    x = np.random.default_rng(1).standard_normal((4, 5))
    by_hand = [np.mean([0.5 * p @ L @ p - b @ p for L, b in zip(problem.L, problem.b, strict=True)]) for p in x]
    np.testing.assert_allclose(problem.value(x), by_hand, rtol=1e-13)
    assert problem.value(x[0]) == pytest.approx(by_hand[0], rel=1e-13)
    for a in range(5):
        step = 1e-6 * np.eye(5)[a]
        slope = (problem.value(x + step) - problem.value(x - step)) / 2e-6
        np.testing.assert_allclose(slope, problem.gradient(x)[:, a], rtol=1e-7)
    np.testing.assert_allclose(problem.gap(x), problem.value(x) - problem.optimal_value, rtol=1e-12)
    assert np.abs(problem.gradient(problem.minimizer)).max() < 1e-12


def test_gaussian_is_by_seed_and_worker() -> None:
    few, many = Quadratic.gaussian(2, 4, seed=3), Quadratic.gaussian(5, 4, seed=3)
    np.testing.assert_array_equal(few.L, many.L[:2])
    assert not np.array_equal(few.L, Quadratic.gaussian(2, 4, seed=4).L)
    same = Quadratic.gaussian(3, 4, seed=0, homogeneous=True)
    assert same.homogeneous_matrices
    np.testing.assert_array_equal(same.L[0], same.L[2])


def test_least_squares_minimizer_is_the_regression() -> None:
    (data,) = standardize(load("diabetes"))
    y = data.targets - data.targets.mean()
    problem = Quadratic.least_squares(data.features, y, workers=1, seed=0)
    expected = np.linalg.lstsq(data.features, y, rcond=None)[0]
    np.testing.assert_allclose(problem.minimizer, expected, rtol=1e-8)
    split = Quadratic.least_squares(data.features[:440], y[:440], workers=4, seed=0, ridge=0.5)
    whole = data.features[:440].T @ data.features[:440] / 440 + 0.5 * np.eye(data.dim)
    np.testing.assert_allclose(split.mean_matrix, whole, rtol=1e-12, atol=1e-12)


def test_singular_mean_has_the_shortest_minimizer() -> None:
    L = np.diag([2.0, 0.0])
    problem = Quadratic([L, L], [[2.0, 0.0], [6.0, 0.0]])
    np.testing.assert_allclose(problem.minimizer, [2.0, 0.0], atol=1e-12)
    assert problem.singular
    assert problem.optimal_value == pytest.approx(-4.0)


@pytest.mark.parametrize(
    ("L", "b", "message"),
    [
        ([[[1.0, 2.0], [0.0, 1.0]]], [[0.0, 0.0]], r"`L\[0\]` must be symmetric, got 2 at \[0, 1\] and 0 at \[1, 0\]"),
        ([[[1.0, 3.0], [3.0, 1.0]]], [[0.0, 0.0]], r"`L\[0\]` must be positive semi-definite, got smallest .* -2"),
        ([np.eye(2), -np.eye(2)], np.zeros((2, 2)), r"`L\[1\]` must be positive semi-definite"),
        ([[1.0, 0.0]], [[0.0, 0.0]], r"`L` must have shape \[n, d, d\]"),
        (np.zeros((1, 2, 3)), [[0.0, 0.0]], r"`L` must have shape \[n, d, d\]"),
        (np.zeros((0, 2, 2)), np.zeros((0, 2)), r"`L` must have shape \[n, d, d\]"),
        ([np.eye(2)], [[0.0, 0.0, 0.0]], r"`b` must have shape \[1, 2\], got \[1, 3\]"),
        ([np.eye(2)], [[0.0, np.nan]], r"`b` must be finite, got nan at \[0, 1\]"),
        ([np.diag([1.0, 0.0])], [[0.0, 1.0]], "unbounded below"),
        ([[["a"]]], [[0.0]], "`L` must be an array of numbers"),
    ],
)
def test_refuses(L: object, b: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Quadratic(L, b)  # type: ignore[arg-type]
