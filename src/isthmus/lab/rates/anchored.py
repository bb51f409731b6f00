"""Rates of anchored IST: a theorem in the problem's constants, the exact asymptotic factor, and the step-size rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from isthmus.errors import InvalidInput, check_integer
from isthmus.lab.arrays import Array, or_infinite, overflowing
from isthmus.lab.bounds import Assumption, Bound
from isthmus.lab.definite import inverse, is_definite
from isthmus.lab.methods import AnchoredIST
from isthmus.lab.methods.ist import check_fits
from isthmus.lab.problems import exact
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.rates.anchored_dynamics import anchored_dynamics, lifted_round, renewed
from isthmus.lab.rates.base import Setting, bounds, largest_stepsize
from isthmus.lab.rates.gradients import best_momentum_of
from isthmus.lab.sketches import Permutation, Sketch
from isthmus.lab.theory.moments import Moments
from isthmus.lab.theory.powers import repeated
from isthmus.lab.theory.rate import SecondMomentMap, second_moment_map
from isthmus.lab.theory.spectrum import Radius
from isthmus.lab.theory.stepsizes import contraction_limit
from isthmus.lab.theory.update import sketched_matrix_update

_EXACT_UP_TO = 100  # dimension up to which a bound is the exact course ...
_EXACT_ROUNDS = 300  # ... and how far it follows it
_BISECTIONS = 50


@dataclass(frozen=True, eq=False)
class Surrogate:
    """What anchored IST minimises between two anchors, f(y) + grad f(y)'w + w'Pw/2 with P = E[B], and its constants.

    Attributes:
        matrix: P = E[(1/n) sum_i C_i L_i C_i], [d, d].
        theta: the smallest with E[B P B] <= theta P^2; gamma <= 1/theta is what the theorem asks for.
        mu: lambda_min(P).
        largest: lambda_max(P).
        ratios: eigenvalues of P^{-1} Lbar, ascending: all at most 1 where P >= Lbar, as for the unbiased sketch.
    """

    matrix: Array
    theta: float
    mu: float
    largest: float
    ratios: Array


@overflowing
def surrogate(problem: Quadratic, sketch: Sketch) -> Surrogate:
    """Return P and its constants.

    Raises:
        InvalidInput: a sketch whose masks' law is not known, or a P that is singular.
    """
    check_fits(problem, sketch)
    small, c = problem.in_unit_scale  # E[B P B] has three factors of f
    update = sketched_matrix_update(small, sketch)
    if update is None:
        raise InvalidInput("`sketch` must have masks with a known law, got one known by its samples only")
    moments = Moments(update)
    P = moments.mean_matrix
    if not is_definite(P):
        raise InvalidInput(
            f"`sketch` must give a positive definite E[B], got smallest eigenvalue {c * linalg.eigvalsh(P)[0]:.3g}"
        )
    inverted = inverse(P)
    theta = linalg.eigvalsh(inverted @ moments.sandwich(P) @ inverted)[-1]
    ratios = linalg.eigvalsh(small.mean_matrix, P)
    mu, largest = 1.0 / linalg.eigvalsh(inverted)[-1], linalg.eigvalsh(P)[-1]
    return Surrogate(P * c, float(theta) * c, float(mu) * c, float(largest) * c, np.asarray(ratios))


def anchored_factor(problem: Quadratic, found: Surrogate, stepsize: float, period: int) -> float:
    """Return q with E f(y+) - f* <= q (f(y) - f*) from one anchor y to the next, m rounds of one local step later.

        q = |I - Lbar^{1/2} N Lbar^{1/2}|^2 + R theta L gamma^2 sum_{k<m} (1 - gamma mu_P)^{m-1-k} a_k^2,
        N = (I - (I - gamma P)^m) P^{-1},  R = lambda_max(P^{-1} Lbar),  a_k = 1 - (1 - gamma lambda_max(P))^k,

    for gamma <= 1/theta: the squared rate of the mean, and the variance that m rounds gather. With m = 1 it is gradient
    descent's. The proof is in ``docs/anchored.md``.
    """
    rounds = np.arange(period)
    with np.errstate(over="ignore", invalid="ignore"):
        seen = 1.0 - (1.0 - stepsize * found.largest) ** rounds
        gathered = float(((1.0 - stepsize * found.mu) ** rounds[::-1] * seen**2).sum())
    L = float(problem.spectrum[-1])
    noise = float(found.ratios[-1]) * (found.theta * stepsize) * (L * stepsize) * gathered
    mean = _mean_factor(problem, found, stepsize, period)
    return float(or_infinite(mean * mean + noise))


def _moved(problem: Quadratic, found: Surrogate, stepsize: float, period: float, local_steps: int = 1) -> Array:
    """Eigenvalues of N Lbar, ascending; for a period that is a probability N is the mean over its length."""
    values, vectors = linalg.eigh(found.matrix)
    left = (1.0 - stepsize * values) ** local_steps
    chance = period if isinstance(period, float) else None
    gone = 1.0 - left**period if chance is None else (1.0 - left) / (1.0 - (1.0 - chance) * left)
    N = (vectors * (gone / values)) @ vectors.T
    if not np.isfinite(N).all():
        return np.full(problem.dim, np.inf)
    scale, turned = linalg.eigh(problem.mean_matrix)
    root = turned * np.sqrt(np.maximum(scale, 0.0))
    return np.asarray(linalg.eigvalsh(root.T @ N @ root))


def _mean_factor(problem: Quadratic, found: Surrogate, stepsize: float, period: int) -> float:
    return float(np.abs(1.0 - _moved(problem, found, stepsize, period)).max())


def best_scale(workers: int, problem: Quadratic) -> float:
    """Return the scale s of the permutation sketch whose surrogate is closest to f: s^2/n = (a + b)/2.

    With the bias gone the scale is free. P = (s^2/n) G, G = (1 - rho) Dbar + rho Lbar, rho = (q-1)/(d-1), so exact
    minimisation between anchors contracts the error by (b - a)/(b + a), a and b the ends of the spectrum of
    G^{-1} Lbar. The unbiased s = n makes P >= Lbar: safe, and about n times too steep.

    Raises:
        InvalidInput: fewer workers than one, or a G that is singular.
    """
    check_integer("workers", workers, at_least=1)
    plain = surrogate(problem, Permutation(workers, problem.dim, scale=float(np.sqrt(workers))))
    return float(np.sqrt(workers * 0.5 * (plain.ratios[0] + plain.ratios[-1])))


@overflowing
def best_momentum(problem: Quadratic, method: AnchoredIST) -> float:
    """Return Nesterov's momentum from anchor to anchor: (1 - sqrt(a))/(1 + sqrt(a)), a = lambda_min(N Lbar).

    With steps as the rule gives them lambda_max(N Lbar) <= 1, so 1/a is the condition number of f preconditioned by N.
    That the noise keeps up is to be checked by :func:`asymptotic_factor`.

    Raises:
        InvalidInput: a sketch whose masks' law is not known, or an E[B] that is singular.
    """
    smallest = _moved(problem, surrogate(problem, method.sketch), method.stepsize, method.period, method.local_steps)[0]
    return best_momentum_of(float(smallest))


@overflowing
def asymptotic_factor(problem: Quadratic, method: AnchoredIST) -> Radius:
    """Return the factor by which E f - f* shrinks a round in the long run; at least 1 where it does not converge.

    The spectral radius of a period's map of the lifted state's second moments, to the power 1/m for a fixed period m;
    its ``error`` says how accurate it is.

    Raises:
        InvalidInput: moments that are known neither in closed form nor by enumeration, or a period of more than
            1,000 rounds where d > 12.

    >>> problem = Quadratic([[[1.0]]], [[1.0]])  # one worker that holds everything: Nesterov's iteration
    >>> round(asymptotic_factor(problem, AnchoredIST(Permutation(1, 1), 0.1, 1, momentum=0.8)), 9)
    0.72
    """
    return second_moment_map(method, problem).radius


@second_moment_map.register
def _(method: AnchoredIST, problem: Quadratic) -> SecondMomentMap:
    step, d = lifted_round(problem, method), problem.dim
    rounds = method.period if isinstance(method.period, int) else 1
    steps = repeated(lambda S: _flat(step.second(_blocks(S))), 3 * d, rounds, "method.period")

    def period(S: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return _flat(renewed(method, rounds, np.zeros((3, d)), _blocks(steps(S)))[1])

    return SecondMomentMap(period, 3 * d, rounds)


def _blocks(S: Array) -> Array:
    """[3 d, 3 d] as [3, 3, d, d]."""
    d = len(S) // 3
    return S.reshape(3, d, 3, d).transpose(0, 2, 1, 3)


def _flat(M: Array) -> Array:
    """[3, 3, d, d] as [3 d, 3 d]."""
    d = M.shape[-1]
    return M.transpose(0, 2, 1, 3).reshape(3 * d, 3 * d)


@largest_stepsize.register
def _(method: AnchoredIST, setting: Setting) -> float:
    """Half the contraction limit, and no more than makes lambda_max(N Lbar) = 1: between anchors nothing overshoots."""
    problem = exact(setting.problem)
    if not isinstance(problem, Quadratic):
        return float("nan")
    limit = 0.5 * contraction_limit(problem, method.sketch)
    if problem.singular or sketched_matrix_update(problem, method.sketch) is None:
        return limit
    found = surrogate(problem, method.sketch)

    def overshoots(step: float) -> bool:
        return bool(_moved(problem, found, step, method.period, method.local_steps)[-1] > 1.0)

    if not overshoots(limit):
        return limit
    low, high = 0.0, limit
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if overshoots(middle) else (middle, high)
    return low


@bounds.register
def _(method: AnchoredIST, setting: Setting) -> tuple[Bound, ...]:
    """The exact course where d is small, and the theorem's factor from anchor to anchor."""
    problem = exact(setting.problem)
    if not isinstance(problem, Quadratic) or sketched_matrix_update(problem, method.sketch) is None:
        return ()
    result = []
    if problem.dim <= _EXACT_UP_TO and method.local_steps == 1:
        gap = np.full(setting.rounds + 1, np.inf)
        known = anchored_dynamics(problem, method, setting.x0, min(setting.rounds, _EXACT_ROUNDS)).gap
        gap[: len(known)] = known
        full = (setting.full_gradients,)
        result.append(Bound("anchored IST, exact", "gap", gap, "tight", full, "moments of the lifted state"))
    if isinstance(method.period, int) and not problem.singular:
        result.append(_theorem(method, problem, setting))
    return tuple(result)


def _theorem(method: AnchoredIST, problem: Quadratic, setting: Setting) -> Bound:
    found = surrogate(problem, method.sketch)
    assert isinstance(method.period, int)
    factor = anchored_factor(problem, found, method.stepsize, method.period)
    plain = method.local_steps == 1 and method.momentum == 0.0
    assumptions = (
        setting.full_gradients,
        setting.step_within(method.stepsize, 1.0 / found.theta),
        Assumption("plain form", plain, method.local_steps, f"T = {method.local_steps}, beta = {method.momentum:g}"),
    )
    k = np.arange(setting.rounds + 1)
    at_anchors = k % method.period == 0
    values = np.where(at_anchors, or_infinite(factor ** (k // method.period) * setting.gap), np.inf)
    return Bound("anchored IST, from anchor to anchor", "gap", values, "upper", assumptions, "docs/anchored.md")
