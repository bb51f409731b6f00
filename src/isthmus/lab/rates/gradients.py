"""Rates of the methods that send gradients: plain, compressed, by blocks, with learned shifts."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from isthmus.lab.bounds import Assumption, Bound
from isthmus.lab.compressors import PermK, require_unbiased
from isthmus.lab.methods import (
    DCGD,
    DIANA,
    AcceleratedGradientDescent,
    BlockCoordinateDescent,
    BlockGradientIST,
    GradientDescent,
)
from isthmus.lab.problems import exact
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.rates.base import Setting, bounds, largest_stepsize, step_of
from isthmus.lab.sketches import Permutation, Sketch

_AGREE = 1e-10


@largest_stepsize.register
def _(method: GradientDescent, setting: Setting) -> float:
    return step_of(1.0, setting.constants.L)


@bounds.register
def _(method: GradientDescent, setting: Setting) -> tuple[Bound, ...]:
    c, gamma = setting.constants, method.stepsize
    factor = max(abs(1.0 - gamma * c.mu), abs(1.0 - gamma * c.L))
    assumptions = (
        setting.full_gradients,
        setting.strongly_convex(c.mu),
        setting.step_within(gamma, step_of(2.0, c.L + c.mu)),
    )
    values = setting.geometric(factor * factor, setting.distance)
    return (Bound("gradient descent", "distance", values, "upper", assumptions, "Nesterov (2004), Theorem 2.1.15"),)


@largest_stepsize.register
def _(method: AcceleratedGradientDescent, setting: Setting) -> float:
    return step_of(1.0, setting.constants.L)


@bounds.register
def _(method: AcceleratedGradientDescent, setting: Setting) -> tuple[Bound, ...]:
    c, gamma = setting.constants, method.stepsize
    momentum = best_momentum_of(gamma * c.mu)
    near = abs(method.momentum - momentum) <= 1e-9
    assumptions = (
        setting.full_gradients,
        setting.strongly_convex(c.mu),
        setting.step_within(gamma, step_of(1.0, c.L)),
        Assumption("momentum", near, momentum, f"beta = {method.momentum:.4g}, the theorem's is {momentum:.4g}"),
    )
    start = setting.gap + (0.5 * c.mu * setting.distance if c.mu > 0 else 0.0)
    values = setting.geometric(1.0 - np.sqrt(min(gamma * c.mu, 1.0)), start)
    reference = "Nesterov (2004), Theorem 2.2.3"
    return (Bound("accelerated gradient descent", "gap", values, "upper", assumptions, reference),)


def best_momentum_of(inverse_condition: float) -> float:
    """Return Nesterov's momentum (1 - sqrt(a))/(1 + sqrt(a)) for a = gamma mu; 0 where a is 0.

    >>> best_momentum_of(0.25)
    0.3333333333333333
    """
    root = float(np.sqrt(np.clip(inverse_condition, 0.0, 1.0)))
    return (1.0 - root) / (1.0 + root) if root > 0 else 0.0


@largest_stepsize.register
def _(method: DCGD, setting: Setting) -> float:
    return _dcgd_limit(method.compressor.joint_constants(setting.n), setting)


@bounds.register
def _(method: DCGD, setting: Setting) -> tuple[Bound, ...]:
    return _dcgd_bound("DCGD", method.compressor.joint_constants(setting.n), method.stepsize, setting)


@largest_stepsize.register
def _(method: BlockGradientIST, setting: Setting) -> float:
    return _dcgd_limit(sketch_constants(method.sketch), setting)


@bounds.register
def _(method: BlockGradientIST, setting: Setting) -> tuple[Bound, ...]:
    return _dcgd_bound("block-gradient IST", sketch_constants(method.sketch), method.stepsize, setting)


def sketch_constants(sketch: Sketch) -> tuple[float, float]:
    """Return (A, B) of an unbiased sketch used as a compressor; nan where they are not known.

    Independent masks: A = omega/n with omega = max over units of E[C_jj^2] - 1.
    """
    masks = sketch.masks
    if masks is None or not sketch.unbiased:
        return float("nan"), float("nan")
    if isinstance(sketch, Permutation):
        return PermK(sketch.workers, sketch.dim).joint_constants(sketch.workers)
    if masks.certain:
        return 0.0, 0.0
    if masks.between is not None:
        return float("nan"), float("nan")
    squares = [np.max(np.square(sketch.worker_weights(i)) * masks.held(i)) for i in range(sketch.workers)]
    return (float(max(squares)) - 1.0) / sketch.workers, 0.0


def _dcgd_limit(joint: tuple[float, float], setting: Setting) -> float:
    """1/((1 - B) L + 2 A L_max); 1/((1 - B) L + A L_max) where all grad f_i(x*) are 0."""
    A, B = joint
    c = setting.constants
    factor = 1.0 if _agree(setting) else 2.0
    return step_of(1.0, (1.0 - B) * c.L + factor * A * c.L_max)


def _dcgd_bound(name: str, joint: tuple[float, float], stepsize: float, setting: Setting) -> tuple[Bound, ...]:
    c = setting.constants
    level = 0.0 if _agree(setting) or c.mu == 0 else 2.0 * joint[0] * (stepsize * c.zeta) * (c.zeta / c.mu)
    assumptions = (
        setting.full_gradients,
        setting.strongly_convex(c.mu),
        setting.step_within(stepsize, _dcgd_limit(joint, setting)),
    )
    values = setting.geometric(1.0 - stepsize * c.mu, setting.distance, level)
    reference = "Gorbunov, Hanzely, Richtarik (arXiv 1905.11261); with A, B of arXiv 2110.03300 for joint compressors"
    return (Bound(name, "distance", values, "upper", assumptions, reference),)


def _agree(setting: Setting) -> bool:
    return setting.constants.zeta <= _AGREE * setting.constants.L_max * setting.constants.norm


@largest_stepsize.register
def _(method: DIANA, setting: Setting) -> float:
    A, _ = method.compressor.joint_constants(setting.n)
    return step_of(1.0, (1.0 + 6.0 * A) * setting.constants.L_max)


@bounds.register
def _(method: DIANA, setting: Setting) -> tuple[Bound, ...]:
    c, gamma = setting.constants, method.stepsize
    assert method.shift_rate is not None
    rate, limit = method.shift_rate, 1.0 / (1.0 + require_unbiased(method.compressor))
    A, _ = method.compressor.joint_constants(setting.n)
    holds = 0.0 < rate <= limit * (1 + 1e-9)
    assumptions = (
        setting.full_gradients,
        setting.strongly_convex(c.mu),
        setting.step_within(gamma, largest_stepsize(method, setting)),
        Assumption("shift rate", holds, limit, f"alpha = {rate:.4g}, the limit is 1/(1 + omega) = {limit:.4g}"),
    )
    gained = gamma * c.zeta
    start = setting.distance + (4.0 * A / rate * (gained * gained) if rate > 0 else np.inf)
    factor = max(1.0 - gamma * c.mu, 1.0 - rate / 2.0)
    reference = "Horvath et al. (arXiv 1904.05115); Gorbunov, Hanzely, Richtarik (arXiv 1905.11261)"
    return (Bound("DIANA", "distance", setting.geometric(factor, start), "upper", assumptions, reference),)


@largest_stepsize.register
def _(method: BlockCoordinateDescent, setting: Setting) -> float:
    problem = exact(setting.problem)
    return step_of(1.0, _block_smoothness(problem, method.size)) if isinstance(problem, Quadratic) else float("nan")


@bounds.register
def _(method: BlockCoordinateDescent, setting: Setting) -> tuple[Bound, ...]:
    problem, c, gamma = exact(setting.problem), setting.constants, method.stepsize
    if not isinstance(problem, Quadratic):
        return ()
    smooth = _block_smoothness(problem, method.size)
    within = setting.step_within(gamma, step_of(2.0, smooth))
    assumptions = (setting.full_gradients, setting.strongly_convex(c.mu), within)
    factor = 1.0 - method.size / problem.dim * c.mu * gamma * (2.0 - gamma * smooth)
    reference = "Richtarik, Takac (2014), with the expected separable overapproximation computed exactly"
    return (Bound("block descent", "gap", setting.geometric(factor, setting.gap), "upper", assumptions, reference),)


def _block_smoothness(problem: Quadratic, size: int) -> float:
    """lambda_max of (d/K) E[P Lbar P] = (1 - r) Dbar + r Lbar, r = (K-1)/(d-1), P the mask of a random K-subset."""
    Lbar, d = problem.mean_matrix, problem.dim
    r = (size - 1) / max(d - 1, 1)
    return float(linalg.eigvalsh((1.0 - r) * np.diag(np.diagonal(Lbar)) + r * Lbar)[-1])
