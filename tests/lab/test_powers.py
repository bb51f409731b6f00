"""The fast paths of small problems against their slow twins: powers of one matrix, stacks of workers, few products."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cases.lab import SKETCHES, random_quadratic
from isthmus.lab import IST, Bernoulli, Permutation, Quadratic, theory
from isthmus.lab.arrays import Array
from isthmus.lab.theory import moments as moments_file
from isthmus.lab.theory.dynamics import blocks, course, covariance_step, known_moments
from isthmus.lab.theory.powers import BLOCK, pays, powered
from isthmus.lab.theory.stationary import _solve_covariance


@pytest.mark.parametrize("merge", ["gradient", "model"])
@pytest.mark.parametrize("name", SKETCHES)
def test_powers_give_the_course_of_round_by_round(name: str, merge: str) -> None:
    workers, dim, build = SKETCHES[name]
    problem = random_quadratic(workers, dim)
    sketch = build(problem)
    method = IST(sketch, 0.4 * theory.contraction_limit(problem, sketch), merge=merge)
    moments, x0 = known_moments(problem, method), np.linspace(1.0, 2.0, dim)
    rounds = 2 * BLOCK + 3
    slow_means, slow = (np.stack(part) for part in zip(*course(moments, x0, rounds), strict=True))
    fast_means, fast = (np.concatenate(part) for part in zip(*powered(moments, x0, rounds), strict=True))
    np.testing.assert_allclose(fast_means, slow_means, rtol=1e-11, atol=1e-12)
    sizes = np.maximum(np.abs(slow).max(axis=(1, 2)), (slow_means**2).max(axis=1))
    assert (np.abs(fast - slow).max(axis=(1, 2)) <= 1e-11 * sizes).all()


def test_a_course_of_a_hundred_thousand_rounds_ends_at_the_stationary_law() -> None:
    problem = random_quadratic(3, 6)
    method = IST(Permutation(3, 6), 0.01 * theory.contraction_limit(problem, Permutation(3, 6)))
    settled = theory.stationary(problem, method)
    found = theory.dynamics(problem, method, np.ones(6), 100_000)
    np.testing.assert_allclose(found.mean[-1], settled.mean, rtol=1e-10)
    assert found.covariance is not None
    np.testing.assert_allclose(found.covariance, settled.covariance, rtol=1e-9, atol=1e-12)
    assert found.gap[-1] == pytest.approx(settled.gap, rel=1e-10)


@pytest.mark.parametrize("factor", [1.2, 30.0, 1e6])
def test_a_diverging_course_goes_as_far_as_round_by_round(factor: float) -> None:
    # powers of the matrix overflow before the course does: what is left is done round by round
    problem = random_quadratic(2, 4)
    limit = theory.stable_stepsizes(problem, IST(Permutation(2, 4), 1.0)).largest
    moments = known_moments(problem, IST(Permutation(2, 4), factor * limit))
    slow = list(course(moments, np.ones(4), 3000))
    fast = np.concatenate([covariances for _, covariances in blocks(moments, np.ones(4), 3000)])
    assert abs(len(fast) - len(slow)) <= (1 if len(slow) < 3000 else 0)
    shown = min(len(fast), len(slow))
    np.testing.assert_allclose(fast[:shown], np.stack([S for _, S in slow[:shown]]), rtol=1e-9, atol=1e-9)
    assert pays(4, 3000)


def test_round_by_round_goes_on_from_any_round() -> None:
    problem = random_quadratic(2, 4)
    moments = known_moments(problem, IST(Permutation(2, 4), 0.01))
    whole = list(course(moments, np.ones(4), 9))
    again = list(course(moments, whole[4][0], 5, whole[4][1]))
    for (m, S), (m2, S2) in zip(whole[4:], again, strict=True):
        np.testing.assert_array_equal(m, m2)
        np.testing.assert_array_equal(S, S2)


@pytest.mark.parametrize(("dim", "few", "many"), [(6, 30, 60), (24, 700, 800), (40, 5000, 6000)])
def test_small_problems_and_long_courses_take_powers(dim: int, few: int, many: int) -> None:
    assert [pays(dim, rounds) for rounds in (few, many)] == [False, True]


def test_a_matrix_that_would_take_too_much_memory_is_not_built() -> None:
    assert not pays(41, 10**7)


@pytest.mark.parametrize(("workers", "dim"), [(3, 6), (4, 7), (5, 3)])
def test_one_pass_over_all_workers_is_a_pass_over_each(workers: int, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_quadratic(workers, dim)
    moments = known_moments(problem, IST(Permutation(workers, dim, 1.3), 0.01, merge="model"))
    X = random_quadratic(1, dim, seed=5).L[0]
    together = moments.sandwich(X)
    monkeypatch.setattr(moments_file, "_AT_ONCE", 0)
    np.testing.assert_allclose(moments.sandwich(X), together, rtol=1e-13, atol=1e-15 * np.abs(together).max())


class Counted:
    """Moments that count their products E[H X H]."""

    def __init__(self, moments: Any) -> None:
        self.moments, self.products = moments, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.moments, name)

    def sandwich(self, X: Array) -> Array:
        self.products += 1
        return np.asarray(self.moments.sandwich(X))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95])
@pytest.mark.parametrize("sketch", [Permutation(4, 17), Bernoulli(4, 17, 0.3)], ids=["partition", "independent"])
def test_covariance_beyond_the_dense_size_takes_few_products(sketch: Any, share: float) -> None:
    problem = Quadratic.gaussian(4, 17, 0)
    method = IST(sketch, 1.0)
    method = replace(method, stepsize=share * theory.stable_stepsizes(problem, method).largest)
    moments = known_moments(problem, method)
    source = random_quadratic(1, 17, seed=3).L[0]
    units = np.eye(17)
    columns = [units[[a]].T @ units[[b]] for a in range(17) for b in range(17)]  # a naive twin: all entries, one by one
    matrix = np.stack([(X - covariance_step(moments, 0.5 * (X + X.T))).ravel() for X in columns], axis=1)
    dense = np.linalg.solve(matrix, source.ravel()).reshape(17, 17)
    counted = Counted(moments)
    found, left = _solve_covariance(counted, source)
    np.testing.assert_allclose(found, dense, rtol=1e-10, atol=1e-12 * np.abs(dense).max())
    assert left < 1e-13
    assert counted.products < 100  # 1,200 to 3,700 when the last refinement asked for more than rounding leaves
