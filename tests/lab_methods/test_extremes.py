"""Numbers at the ends of floating point: every method gets a result that says so or one clear line."""

import contextlib
import math
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from cases.methods import BUILDERS
from isthmus.errors import InvalidInput
from isthmus.lab import IST, AnchoredIST, GradientDescent, Permutation, Quadratic
from isthmus.lab.compare.roster import ROSTER, build_method
from isthmus.lab.compare.settings import Comparison
from isthmus.lab.compare.verdict import exact_end
from isthmus.lab.compressors import RandK
from isthmus.lab.methods import DCGD
from isthmus.lab.problems import random_quadratic
from isthmus.lab.rates import Setting, anchored_dynamics, bounds, largest_stepsize
from isthmus.lab.theory import asymptotic_rate, best_stepsize, dynamics, fixed_point, stable_stepsizes

BUILD = {
    **BUILDERS,
    "IST, local steps": lambda n, d: IST(Permutation(n, d), 1.0, 3),
    "IST, local steps without end": lambda n, d: IST(Permutation(n, d), 1.0, math.inf),
    "IST, models merged": lambda n, d: IST(Permutation(n, d), 1.0, merge="model"),
}
SCALES = [1e-300, 1e-200, 1.0, 1e200, 1e300]  # of f
DIM = 3
STEPS = [5e-324, 1e-300, 1e-200, 0.1, 1e200, 1e300]
OTHERS = {  # ends of the range of every other parameter
    "momentum": [0.0, 1e-300, 1.0 - 2.0**-53],
    "shift_rate": [1e-300, 2.0**-53, 1.0],
    "probability": [1e-300, 2.0**-53, 1.0],
    "mixing": [1e-300, 2.0**-53, 1.0],
    "period": [1e-300, 2.0**-53, 1.0 - 2.0**-53, 1, 7],
}


@cache
def setting(scale: float, start: float = 1.0, kind: str = "plain") -> Setting:
    plain = random_quadratic(2, DIM, 5.0, 0.5, 0)
    L, b = plain.L, plain.b
    if kind == "all agree":
        b = np.zeros_like(b)
    if kind == "nothing":
        L, b = np.zeros_like(L), np.zeros_like(b)
    if kind == "flat":
        L, b = np.array([np.diag(np.eye(DIM)[0])] * 2), np.array([np.eye(DIM)[0]] * 2)
    return Setting(Quadratic(L * scale, b * scale), np.full(DIM, start), 5)


def variants(name: str, scale: float, factors=(1e-200, 0.1, 1e200)):
    """The method at all steps, and at some, in units of 1/scale, the ends of its other parameters."""
    method = BUILD[name](2, DIM)
    yield from (replace(method, stepsize=step) for step in [*STEPS, 0.1 / scale])
    for parameter, values in OTHERS.items():
        if hasattr(method, parameter):
            for step in (factor / scale for factor in factors if 0 < factor / scale < math.inf):
                yield from (replace(method, stepsize=step, **{parameter: value}) for value in values)


def never_nan(*numbers) -> None:
    for number in numbers:
        assert not np.isnan(number).any(), number


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("name", BUILD)
def test_bounds_and_steps_of_every_method_at_the_ends(name):
    cases = [setting(scale, kind=kind) for scale in SCALES for kind in ("plain", "all agree", "flat")]
    for here in [*cases, setting(1.0, kind="nothing"), *(setting(1.0, start) for start in (1e-300, 1e200, 1e300))]:
        limit = largest_stepsize(BUILD[name](2, DIM), here)
        assert math.isnan(limit) or limit > 0
        for method in variants(name, float(here.problem.spectrum[-1]) or 1.0):
            for bound in bounds(method, here):
                never_nan(bound.values)


@pytest.mark.parametrize("name", BUILD)
def test_exact_results_of_every_method_at_the_ends(name):
    for scale in (1e-300, 1e300):
        here = setting(scale)
        for method in variants(name, scale, [0.1]):
            end = exact_end(here, method)
            assert end is None or end >= 0
            if isinstance(method, AnchoredIST):
                if method.local_steps == 1:
                    never_nan(anchored_dynamics(here.problem, method, here.x0, 3).gap)
                continue
            never_nan(dynamics(here.problem, method, here.x0, 3, seeds=2).gap)
            with contextlib.suppress(InvalidInput):  # those that are simulated
                fixed_point(here.problem, method)


@pytest.mark.parametrize("name", BUILD)
def test_steps_and_rates_go_with_the_scale_of_f(name):
    """f 10^300 times as large: the same method with a step 10^300 times as small."""
    method = replace(BUILD[name](2, DIM), stepsize=0.01)
    plain = setting(1.0)
    limit = largest_stepsize(method, plain)
    for scale in (1e-300, 1e-200, 0.01, 100.0, 1e200, 1e300):
        here = setting(scale)
        assert largest_stepsize(method, here) * scale == pytest.approx(limit, rel=1e-9, nan_ok=True)
        same = replace(method, stepsize=0.01 / scale)
        for bound, other in zip(bounds(same, here), bounds(method, plain), strict=True):
            unit = {"gap": scale, "distance": 1.0}.get(bound.measure)
            assert [one.holds for one in bound.assumptions] == [one.holds for one in other.assumptions]
            assert ["no linear rate" in one.why for one in bound.assumptions] == [
                "no linear rate" in one.why for one in other.assumptions
            ]
            for one, same_one in zip(bound.assumptions, other.assumptions, strict=True):
                size = {"step size": 1 / scale, "strong convexity": scale}.get(one.name)
                if size is not None:
                    assert one.number / size == pytest.approx(same_one.number, rel=1e-9, nan_ok=True)
            if unit is not None:
                np.testing.assert_allclose(bound.values / unit, other.values, rtol=1e-9)
        try:
            rate = asymptotic_rate(plain.problem, method)
        except InvalidInput:
            continue
        assert asymptotic_rate(here.problem, same) == pytest.approx(rate, rel=1e-9)


def test_what_overflows_is_infinite_and_does_not_apply():
    (wild,) = bounds(GradientDescent(1e200), setting(1.0))
    assert not wild.applies
    assert np.isinf(wild.values[1:]).all()
    assert dynamics(setting(1.0).problem, GradientDescent(1e200), np.ones(DIM), 3).gap[-1] == math.inf
    assert asymptotic_rate(setting(1.0).problem, GradientDescent(1e200)) == math.inf
    assert exact_end(setting(1.0), GradientDescent(1e200)) == math.inf
    assert setting(1.0, 1e200).gap == math.inf


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_workers_that_disagree_do_so_at_any_scale(scale):
    """The squares of their gradients underflow; the limit of DCGD is halved all the same."""
    method = DCGD(RandK(DIM, 1), 1.0)
    apart, agreed = setting(1.0), setting(1.0, kind="all agree")
    ratio = largest_stepsize(method, agreed) / largest_stepsize(method, apart)
    assert ratio > 1.3
    found = largest_stepsize(method, setting(scale, kind="all agree")) / largest_stepsize(method, setting(scale))
    assert found == pytest.approx(ratio, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_searches_go_with_the_scale_of_f(scale):
    for name in ("gradient descent", "DIANA, Perm-K"):
        method = BUILD[name](2, DIM)
        best, other = (best_stepsize(setting(s).problem, method, 1e-6, step_only=True) for s in (1.0, scale))
        assert other.rate == pytest.approx(best.rate, rel=1e-9)
        assert other.stepsize * scale == pytest.approx(best.stepsize, rel=1e-4)
        assert stable_stepsizes(setting(scale).problem, method).largest * scale == pytest.approx(
            stable_stepsizes(setting(1.0).problem, method).largest, rel=1e-6
        )


@pytest.mark.parametrize("name", ROSTER)
def test_what_is_compared_is_built_at_any_scale(name):
    plain, _ = build_method(name, setting(1.0), Comparison(), 1.0)
    for scale in (1e-300, 1e-200, 1e200, 1e300):
        method, _ = build_method(name, setting(scale), Comparison(), 1.0)
        assert method.stepsize * scale == pytest.approx(plain.stepsize, rel=1e-9)
