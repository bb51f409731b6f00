"""Simulation equals the definition, whatever the batch; divergence is a result."""

import math

import numpy as np
import pytest

from cases.lab import random_quadratic
from cases.naive import dense_round
from isthmus.lab import IST, Permutation, simulate, theory
from isthmus.lab.methods import Draws, local_steps
from isthmus.lab.methods.base import Iterate


@pytest.mark.parametrize("merge", ["gradient", "model"])
@pytest.mark.parametrize("steps", [1, 3, 20, math.inf])
@pytest.mark.parametrize("seeds", [5, 20])  # few seeds gather blocks, many multiply by whole matrices
@pytest.mark.parametrize(("workers", "dim"), [(2, 6), (4, 4), (3, 7), (1, 3), (4, 3), (5, 2), (12, 24)])
def test_a_round_equals_its_dense_twin(workers: int, dim: int, seeds: int, steps: float, merge: str) -> None:
    problem = random_quadratic(workers, dim)
    method = IST(Permutation(workers, dim, 1.5), 0.02 / dim, steps, merge)
    x = np.random.default_rng(3).standard_normal((seeds, dim))
    draws = Draws(seed=5, round=2, seeds=seeds)
    diagonals = method.sketch.sample_many(draws.generator("sketch"), seeds)
    stepped = method.step(problem, Iterate(x), draws).x
    np.testing.assert_allclose(stepped, dense_round(problem, method, diagonals, x), rtol=1e-9, atol=1e-11)


def test_many_seeds_are_worked_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_quadratic(2, 6)
    whole = simulate(problem, IST(Permutation(2, 6), 0.01), np.ones(6), 4, seeds=11)  # too few for whole matrices
    monkeypatch.setattr(local_steps, "_GATHERED", 30)  # three seeds a chunk
    parts = simulate(problem, IST(Permutation(2, 6), 0.01), np.ones(6), 4, seeds=11)
    np.testing.assert_allclose(parts.final, whole.final, rtol=1e-13)


@pytest.mark.parametrize(("workers", "dim"), [(2, 6), (3, 7), (5, 3)])
def test_a_seed_draws_the_same_whatever_the_batch(workers: int, dim: int) -> None:
    problem = random_quadratic(workers, dim)
    method = IST(Permutation(workers, dim), 0.01)
    large, small = (simulate(problem, method, np.ones(dim), 5, seeds=seeds, seed=1) for seeds in (7, 3))
    np.testing.assert_allclose(large.final[:3], small.final, rtol=1e-13)
    other = simulate(problem, method, np.ones(dim), 5, seeds=3, seed=2)
    assert np.abs(other.final - small.final).max() > 1e-6


def test_simulation_agrees_with_the_exact_course() -> None:
    problem = random_quadratic(3, 6)
    method = IST(Permutation(3, 6), 0.3 * theory.contraction_limit(problem, Permutation(3, 6)))
    x0 = np.ones(6)
    exact = theory.dynamics(problem, method, x0, 15)
    run = simulate(problem, method, x0, 15, seeds=20_000)
    deviation = np.abs(run.mean_gap - exact.gap)[1:] / run.standard_error[1:]
    assert deviation.max() < 4.0
    assert run.standard_error[5] < 0.02 * exact.gap[5]


def test_divergence_is_a_result() -> None:
    problem = random_quadratic(2, 4)
    run = simulate(problem, IST(Permutation(2, 4), 1e3), np.ones(4), 200, seeds=3)
    assert run.diverged_at is not None
    assert run.diverged_at < 50
    assert np.isinf(run.mean_gap[-1])
    assert np.isfinite(run.mean_gap[0])
