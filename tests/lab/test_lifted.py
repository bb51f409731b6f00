"""Every linear method's exact moments against all outcomes of what it draws, and the laws they must obey."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cases import linear
from cases.lab import random_quadratic
from cases.linear import SIZES, Enumerated, outcomes, starts
from isthmus.errors import InvalidInput
from isthmus.lab import IST, GradientDescent, Identity, Permutation, Quadratic, simulate, theory
from isthmus.lab.compressors import (
    Compressor,
    Dithering,
    IdentityCompressor,
    Natural,
    Participation,
    PermK,
    RandK,
    Scaled,
    TopK,
    bernoulli_compressor,
)
from isthmus.lab.methods import (
    DCGD,
    DIANA,
    EF21,
    GDCI,
    MARINA,
    AcceleratedGradientDescent,
    AnchoredIST,
    Averaged,
    BlockCoordinateDescent,
    BlockGradientIST,
    DistributedGDCI,
    LocalGradientDescent,
    ProxSkip,
)

ROUNDS = 12
LAWS: dict[str, Callable[[int, int], Compressor]] = {
    "Rand-1": lambda n, d: RandK(d, 1),
    "Rand-2": lambda n, d: RandK(d, 2),
    "Perm-K": lambda n, d: PermK(n, d),
    "participation": lambda n, d: Participation(PermK(n, d), 0.6),
}
# name: (how the paper prints the round, the method with a compressor)
COMPRESSED: dict[str, tuple[linear.Round, Callable[[Compressor, float], Any]]] = {
    "DCGD": (linear.dcgd, lambda C, g: DCGD(C, g)),
    "DIANA": (linear.diana, lambda C, g: DIANA(C, g, 0.3 / (1.0 + C.omega))),
    "MARINA": (linear.marina, lambda C, g: MARINA(C, g, 0.3)),
    "EF21": (linear.ef21, lambda C, g: EF21(Scaled(C), g)),
    "distributed GDCI": (linear.distributed_gdci, lambda C, g: DistributedGDCI(C, g, 0.4)),
}


def cases(n: int, d: int, law: str) -> dict[str, tuple[linear.Round, Any, list[linear.Outcome]]]:
    """Every method with this compressor, a small step, and all outcomes of the compressor it uses."""
    found = {}
    for name, (round_, build) in COMPRESSED.items():
        method = build(LAWS[law](n, d), 0.01)
        found[name] = (round_, method, outcomes(method.compressor, n))
    alone = LAWS[law](1, d)  # one message for all
    found["GDCI"] = (linear.gdci, GDCI(alone, 0.01), outcomes(alone, 1))
    return found


def without_compressor(n: int, d: int) -> dict[str, tuple[linear.Round, Any, list[linear.Outcome]]]:
    """The methods that draw something else, or nothing."""
    nothing = [(1.0, np.ones((n, d)))]
    masks = [(p, c / d) for p, c in outcomes(RandK(d, 1), 1)]
    here = [(1.0 / n, n * np.outer(row, np.ones(d))) for row in np.eye(n)]
    return {
        "ProxSkip": (linear.proxskip, ProxSkip(0.02, 0.3), nothing),
        "local GD": (linear.local_gd, LocalGradientDescent(0.02, 3), nothing),
        "local GD, one worker a round": (linear.local_gd, LocalGradientDescent(0.02, 2, 1), here),
        "block descent": (linear.block_descent, BlockCoordinateDescent(1, 0.05), masks),
    }


def check_course_and_rate(problem: Quadratic, round_: linear.Round, method: Any, drawn: list[linear.Outcome]) -> None:
    x0 = np.linspace(-1.0, 2.0, problem.dim)
    twin = Enumerated(problem, method, round_, drawn)
    found = theory.dynamics(problem, method, x0, ROUNDS)
    assert (found.method, found.how) == ("exact", "lifted moments")
    np.testing.assert_allclose(found.gap, twin.gaps(starts(problem, method, x0), ROUNDS), rtol=1e-9)
    assert theory.asymptotic_rate(problem, method) == pytest.approx(twin.rate(), rel=1e-9)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("dim", "workers"), SIZES)
def test_gap_of_every_round_and_rate_against_enumeration(dim: int, workers: int, law: str) -> None:
    problem = random_quadratic(workers, dim, seed=3)
    for round_, method, drawn in cases(workers, dim, law).values():
        check_course_and_rate(problem, round_, method, drawn)


@pytest.mark.parametrize(("dim", "workers"), SIZES)
def test_methods_without_a_compressor_against_enumeration(dim: int, workers: int) -> None:
    problem = random_quadratic(workers, dim, seed=4)
    for round_, method, drawn in without_compressor(workers, dim).values():
        check_course_and_rate(problem, round_, method, drawn)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("dim", "workers"), SIZES)
def test_stable_steps_and_best_rates_against_enumeration(dim: int, workers: int, law: str) -> None:
    problem = random_quadratic(workers, dim, seed=5)
    every = {**cases(workers, dim, law), **(without_compressor(workers, dim) if law == "Perm-K" else {})}
    for name, (round_, method, drawn) in every.items():
        def rate(method: Any, round_: linear.Round = round_, drawn: list[linear.Outcome] = drawn) -> float:
            return Enumerated(problem, method, round_, drawn).rate()

        steps = theory.stable_stepsizes(problem, method)
        if steps.intervals:
            assert rate(replace(method, stepsize=steps.largest)) == pytest.approx(1.0, abs=1e-9), name
        best = theory.best_stepsize(problem, method, 1e-4, step_only=(dim, law) != (3, "Perm-K"))
        assert best.rate == pytest.approx(rate(best.method), rel=1e-9), name
        assert (best.rate < 1) == bool(steps.intervals), name


@pytest.mark.parametrize("name", ["DCGD", "DIANA", "MARINA", "distributed GDCI"])
def test_nothing_on_a_grid_beats_the_best_step(name: str) -> None:
    problem = random_quadratic(2, 3, seed=6)
    method = COMPRESSED[name][1](RandK(3, 1), 1.0)
    best = theory.best_stepsize(problem, method)
    steps = best.stepsize * np.concatenate([np.geomspace(0.02, 30.0, 25), [1 - 1e-5, 1 + 1e-5]])
    others = [{}]
    for field, value in best.others.items():
        others = [{field: v} for v in (value, value - 1e-5, value + 1e-5, *np.linspace(0.0, 1.0, 9)[1:])]
    rates = [theory.asymptotic_rate(problem, replace(best.method, stepsize=s, **o)) for s in steps for o in others]
    assert min(rates) >= best.rate * (1 - 1e-9)


def test_the_rate_of_a_method_without_chance_is_that_of_its_matrix() -> None:
    """Where two roots meet, ARPACK's residual on pairs of 120 numbers is small long before its value is right."""
    problem = random_quadratic(6, 60, seed=7)
    mu, L = problem.spectrum[[0, -1]]
    root = np.sqrt(3 * L / mu + 1)  # as below
    method = AcceleratedGradientDescent(4 / (3 * L + mu), (root - 2) / (root + 2))
    assert theory.asymptotic_rate(problem, method) == pytest.approx((1 - 2 / root) ** 2, rel=1e-7)


def test_best_steps_in_closed_form() -> None:
    problem = random_quadratic(3, 5, seed=7)
    mu, L = problem.spectrum[[0, -1]]
    plain = theory.best_stepsize(problem, GradientDescent(1.0))
    assert plain.stepsize == pytest.approx(2 / (L + mu), rel=1e-8)
    assert plain.rate == pytest.approx(((L - mu) / (L + mu)) ** 2, rel=1e-9)
    root = np.sqrt(3 * L / mu + 1)  # Lessard, Recht, Packard (2016), Proposition 1: Nesterov's method on quadratics
    fast = theory.best_stepsize(problem, AcceleratedGradientDescent(1.0, 0.0), accuracy=1e-6)
    assert fast.rate == pytest.approx((1 - 2 / root) ** 2, rel=1e-5)  # two roots meet there: half the digits
    assert fast.others["momentum"] == pytest.approx((root - 2) / (root + 2), rel=1e-4)
    alone = theory.best_stepsize(problem, AcceleratedGradientDescent(1.0, 0.0), step_only=True)
    assert alone.method.momentum == 0.0
    assert alone.rate == pytest.approx(plain.rate, rel=1e-9)
    single = Quadratic([[[4.0]]], [[1.0]])  # x - x* shrinks by 1 - 4 gamma c, c = 2 or 0: its square by 1/2 at best
    coin = theory.best_stepsize(single, DCGD(bernoulli_compressor(1, 0.5), 1.0))
    assert coin.stepsize == pytest.approx(0.5 / 4.0, rel=1e-8)
    assert coin.rate == pytest.approx(0.5, rel=1e-12)


def test_ist_of_single_units_is_linear_in_its_masks_and_has_the_same_course() -> None:
    """The moments of IST's own recursion against those of the lifted state where both apply."""
    n = d = 4
    problem = random_quadratic(n, d, seed=8)
    x0 = np.ones(d)
    diagonal = Quadratic([np.diag(np.diagonal(L)) for L in problem.L], problem.b)
    by_masks = theory.dynamics(diagonal, BlockGradientIST(Permutation(n, d, scale=1.0), 0.1), x0, 30)
    by_sketch = theory.dynamics(diagonal, IST(Permutation(n, d, scale=1.0), 0.1), x0, 30)
    np.testing.assert_allclose(by_masks.mean, by_sketch.mean, rtol=1e-11)
    np.testing.assert_allclose(by_masks.covariance, by_sketch.covariance, rtol=1e-9, atol=1e-15)
    whole, plain = IST(Identity(n, d), 0.1), GradientDescent(0.1)
    lifted = theory.lifted_round(problem, plain)
    assert lifted is not None
    assert theory.asymptotic_rate(problem, plain) == pytest.approx(theory.asymptotic_rate(problem, whole), rel=1e-11)


@pytest.mark.parametrize(
    "method",
    [
        DCGD(IdentityCompressor(4), 0.05),
        DIANA(IdentityCompressor(4), 0.05),
        MARINA(RandK(4, 2), 0.05, 1.0),
        EF21(IdentityCompressor(4), 0.05),
        GDCI(RandK(4, 4), 0.05),
        DistributedGDCI(bernoulli_compressor(4, 1.0), 0.05),
        LocalGradientDescent(0.05, 1, 3),
        ProxSkip(0.05, 1.0),
        BlockCoordinateDescent(4, 0.05),
        AcceleratedGradientDescent(0.05, 0.0),
        BlockGradientIST(Identity(3, 4), 0.05),
    ],
    ids=repr,
)
def test_degenerate_cases_have_gradient_descents_course(method: Any) -> None:
    problem = random_quadratic(3, 4, seed=9)
    one, other = (theory.dynamics(problem, m, np.ones(4), 40) for m in (method, GradientDescent(0.05)))
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-11)
    assert one.variance.max() <= 1e-20 * one.gap[0]


STATIONARY = ["DCGD", "distributed GDCI", "GDCI", "local GD, one worker a round"]


@pytest.mark.parametrize("name", STATIONARY)
def test_the_stationary_law_is_where_the_course_ends(name: str) -> None:
    n, d = 3, 6
    problem = random_quadratic(n, d, seed=10)
    every = {**cases(n, d, "Rand-2"), **without_compressor(n, d)}
    method = GDCI(RandK(d, 5), 0.1) if name == "GDCI" else every[name][1]
    method = replace(method, stepsize=theory.best_stepsize(problem, method, 1e-3, step_only=True).stepsize)
    settled = theory.stationary(problem, method)
    assert settled.exists, settled.why
    far = theory.dynamics(problem, method, np.ones(d), int(-50 / np.log(settled.radius)) + 1)
    assert far.gap[-1] == pytest.approx(settled.gap, rel=1e-7)
    np.testing.assert_allclose(far.covariance, settled.covariance, rtol=1e-6, atol=1e-9 * np.trace(settled.covariance))
    np.testing.assert_allclose(theory.fixed_point(problem, method), settled.mean, rtol=1e-9)


@pytest.mark.parametrize("name", ["DIANA", "MARINA", "EF21", "ProxSkip"])
def test_exact_methods_settle_at_the_minimiser_without_noise(name: str) -> None:
    problem = random_quadratic(3, 6, seed=11)
    method = {**cases(3, 6, "Perm-K"), **without_compressor(3, 6)}[name][1]
    settled = theory.stationary(problem, method)
    assert settled.exists
    np.testing.assert_allclose(settled.mean, problem.minimizer, rtol=1e-10)
    assert settled.variance == 0.0
    unstable = replace(method, stepsize=1.01 * theory.stable_stepsizes(problem, method).largest)
    assert not theory.stationary(problem, unstable).exists


def test_directions_nobody_sees_do_not_count_for_the_rate() -> None:
    """A direction that no worker's function sees, across the coordinates: x moves there, and nothing comes of it."""
    turned = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0][:, :3]
    small = random_quadratic(2, 3, seed=12, biased=False)
    problem = Quadratic(turned @ small.L @ turned.T, (turned @ small.b.T).T)
    for method in (DCGD(PermK(2, 4), 0.05), DIANA(RandK(4, 2), 0.02), MARINA(RandK(4, 2), 0.02, 0.4),
                   EF21(Scaled(RandK(4, 2)), 0.02), LocalGradientDescent(0.05, 2)):  # fmt: skip
        rate = theory.asymptotic_rate(problem, method)
        assert rate < 1
        course = theory.dynamics(problem, method, np.ones(4), 400).gap
        late = int(np.flatnonzero(course > 1e-11 * course[0])[-1])
        assert (course[late] / course[late // 2]) ** (1 / (late - late // 2)) == pytest.approx(rate, abs=0.01)
        assert "singular" in theory.stationary(problem, method).why
        assert 0.01 in theory.stable_stepsizes(problem, method)
    assert theory.asymptotic_rate(problem, GDCI(RandK(4, 3), 0.05)) > 1  # a compressed model is moved along it


def test_a_method_drawn_and_computed_agree() -> None:
    """Perm-K with partial participation, n not dividing d: what is simulated is what is computed."""
    problem = random_quadratic(3, 7, seed=13)
    for method in (DIANA(Participation(PermK(3, 7), 0.5), 0.01), EF21(Scaled(PermK(3, 7)), 0.01),
                   BlockGradientIST(Permutation(3, 7), 0.01), MARINA(PermK(9, 7), 0.01, 0.3)):  # fmt: skip
        plenty = random_quadratic(9, 7, seed=13) if isinstance(method, MARINA) else problem
        exact = theory.dynamics(plenty, method, np.ones(7), 6)
        drawn = simulate(plenty, method, np.ones(7), 6, 4000, seed=1)
        error = np.abs(drawn.mean_gap - exact.gap)[1:]
        assert (error <= 4.5 * drawn.standard_error[1:] + 1e-9 * exact.gap[0]).all()
        assert (error <= 0.1 * exact.gap[1:]).all()


def test_scales_of_function_and_step_do_not_matter() -> None:
    problem = random_quadratic(2, 4, seed=14)
    for scale in (1e-100, 1e-6, 1e100):
        other = Quadratic(scale * problem.L, scale * problem.b)
        for build in (lambda g: DIANA(RandK(4, 2), g, 0.3), lambda g: MARINA(PermK(2, 4), g, 0.3)):
            one, two = build(0.02), build(0.02 / scale)
            assert theory.asymptotic_rate(other, two) == pytest.approx(theory.asymptotic_rate(problem, one), rel=1e-9)
            first, second = (theory.dynamics(*pair, np.ones(4), 10).gap for pair in ((problem, one), (other, two)))
            np.testing.assert_allclose(second, scale * first, rtol=1e-10)


@pytest.mark.parametrize(
    "method",
    [EF21(TopK(4, 2), 0.01), DCGD(Natural(4), 0.01), DIANA(Dithering(4, 2), 0.01), GDCI(Natural(4), 0.01),
     Averaged(GradientDescent(0.01), 2)],
    ids=repr,
)  # fmt: skip
def test_methods_that_are_not_linear_are_simulated_and_say_so(method: Any) -> None:
    problem = random_quadratic(2, 4, seed=15)
    assert theory.dynamics(problem, method, np.ones(4), 3, seeds=5).method == "Monte Carlo"
    for ask in (theory.asymptotic_rate, theory.best_stepsize, theory.stationary, theory.stable_stepsizes):
        with pytest.raises(InvalidInput, match=r"`method` must (be linear given its draws|have exact moments)"):
            ask(problem, method)


def test_the_anchored_method_has_a_best_step_and_momentum() -> None:
    problem = random_quadratic(3, 3, seed=16)
    method = AnchoredIST(Permutation(3, 3), 1.0, 3)
    best = theory.best_stepsize(problem, method, accuracy=1e-3)
    for change in ({"stepsize": 0.97 * best.stepsize}, {"stepsize": 1.03 * best.stepsize}, {"momentum": 0.0}):
        assert theory.asymptotic_rate(problem, replace(best.method, **change)) > best.rate
    limit = theory.stable_stepsizes(problem, method).largest
    assert theory.asymptotic_rate(problem, replace(method, stepsize=limit)) == pytest.approx(1.0, abs=1e-8)
