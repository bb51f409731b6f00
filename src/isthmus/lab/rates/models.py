"""Rates of the methods that send or sketch models: GDCI, local methods, IST."""

from __future__ import annotations

import numpy as np

from isthmus.lab.arrays import Array, or_infinite
from isthmus.lab.bounds import Assumption, Bound
from isthmus.lab.compressors import require_unbiased
from isthmus.lab.methods import GDCI, IST, DistributedGDCI, LocalGradientDescent, ProxSkip
from isthmus.lab.methods.local_steps import local_gains
from isthmus.lab.problems import exact
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.rates.base import Setting, bounds, largest_stepsize, step_of
from isthmus.lab.theory import mean_trajectory, theorem1
from isthmus.lab.theory.dynamics import round_moments
from isthmus.lab.theory.stepsizes import contraction_limit


@largest_stepsize.register
def _(method: GDCI, setting: Setting) -> float:
    return step_of(2.0, setting.constants.L + setting.constants.mu)


@bounds.register
def _(method: GDCI, setting: Setting) -> tuple[Bound, ...]:
    c, gamma, omega = setting.constants, method.stepsize, require_unbiased(method.compressor)
    r = _squared(max(abs(1.0 - gamma * c.mu), abs(1.0 - gamma * c.L)))
    factor = r * (1.0 + 2.0 * omega)
    level = 2.0 * omega * r * c.norm2 / (1.0 - factor) if factor < 1 else np.inf
    assumptions = (
        setting.full_gradients,
        setting.step_within(gamma, largest_stepsize(method, setting)),
        _contracts(factor, "r (1 + 2 omega)"),
    )
    values = setting.geometric(factor, setting.distance, level)
    reference = "elementary; compare Khaled, Richtarik (arXiv 1909.04716)"
    return (Bound("GDCI", "distance", values, "upper", assumptions, reference),)


@largest_stepsize.register
def _(method: DistributedGDCI, setting: Setting) -> float:
    return step_of(1.0, setting.constants.L_max)


@bounds.register
def _(method: DistributedGDCI, setting: Setting) -> tuple[Bound, ...]:
    """|mean part| <= (1 - eta + eta sqrt(r)) |e|, E|noise|^2 <= 2 eta^2 A (r_i |e|^2 + |x*|^2 + gamma^2 zeta^2)."""
    c, gamma, eta = setting.constants, method.stepsize, method.mixing
    A, _ = method.compressor.joint_constants(setting.n)
    root = max(abs(1.0 - gamma * c.mu), abs(1.0 - gamma * c.L))
    each = _squared(max(abs(1.0 - gamma * c.mu_min), abs(1.0 - gamma * c.L_max)))
    factor = _squared(1.0 - eta + eta * root) + 2.0 * eta**2 * A * each
    level = 2.0 * eta**2 * A * (c.norm2 + _squared(gamma * c.zeta)) / (1.0 - factor) if factor < 1 else np.inf
    assumptions = (
        setting.full_gradients,
        setting.step_within(gamma, step_of(2.0, c.L + c.mu)),
        _contracts(factor, "(1 - eta + eta sqrt(r))^2 + 2 eta^2 A r_i"),
    )
    values = setting.geometric(factor, setting.distance, level)
    reference = "elementary; compare Shulgin, Richtarik (arXiv 2206.10452)"
    return (Bound("distributed GDCI", "distance", values, "upper", assumptions, reference),)


@largest_stepsize.register
def _(method: LocalGradientDescent, setting: Setting) -> float:
    return step_of(1.0, setting.constants.L_max)


@bounds.register
def _(method: LocalGradientDescent, setting: Setting) -> tuple[Bound, ...]:
    """On quadratics exact: x^k = x_inf + (I - mean A_i)^k (x^0 - x_inf), A_i = I - (I - gamma L_i)^H."""
    problem = exact(setting.problem)
    if not isinstance(problem, Quadratic):
        return ()
    everyone = method.participants in (None, problem.workers)
    said = "all workers take part" if everyone else "some workers sit out"
    here = Assumption("full participation", everyone, float(everyone), said)
    keep, shift = _local_round(problem, method)
    x, gaps = setting.x0, []
    for _ in range(setting.rounds + 1):
        gaps.append(float(problem.gap(x)))
        x = keep @ x + shift
    assumptions = (setting.full_gradients, here)
    kind = "exact, from Khaled, Mishchenko, Richtarik (arXiv 1909.04715), section 2"
    return (Bound("local gradient descent", "gap", or_infinite(gaps), "tight", assumptions, kind),)


def local_fixed_point(problem: Quadratic, method: LocalGradientDescent) -> Array:
    """Return the limit (sum A_i)^{-1} sum A_i L_i^{-1} b_i, A_i = I - (I - gamma L_i)^H, of local gradient descent."""
    keep, shift = _local_round(problem, method)
    return np.asarray(np.linalg.solve(np.eye(problem.dim) - keep, shift))


def _local_round(problem: Quadratic, method: LocalGradientDescent) -> tuple[Array, Array]:
    """(M, v) of one round x+ = M x + v, by the eigenvectors of every L_i."""
    values, vectors = np.linalg.eigh(problem.L)
    decay, gain = local_gains(np.maximum(values, 0.0), method.stepsize, method.local_steps)
    turned = np.swapaxes(vectors, 1, 2)
    keep = (vectors * decay[:, None, :]) @ turned
    shift = (vectors @ (gain[:, :, None] * (turned @ problem.b[:, :, None])))[:, :, 0]
    return np.asarray(keep.mean(axis=0)), np.asarray(shift.mean(axis=0))


@largest_stepsize.register
def _(method: ProxSkip, setting: Setting) -> float:
    return step_of(1.0, setting.constants.L_max)


@bounds.register
def _(method: ProxSkip, setting: Setting) -> tuple[Bound, ...]:
    c, gamma, p = setting.constants, method.stepsize, method.probability
    assumptions = (
        setting.full_gradients,
        setting.strongly_convex(c.mu_min, "the smallest mu_i"),
        setting.step_within(gamma, largest_stepsize(method, setting)),
    )
    start = setting.distance + _squared(gamma * c.zeta / p)
    factor = 1.0 - min(gamma * c.mu_min, p**2)
    reference = "Mishchenko et al. (arXiv 2202.09357), Theorem 3.6"
    return (Bound("ProxSkip", "distance", setting.geometric(factor, start), "upper", assumptions, reference),)


@largest_stepsize.register
def _(method: IST, setting: Setting) -> float:
    problem = exact(setting.problem)
    return 0.5 * contraction_limit(problem, method.sketch) if isinstance(problem, Quadratic) else float("nan")


@bounds.register
def _(method: IST, setting: Setting) -> tuple[Bound, ...]:
    """Theorem 1 where all b_i are 0; and, from below, the gap of the mean, which no average over seeds can beat."""
    problem = exact(setting.problem)
    if not isinstance(problem, Quadratic):
        return ()
    found = []
    if round_moments(problem, method) is not None:
        means = mean_trajectory(problem, method, setting.x0, setting.rounds)
        lower = or_infinite(problem.gap(means))
        reference = "Jensen's inequality with the exact mean"
        found.append(Bound("IST, gap of the mean", "gap", lower, "lower", (setting.full_gradients,), reference))
    if method.local_steps == 1 and method.merge == "gradient" and not problem.b.any():
        theorem = theorem1(problem, method.sketch)
        step = setting.step_within(method.stepsize, theorem.stepsize)
        values = setting.geometric(1.0 - method.stepsize * theorem.rate, setting.gap)
        assumptions = (setting.full_gradients, *theorem.assumptions, step)
        found.append(Bound("IST, theorem 1", "gap", values, "upper", assumptions, "arXiv 2306.16484, (16)"))
    return tuple(found)


def _squared(number: float) -> float:
    return number * number  # a power raises an error where it overflows, a product does not


def _contracts(factor: float, name: str) -> Assumption:
    sign = "<" if factor < 1 else ">="
    return Assumption("contraction", factor < 1, factor, f"{name} = {factor:.4g} {sign} 1")
