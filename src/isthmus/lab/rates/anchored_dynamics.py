"""The exact course of anchored IST: its lifted state (x, anchor, end of the last period) is linear."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from isthmus.errors import InvalidInput, check_integer
from isthmus.lab.arrays import Array, check_array, in_range, or_infinite, overflowing
from isthmus.lab.methods import AnchoredIST
from isthmus.lab.methods.ist import check_fits
from isthmus.lab.methods.local_steps import local_map
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.theory.dynamics import EXACT, Dynamics
from isthmus.lab.theory.moments import Moments
from isthmus.lab.theory.update import sketched_matrix_update
from isthmus.progress import progress

_MOST_NUMBERS = 20_000_000
_OUTCOMES = 20_000


@dataclass(frozen=True, eq=False)
class _ByMoments:
    """One local step: e+ = e - gamma (B w + Lbar u), w = e - u, through E[B] and E[B X B]."""

    moments: Moments
    Lbar: Array
    stepsize: float

    def mean(self, m: Array) -> Array:
        """The mean of (e, u, p) after the step; m [3, d]."""
        moved = self.moments.mean_matrix @ (m[0] - m[1]) + self.Lbar @ m[1]
        return np.stack([m[0] - self.stepsize * moved, m[1], m[2]])

    def second(self, M: Array) -> Array:
        """The second moments after the step; M [3, 3, d, d]."""
        gamma, Bm = self.stepsize, self.moments.mean_matrix
        M = 0.5 * (M + M.transpose(1, 0, 3, 2))  # rounding's asymmetry would grow: the formulas below rely on it
        away = M[0] - M[1]  # E[w z'] for z = e, u, p
        drift = M[0] - gamma * (self.Lbar @ M[1])  # E[v z'], v = e - gamma Lbar u
        v_v = drift[0] - gamma * drift[1] @ self.Lbar
        w_v = away[0] - gamma * away[1] @ self.Lbar
        w_w = away[0] - away[1]
        crossed = Bm @ w_v
        result = M.copy()
        result[0] = drift - gamma * (Bm @ away)
        result[1:, 0] = np.swapaxes(result[0, 1:], 1, 2)
        result[0, 0] = v_v - gamma * (crossed + crossed.T) + gamma * gamma * self.moments.sandwich(0.5 * (w_w + w_w.T))
        return result


@dataclass(frozen=True, eq=False)
class _ByOutcomes:
    """Any local steps: e+ = e + J w + K Lbar u, through every outcome (J, K Lbar - J) of the sketch."""

    probabilities: Array
    on_x: Array
    on_anchor: Array

    def mean(self, m: Array) -> Array:
        """The mean of (e, u, p) after the step."""
        on_x, on_anchor = (np.einsum("p,pab->ab", self.probabilities, part) for part in (self.on_x, self.on_anchor))
        return np.stack([on_x @ m[0] + on_anchor @ m[1], m[1], m[2]])

    def second(self, M: Array) -> Array:
        """The second moments after the step."""
        rows = self.on_x[:, None] @ M[0] + self.on_anchor[:, None] @ M[1]  # [P, 3, d, d]
        result = M.copy()
        result[0] = np.einsum("p,pzab->zab", self.probabilities, rows)
        result[1:, 0] = np.swapaxes(result[0, 1:], 1, 2)
        turned = rows[:, 0] @ self.on_x + rows[:, 1] @ np.swapaxes(self.on_anchor, 1, 2)  # J is symmetric
        result[0, 0] = np.einsum("p,pab->ab", self.probabilities, turned)
        return result


@overflowing
def anchored_dynamics(problem: Quadratic, method: AnchoredIST, x0: ArrayLike, rounds: int) -> Dynamics:
    """Return the exact course of anchored IST: mean, bias and variance of the gap, round by round.

    With e = x - x*, u = y - x*, p = x' - x* a round is (e, u, p) -> (e - gamma (B (e - u) + Lbar u), u, p), and a new
    anchor ((1 + beta) e - beta p, the same, e): linear with independent random matrices, so the first and second
    moments of the lifted state obey closed recursions. E[B] and E[B X B] are those of plain IST.

    One local step needs a sketch whose masks' law is known; more local steps one with few outcomes.

    Raises:
        InvalidInput: neither is the case, or wrong shapes.

    >>> from isthmus.lab import Permutation
    >>> problem = Quadratic([[[1.0, 0.0], [0.0, 1.0]]] * 2, [[1.0, 1.0]] * 2)
    >>> anchored_dynamics(problem, AnchoredIST(Permutation(2, 2), 0.5, 1), [0.0, 0.0], rounds=1).gap
    array([1.  , 0.25])
    """
    check_integer("rounds", rounds, at_least=0)
    start = check_array("x0", x0, problem.dim)
    mean = np.full((rounds + 1, problem.dim), np.inf)
    bias, variance = np.full(rounds + 1, np.inf), np.full(rounds + 1, np.inf)
    covariance = np.zeros((problem.dim, problem.dim))
    Lbar, minimizer = problem.mean_matrix, problem.minimizer
    with progress("exact dynamics", rounds) as advance:
        for k, (m, M) in enumerate(lifted_course(problem, method, start - minimizer, rounds)):
            mean[k] = minimizer + m[0]
            bias[k] = or_infinite(0.5 * (m[0] @ Lbar @ m[0]))
            covariance = M[0, 0] - np.outer(m[0], m[0])
            variance[k] = or_infinite(np.maximum(0.5 * np.vdot(Lbar, covariance), 0.0))
            advance(min(k, 1))
    return Dynamics(mean, bias, variance, EXACT, "lifted moments", np.zeros(rounds + 1), covariance)


def lifted_course(
    problem: Quadratic, method: AnchoredIST, error: Array, rounds: int
) -> Iterator[tuple[Array, Array]]:
    """Yield mean [3, d] and second moments [3, 3, d, d] of the lifted state from round 0 on, while they are finite."""
    round_of = lifted_round(problem, method)
    m = np.stack([error] * 3)
    M = np.einsum("ai,bj->abij", m, m)
    yield m, M
    for k in range(1, rounds + 1):
        with np.errstate(over="ignore", invalid="ignore"):
            m, M = renewed(method, k, round_of.mean(m), round_of.second(M))
        if not (np.isfinite(m).all() and np.isfinite(M[0, 0]).all()):
            return
        yield m, M


def lifted_round(problem: Quadratic, method: AnchoredIST) -> _ByMoments | _ByOutcomes:
    """Return the step of a round, without the renewal of the anchor.

    Raises:
        InvalidInput: its moments are known neither in closed form nor by enumeration.
    """
    check_fits(problem, method.sketch)
    problem, c = problem.in_unit_scale  # a round has gamma^2 and squares of L
    method = replace(method, stepsize=in_range(method.stepsize * c))
    update = sketched_matrix_update(problem, method.sketch)
    if method.local_steps == 1 and update is not None:
        return _ByMoments(Moments(update), problem.mean_matrix, method.stepsize)
    support = method.sketch.support(_OUTCOMES)
    if len(support.probabilities) * problem.dim**2 > _MOST_NUMBERS:
        raise InvalidInput("`method` must have few enough outcomes to enumerate, got too many for this dimension")
    return _enumerated(problem, method, support.probabilities, support.diagonals)


def renewed(method: AnchoredIST, k: int, m: Array, M: Array) -> tuple[Array, Array]:
    """Return the moments after round k's possible renewal of the anchor."""
    chance = method.period if isinstance(method.period, float) else float(k % method.period == 0)
    if chance == 0.0:
        return m, M
    R = np.array([[1.0 + method.momentum, 0.0, -method.momentum]] * 2 + [[1.0, 0.0, 0.0]])
    turned = np.einsum("ac,bd,cdij->abij", R, R, M, optimize=True)
    return (1.0 - chance) * m + chance * (R @ m), (1.0 - chance) * M + chance * turned


def _enumerated(problem: Quadratic, method: AnchoredIST, probabilities: Array, diagonals: Array) -> _ByOutcomes:
    """z_i - C_i y goes from C_i w to J_i C_i w - K_i G by the local map with b = -G, G = Lbar u."""
    n, d, T = problem.workers, problem.dim, method.local_steps
    eye = np.eye(d)
    J = np.zeros((len(probabilities), d, d))
    K = np.zeros((len(probabilities), d, d))
    for p, outcome in enumerate(diagonals):
        for worker, diagonal in enumerate(outcome):
            held = np.flatnonzero(diagonal)
            if len(held) == 0:
                continue
            place = np.ix_(held, held)
            matrix, values = problem.L[worker][place], diagonal[held]
            unit = np.eye(len(held))
            on_w, _ = local_map(matrix, np.zeros(len(held)), values, method.stepsize, T)
            on_b = np.stack([local_map(matrix, row, values, method.stepsize, T)[1] for row in unit], axis=1)
            J[p][place] += (on_w - np.diag(values)) / n
            K[p][place] -= on_b / n
        K[p] -= method.stepsize * T * (eye - np.diag(outcome.mean(axis=0)))
    return _ByOutcomes(probabilities, eye + J, K @ problem.mean_matrix - J)
