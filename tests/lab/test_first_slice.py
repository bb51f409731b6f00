"""Against full enumeration of the partitions: E[B], fixed point, exact mean; and the paper's first example."""

import numpy as np
import pytest

from cases.lab import GRID, SCALES, partitions, permutation, random_quadratic
from cases.naive import exact_gap, ist_round
from isthmus.errors import InvalidInput
from isthmus.lab import IST, GradientDescent, Identity, Permutation, Quadratic, simulate, theory


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("dim", "workers"), GRID)
def test_mean_against_enumeration(dim: int, workers: int, scale: str) -> None:
    problem = random_quadratic(workers, dim)
    sketch = permutation(workers, dim, scale)
    outcomes = [sketch.scale * masks for masks in partitions(workers, dim)]
    B = [np.mean([c[:, None] * L * c for L, c in zip(problem.L, o, strict=True)], axis=0) for o in outcomes]
    np.testing.assert_allclose(theory.expected_matrix(problem, sketch), np.mean(B, axis=0), rtol=1e-12, atol=1e-12)

    found = theory.theorem1(problem, sketch)
    square = np.mean([M @ problem.mean_matrix @ M for M in B], axis=0)
    np.testing.assert_allclose(found.square, square, rtol=1e-12, atol=1e-12 * np.abs(square).max())

    method = IST(sketch, stepsize=0.4 * theory.contraction_limit(problem, sketch))
    x_inf = theory.fixed_point(problem, method)
    moved = np.mean([ist_round(problem, method, o, x_inf) for o in outcomes], axis=0)
    np.testing.assert_allclose(moved, x_inf, rtol=1e-12, atol=1e-12)
    x0 = np.random.default_rng(2).standard_normal(dim)
    means, gaps = exact_gap(problem, method, outcomes, x0, rounds=50)
    np.testing.assert_allclose(theory.mean_trajectory(problem, method, x0, 50), means, rtol=1e-12, atol=1e-12)
    found_gaps = theory.dynamics(problem, method, x0, 50)
    assert found_gaps.method == "exact"
    np.testing.assert_allclose(found_gaps.gap, gaps, rtol=1e-12)


def test_remark_1_is_indefinite_and_still_converges() -> None:
    a, b, c = 1.0, 10.0, 2.49
    L = np.array([[a, c], [c, b]])
    problem = Quadratic([L, L], np.zeros((2, 2)))
    sketch = Permutation(2, 2)
    found = theory.theorem1(problem, sketch)
    # W = n sym(L D); its determinant is what the remark is about
    W = L @ np.diag([a, b]) + np.diag([a, b]) @ L
    np.testing.assert_allclose(found.W, W, rtol=1e-14)
    assert found.smallest_eigenvalue == pytest.approx(np.linalg.eigvalsh(W)[0])
    assert found.smallest_eigenvalue < 0
    assert not found.applies
    verdict = found.verdict(0.01)
    assert "W is indefinite: smallest eigenvalue -" in verdict.why
    method = IST(sketch, 0.5 / (2 * b))
    worst = np.linalg.eigh(W)[1][:, 0]
    gap = theory.dynamics(problem, method, worst, 400).gap
    assert gap[1] > gap[0]  # rises first
    assert gap[-1] < 1e-12 * gap[0]  # and converges
    np.testing.assert_allclose(simulate(problem, method, worst, 400, seeds=3).mean_gap, gap, rtol=1e-9, atol=1e-300)


def test_theorem_1_for_gradient_descent() -> None:
    problem = random_quadratic(3, 4, biased=False)
    found = theory.theorem1(problem, Identity(3, 4))
    assert found.theta == pytest.approx(problem.spectrum[-1])
    assert found.rate == pytest.approx(problem.spectrum[0])
    assert found.verdict(0.9 / found.theta).holds
    assert "above 1/theta" in found.verdict(1.1 / found.theta).why
    descent, ist = GradientDescent(0.05), IST(Identity(3, 4), 0.05)
    x0 = np.ones(4)
    runs = [simulate(problem, method, x0, 10, seeds=1).gap for method in (descent, ist)]
    np.testing.assert_allclose(runs[0], runs[1], rtol=1e-13)
    np.testing.assert_allclose(theory.dynamics(problem, descent, x0, 10).gap, runs[0][0], rtol=1e-12)
    np.testing.assert_allclose(theory.fixed_point(problem, descent), problem.minimizer, atol=1e-12)


def test_one_worker_is_gradient_descent() -> None:
    problem = random_quadratic(1, 4)
    x0 = np.ones(4)
    ist = theory.dynamics(problem, IST(Permutation(1, 4), 0.05), x0, 20)
    descent = theory.dynamics(problem, GradientDescent(0.05), x0, 20)
    np.testing.assert_allclose(ist.gap, descent.gap, rtol=1e-13)
    assert np.abs(ist.variance).max() < 1e-14 * ist.gap[0]


FOUR = random_quadratic(2, 4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Permutation(0, 4), "`workers` must be at least 1, got 0"),
        (lambda: Permutation(2, 0), "`dim` must be at least 1, got 0"),
        (lambda: Permutation(2, 4, scale=-1.0), "`scale` must be greater than 0"),
        (lambda: Identity(2.5, 4), "`workers` must be an integer"),
        (lambda: IST(Permutation(2, 4), 0.0), "`stepsize` must be greater than 0"),
        (lambda: IST(Permutation(2, 4), np.nan), "`stepsize` must be a finite number"),
        (lambda: IST(Permutation(2, 4), 0.1, local_steps=0), "`local_steps` must be at least 1"),
        (lambda: IST(Permutation(2, 4), 0.1, merge="mode"), "did you mean 'model'"),
        (lambda: IST("permutation", 0.1), "`sketch` must be a Sketch"),
        (lambda: GradientDescent(-1.0), "`stepsize` must be greater than 0"),
        (lambda: simulate(FOUR, GradientDescent(0.1), np.ones(3), 1, 1), r"`x0` must have shape \[4\]"),
        (lambda: simulate(FOUR, IST(Permutation(3, 4), 0.1), np.ones(4), 1, 1), "`sketch` must be for"),
        (lambda: theory.fixed_point(FOUR, IST(Permutation(2, 6), 0.1)), "`sketch` must be for 2"),
        (lambda: simulate(FOUR, GradientDescent(0.1), np.ones(4), -1, 1), "`rounds` must be at least 0"),
        (lambda: simulate(FOUR, GradientDescent(0.1), np.ones(4), 1, 0), "`seeds` must be at least 1"),
    ],
)
def test_refuses(build: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        build()  # type: ignore[operator]
