"""Rates of the methods that track the gradient with a biased estimate: MARINA and EF21."""

from __future__ import annotations

import numpy as np

from isthmus.lab.bounds import Bound
from isthmus.lab.compressors import require_contractive
from isthmus.lab.methods import EF21, MARINA
from isthmus.lab.rates.base import Setting, bounds, largest_stepsize, step_of


@largest_stepsize.register
def _(method: MARINA, setting: Setting) -> float:
    return _marina_limits(method, setting)[1 if setting.constants.mu > 0 else 0]


@bounds.register
def _(method: MARINA, setting: Setting) -> tuple[Bound, ...]:
    reference = "Gorbunov et al. (arXiv 2102.07845), Theorems 2.1, 2.2; with A, B Szlendak et al. (arXiv 2110.03300)"
    return _both("MARINA", method.stepsize, _marina_limits(method, setting), setting, reference)


def _marina_limits(method: MARINA, setting: Setting) -> tuple[float, float]:
    """1/(L + sqrt(((1-p)/p) V)), V = (A - B) L_plus^2 + B L_pm^2; with mu: a factor 2 under the root, and p/(2 mu)."""
    A, B = method.compressor.joint_constants(setting.n)
    c, p = setting.constants, method.probability
    alike = c.L_pm / c.L_plus if c.L_plus > 0 else 0.0  # squares of L would over- and underflow
    spread = c.L_plus * np.sqrt((1.0 - p) / p * max(A - B + B * alike * alike, 0.0))
    convex = step_of(1.0, c.L + np.sqrt(2.0) * spread)
    return step_of(1.0, c.L + spread), min(convex, step_of(p, 2.0 * c.mu))


@largest_stepsize.register
def _(method: EF21, setting: Setting) -> float:
    return _ef21_limits(method, setting)[1 if setting.constants.mu > 0 else 0]


@bounds.register
def _(method: EF21, setting: Setting) -> tuple[Bound, ...]:
    reference = "Richtarik, Sokolov, Fatkhullin (arXiv 2106.05203), Theorems 1, 2"
    return _both("EF21", method.stepsize, _ef21_limits(method, setting), setting, reference)


def _ef21_limits(method: EF21, setting: Setting) -> tuple[float, float]:
    alpha, c = require_contractive(method.compressor), setting.constants
    theta = 1.0 - np.sqrt(1.0 - alpha)
    ratio = (1.0 - alpha) / theta**2
    convex = step_of(1.0, c.L + c.L_tilde * np.sqrt(2.0 * ratio))
    return step_of(1.0, c.L + c.L_tilde * np.sqrt(ratio)), min(convex, step_of(theta, 2.0 * c.mu))


def _both(
    name: str, stepsize: float, limits: tuple[float, float], setting: Setting, reference: str
) -> tuple[Bound, ...]:
    """The average squared gradient without convexity, and the gap under the Polyak-Lojasiewicz inequality."""
    c = setting.constants
    smooth = (setting.full_gradients, setting.step_within(stepsize, limits[0]))
    convex = (setting.full_gradients, setting.strongly_convex(c.mu), setting.step_within(stepsize, limits[1]))
    average = setting.average(2.0 * setting.gap / stepsize)
    linear = setting.geometric(1.0 - stepsize * c.mu, setting.gap)
    return (
        Bound(f"{name}, smooth", "gradient", average, "upper", smooth, reference),
        Bound(f"{name}, PL", "gap", linear, "upper", convex, reference),
    )
