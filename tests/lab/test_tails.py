"""Heavy tails: where a mean over seeds says nothing, and that it is said."""

from __future__ import annotations

import numpy as np
import pytest

from isthmus.errors import InvalidInput
from isthmus.lab import GDCI, IST, Permutation, RandK, random_quadratic, rates, simulate, theory
from isthmus.lab.bounds import Bound
from isthmus.lab.measure import Budget, judge, measure
from isthmus.lab.simulate import Simulation


def compressed_models():
    """GDCI with Rand-1 of 6 at the step its theory gives: E gap grows, most seeds' gaps do not."""
    problem, x0 = random_quadratic(3, 6, 10.0, 0.5, 0), np.ones(6)
    method = rates.with_default_stepsize(GDCI(RandK(6, 1), 1.0), rates.Setting(problem, x0, 40))
    step = np.eye(6) - method.stepsize * problem.mean_matrix
    matrices = np.stack([step @ np.diag(6.0 * (np.arange(6) == j)) for j in range(6)])
    return problem, x0, method, step, matrices


def exact_gap(problem, x0, step, matrices, rounds):
    Lbar, minimizer = problem.mean_matrix, problem.minimizer
    shifts = [J @ minimizer - step @ minimizer for J in matrices]
    e = x0 - minimizer
    M = np.outer(e, e)
    for _ in range(rounds):
        moved = [J @ M @ J.T + np.outer(J @ e, a) + np.outer(a, J @ e) + np.outer(a, a)
                 for J, a in zip(matrices, shifts, strict=True)]  # fmt: skip
        M, e = sum(moved) / 6, sum(J @ e + a for J, a in zip(matrices, shifts, strict=True)) / 6
    return 0.5 * np.sum(Lbar * M)


def test_a_mean_without_an_error_is_told_and_the_exact_value_is_far_from_it():
    problem, x0, method, step, matrices = compressed_models()
    exact = exact_gap(problem, x0, step, matrices, 20)
    assert exact == pytest.approx(2.1e5, rel=0.01)
    run = simulate(problem, method, x0, 20, 10_000, 1)
    assert run.mean_gap[20] + 4 * run.standard_error[20] < exact  # four errors do not reach it
    assert run.tail_index[20] < 1.0
    assert run.heavy[10:].all()
    found = theory.tails(np.full(6, 1 / 6), matrices)
    assert found.fourth > 1.0
    assert found.rounds(10_000) < 20  # the exact growth says the same, before any seed is drawn
    course = theory.dynamics(problem, method, x0, 20)
    assert course.gap[20] == pytest.approx(exact, rel=1e-9)  # no seeds are drawn where the exact course is known


def test_light_tails_are_called_so():
    problem, x0, *_ = compressed_models()
    method = rates.with_default_stepsize(IST(Permutation(3, 6), 1.0), rates.Setting(problem, x0, 40))
    run = simulate(problem, method, x0, 20, 1000, 1)
    assert not run.heavy.any()
    assert run.tail_index[5] > 4.0
    assert np.isnan(simulate(problem, method, x0, 2, 19, 1).tail_index).all()


def test_hills_index_is_that_of_pareto_and_infinite_of_equal_gaps():
    problem, x0, *_ = compressed_models()
    run = simulate(problem, GDCI(RandK(6, 6), 0.1), x0, 1, 40_000)
    random = np.random.default_rng(0)
    gaps = np.stack([random.pareto(index, 40_000) + 1 for index in (0.7, 3.0)], axis=1)
    pareto = Simulation(gaps, run.mean, run.final, None)
    np.testing.assert_allclose(pareto.tail_index, [0.7, 3.0], rtol=0.3)  # 200 largest: 7 % an error
    assert pareto.heavy.tolist() == [True, False]
    assert np.isinf(run.tail_index).all()


def test_fourth_order_growth_is_that_of_all_products():
    random = np.random.default_rng(3)
    J, p = random.standard_normal((3, 2, 2)), np.array([0.2, 0.3, 0.5])
    found = theory.tails(p, J)
    for order, radius in ((2, found.second), (4, found.fourth)):
        whole = 0.0
        for chance, matrix in zip(p, J, strict=True):
            power = np.eye(1)
            for _ in range(order):
                power = np.kron(power, matrix)
            whole = whole + chance * power
        # on symmetric tensors, which e x e x ... spans
        vectors = random.standard_normal((order + 1, 2))
        basis = np.stack([power_of(vector, order) for vector in vectors], axis=1)
        on_symmetric = np.linalg.lstsq(basis, whole @ basis, rcond=None)[0]
        assert radius == pytest.approx(np.abs(np.linalg.eigvals(on_symmetric)).max(), rel=1e-9)
    assert found.spread == pytest.approx(found.fourth / found.second**2)
    assert theory.tails([1.0], [[[0.5]]]).rounds(10) == np.inf
    small = theory.tails([0.5, 0.5], [[[0.5]], [[0.1]]])  # E J^2 = 0.13, E J^4 = 0.0313
    assert small.spread == pytest.approx(0.0313 / 0.13**2)
    assert small.rounds(10) == pytest.approx(np.log(10) / np.log(0.0313 / 0.13**2))
    assert theory.tails([1.0], [[[0.0]]]).spread == 1.0


def power_of(vector, order):
    power = np.ones(1)
    for _ in range(order):
        power = np.kron(power, vector)
    return power


@pytest.mark.parametrize(
    ("chances", "matrices", "said"),
    [
        ([0.5, 0.4], [[[1.0]], [[1.0]]], "`probabilities` must be at least 0 and sum to 1, got a sum of 0.9"),
        ([1.5, -0.5], [[[1.0]], [[1.0]]], "`probabilities` must be at least 0 and sum to 1, got a sum of 1"),
        ([1.0], [[[1.0, 0.0]]], r"`matrices` must have shape \[P, d, d\]"),
    ],
)
def test_bad_laws_are_one_line(chances, matrices, said):
    with pytest.raises(InvalidInput, match=said):
        theory.tails(chances, matrices)


def test_rounds_with_heavy_tails_are_not_judged():
    problem, x0, method, step, matrices = compressed_models()
    values = np.array([exact_gap(problem, x0, step, matrices, k) for k in range(21)])
    measured = measure(problem, method, x0, Budget(20, 1000, 1))
    verdict = judge(Bound("exact", "gap", values, "tight", (), ""), measured)
    assert verdict.holds
    assert "rounds have tails too heavy for a mean of 1000 seeds" in verdict.why
    wrong = judge(Bound("half", "gap", values / 2, "tight", (), ""), measured)
    assert not wrong.holds  # the first rounds have light tails
