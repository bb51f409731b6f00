"""The formulas of docs/methods.md written a second time, with plain numbers: steps, bounds, and when they apply."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from isthmus.lab.compressors import PermK, RandK, Scaled
from isthmus.lab.methods import (
    DCGD,
    DIANA,
    EF21,
    GDCI,
    MARINA,
    AcceleratedGradientDescent,
    AnchoredIST,
    BlockCoordinateDescent,
    BlockGradientIST,
    DistributedGDCI,
    GradientDescent,
    ProxSkip,
)
from isthmus.lab.problems import constants, random_quadratic
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.rates import Setting, bounds, largest_stepsize
from isthmus.lab.sketches import Bernoulli, Identity, Permutation

N, D, K = 3, 6, 2
ROUNDS = 4
PROBLEM = random_quadratic(N, D, 10.0, 0.7, seed=4)
SHARED = random_quadratic(N, D, 10.0, 0.7, seed=4, shared_minimizer=True)
X0 = np.full(D, 2.0)
SETTING, AGREED = Setting(PROBLEM, X0, ROUNDS), Setting(SHARED, X0, ROUNDS)
C = constants(PROBLEM)
GAP = PROBLEM.value(X0) - PROBLEM.optimal_value
DISTANCE = float(((X0 - PROBLEM.minimizer) ** 2).sum())
OMEGA = D / K - 1  # of Rand-K
A = OMEGA / N  # of N workers that draw apart
A_PERM, B_PERM = PermK(N, D).joint_constants(N)
RAND, PERM = RandK(D, K), PermK(N, D)
ROOT = math.sqrt(1 - K / D)  # of 1 - alpha, alpha = K/d of scaled Rand-K
THETA = 1 - ROOT
LBAR = PROBLEM.mean_matrix
R = (K - 1) / (D - 1)
S = float(np.linalg.eigvalsh((1 - R) * np.diag(np.diag(LBAR)) + R * LBAR)[-1])


def slowest(g: float) -> float:
    return max(abs(1 - g * C.mu), abs(1 - g * C.L))


def v(a: float, b: float) -> float:
    return (a - b) * C.L_plus**2 + b * C.L_pm**2


def course(factor: float, start: float, level: float = 0.0) -> list[float]:
    return [factor**k * start + level for k in range(ROUNDS + 1)]


LIMITS = [
    (GradientDescent(1.0), 1 / C.L),
    (AcceleratedGradientDescent(1.0, 0.0), 1 / C.L),
    (DCGD(RAND, 1.0), 1 / (C.L + 2 * A * C.L_max)),
    (DCGD(PERM, 1.0), 1 / ((1 - B_PERM) * C.L + 2 * A_PERM * C.L_max)),
    (BlockGradientIST(Permutation(N, D), 1.0), 1 / ((1 - B_PERM) * C.L + 2 * A_PERM * C.L_max)),
    (BlockGradientIST(Bernoulli(N, D, 0.4), 1.0), 1 / (C.L + 2 * (1 / 0.4 - 1) / N * C.L_max)),
    (BlockGradientIST(Identity(N, D), 1.0), 1 / C.L),
    (DIANA(RAND, 1.0), 1 / ((1 + 6 * A) * C.L_max)),
    (MARINA(RAND, 1.0, 0.3), min(1 / (C.L + math.sqrt(2 * v(A, 0) * 0.7 / 0.3)), 0.3 / (2 * C.mu))),
    (MARINA(PERM, 1.0, 0.3), min(1 / (C.L + math.sqrt(2 * v(A_PERM, B_PERM) * 0.7 / 0.3)), 0.3 / (2 * C.mu))),
    (MARINA(RAND, 1.0, 1e-3), min(1 / (C.L + math.sqrt(2 * v(A, 0) * 999)), 1e-3 / (2 * C.mu))),
    (EF21(Scaled(RAND), 1.0), min(1 / (C.L + C.L_tilde * math.sqrt(2) * ROOT / THETA), THETA / (2 * C.mu))),
    (GDCI(RAND, 1.0), 2 / (C.L + C.mu)),
    (DistributedGDCI(RAND, 1.0, 0.5), 1 / C.L_max),
    (ProxSkip(1.0, 0.5), 1 / C.L_max),
    (BlockCoordinateDescent(K, 1.0), 1 / S),
]


@pytest.mark.parametrize(("method", "limit"), LIMITS, ids=[str(method)[:40] for method, _ in LIMITS])
def test_the_largest_step(method, limit):
    assert largest_stepsize(method, SETTING) == pytest.approx(limit, rel=1e-10)


def test_where_all_agree_compressed_gradients_may_step_further_and_end_at_the_minimiser():
    c = constants(SHARED)
    limit = 1 / (c.L + A * c.L_max)
    assert largest_stepsize(DCGD(RAND, 1.0), AGREED) == pytest.approx(limit, rel=1e-10)
    (bound,) = bounds(DCGD(RAND, limit), AGREED)
    start = float(((X0 - SHARED.minimizer) ** 2).sum())
    np.testing.assert_allclose(bound.values, course(1 - limit * c.mu, start), rtol=1e-9)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_whether_all_agree_does_not_depend_on_the_unit_of_f(unit):
    for problem in (PROBLEM, SHARED):
        scaled = Setting(Quadratic(unit * problem.L, unit * problem.b), X0, ROUNDS)
        expected = largest_stepsize(DCGD(RAND, 1.0), Setting(problem, X0, ROUNDS)) / unit
        assert largest_stepsize(DCGD(RAND, 1.0), scaled) == pytest.approx(expected, rel=1e-9)


def dcgd(g: float, a: float) -> list[float]:
    return course(1 - g * C.mu, DISTANCE, 2 * g * a * C.zeta2 / C.mu)


def mixed(g: float, eta: float) -> list[float]:
    each = max(abs(1 - g * C.mu_min), abs(1 - g * C.L_max)) ** 2
    factor = (1 - eta + eta * slowest(g)) ** 2 + 2 * eta**2 * A_PERM * each
    return course(factor, DISTANCE, 2 * eta**2 * A_PERM * (C.norm2 + g**2 * C.zeta2) / (1 - factor))


def whole(g: float) -> list[float]:
    factor = slowest(g) ** 2 * (1 + 2 * 0.2)
    return course(factor, DISTANCE, 2 * 0.2 * slowest(g) ** 2 * C.norm2 / (1 - factor))


def averages(g: float) -> list[float]:
    return [math.inf, *(2 * GAP / (g * k) for k in range(1, ROUNDS + 1))]


SMALL, LARGE = 0.3 / C.L, 1.99 / (C.L + C.mu)  # the slow side of the spectrum decides, the steep one
COURSES = [
    (GradientDescent(SMALL), "gradient descent", course(slowest(SMALL) ** 2, DISTANCE)),
    (GradientDescent(1.2 * LARGE), "gradient descent", course(slowest(1.2 * LARGE) ** 2, DISTANCE)),
    (AcceleratedGradientDescent(SMALL, 0.0), "accelerated gradient descent",
     course(1 - math.sqrt(SMALL * C.mu), GAP + C.mu / 2 * DISTANCE)),
    (DCGD(RAND, 0.01), "DCGD", dcgd(0.01, A)),
    (BlockGradientIST(Permutation(N, D), 0.01), "block-gradient IST", dcgd(0.01, A_PERM)),
    (DIANA(RAND, 0.01, 0.3), "DIANA",
     course(max(1 - 0.01 * C.mu, 1 - 0.15), DISTANCE + 4 * A / 0.3 * 0.01**2 * C.zeta2)),
    (DIANA(RAND, 0.01, 1e-3), "DIANA",
     course(max(1 - 0.01 * C.mu, 1 - 5e-4), DISTANCE + 4 * A / 1e-3 * 0.01**2 * C.zeta2)),
    (MARINA(RAND, 0.01, 0.3), "MARINA, smooth", averages(0.01)),
    (MARINA(RAND, 0.01, 0.3), "MARINA, PL", course(1 - 0.01 * C.mu, GAP)),
    (EF21(Scaled(RAND), 0.01), "EF21, smooth", averages(0.01)),
    (EF21(Scaled(RAND), 0.01), "EF21, PL", course(1 - 0.01 * C.mu, GAP)),
    (GDCI(RandK(D, 5), LARGE), "GDCI", whole(LARGE)),
    (DistributedGDCI(PERM, 0.5 / C.L, 0.2), "distributed GDCI", mixed(0.5 / C.L, 0.2)),
    (ProxSkip(0.05, 0.9), "ProxSkip", course(1 - 0.05 * C.mu_min, DISTANCE + (0.05 / 0.9) ** 2 * C.zeta2)),
    (ProxSkip(0.05, 0.01), "ProxSkip", course(1 - 0.01**2, DISTANCE + (0.05 / 0.01) ** 2 * C.zeta2)),
    (BlockCoordinateDescent(K, 0.05), "block descent", course(1 - K / D * C.mu * 0.05 * (2 - 0.05 * S), GAP)),
]  # fmt: skip


@pytest.mark.parametrize(("method", "name", "values"), COURSES, ids=[f"{n}: {m}"[:60] for m, n, _ in COURSES])
def test_the_course_that_is_proved(method, name, values):
    found = {bound.name: bound for bound in bounds(method, SETTING)}
    np.testing.assert_allclose(found[name].values, values, rtol=1e-9)


OWN_ENDS = [
    (GradientDescent(2 / (C.L + C.mu)), "gradient descent"),
    (DCGD(RAND, 1 / (C.L + 2 * A * C.L_max)), "DCGD"),
    (DIANA(RAND, 1 / ((1 + 6 * A) * C.L_max)), "DIANA"),
    (MARINA(RAND, 1 / (C.L + math.sqrt(v(A, 0) * 0.7 / 0.3)), 0.3), "MARINA, smooth"),
    (EF21(Scaled(RAND), 1 / (C.L + C.L_tilde * ROOT / THETA)), "EF21, smooth"),
    (GDCI(RandK(D, D), 2 / (C.L + C.mu)), "GDCI"),
    (DistributedGDCI(PermK(1, D), 2 / (constants(random_quadratic(1, D, 10.0, 0.7, 4)).L +
                                       constants(random_quadratic(1, D, 10.0, 0.7, 4)).mu), 0.5), "distributed GDCI"),
    (ProxSkip(1 / C.L_max, 0.5), "ProxSkip"),
    (BlockCoordinateDescent(K, 2 / S), "block descent"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "name"), OWN_ENDS, ids=[name for _, name in OWN_ENDS])
def test_a_bound_applies_up_to_its_step_and_no_further(method, name):
    setting = Setting(random_quadratic(1, D, 10.0, 0.7, 4), X0, ROUNDS) if "distributed" in name else SETTING
    for share, applies in ((0.999, True), (1.0, True), (1.001, False)):
        found = {bound.name: bound for bound in bounds(replace(method, stepsize=share * method.stepsize), setting)}
        assert found[name].applies is applies


def test_models_and_shifts_have_conditions_besides_the_step():
    def applies(method):
        return bounds(method, SETTING)[0].applies

    rate = 1 / (1 + OMEGA)
    assert [applies(DIANA(RAND, 1e-3, rate * share)) for share in (0.1, 1.0, 1.001)] == [True, True, False]
    right = (1 - math.sqrt(SMALL * C.mu)) / (1 + math.sqrt(SMALL * C.mu))
    assert [applies(AcceleratedGradientDescent(SMALL, beta)) for beta in (right, right + 1e-6)] == [True, False]
    assert not applies(GDCI(RandK(D, 1), LARGE))  # r (1 + 2 omega) above 1: no contraction
    assert np.isinf(bounds(GDCI(RandK(D, 1), LARGE), SETTING)[0].values).all()
    assert not applies(DistributedGDCI(RandK(D, 1), SMALL, 1.0))


def test_anchors_have_their_theorem_in_its_plain_form_only():
    method = AnchoredIST(Permutation(N, D), 1e-4, 3)
    said = {}
    for name, one in (("plain", method), ("steps", replace(method, local_steps=2)),
                      ("momentum", replace(method, momentum=0.5))):  # fmt: skip
        said[name] = {bound.name: bound for bound in bounds(one, SETTING)}["anchored IST, from anchor to anchor"]
    assert {name: bound.applies for name, bound in said.items()} == {"plain": True, "steps": False, "momentum": False}
    values = said["plain"].values
    assert values[0] == pytest.approx(GAP)
    assert np.isinf(values[[1, 2, 4]]).all()
    assert 0 < values[3] < GAP
