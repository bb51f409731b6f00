"""The exact course of a method: mean and covariance of the iterate, bias and variance of the gap, round by round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from isthmus import frames
from isthmus.errors import InvalidInput, check_integer
from isthmus.lab.arrays import Array, check_array, or_infinite, overflowing
from isthmus.lab.methods import LinearMethod, Method
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.simulate import simulate
from isthmus.lab.theory.enumeration import enumerate_round
from isthmus.lab.theory.lifted import LiftedRound, lifted_round, start_of
from isthmus.lab.theory.moments import Moments
from isthmus.lab.theory.powers import RoundMoments, pays, powered
from isthmus.lab.theory.update import affine_update
from isthmus.progress import progress

if TYPE_CHECKING:
    from pandas import DataFrame

EXACT, MONTE_CARLO = "exact", "Monte Carlo"


@dataclass(frozen=True, eq=False)
class Dynamics:
    """The course of a method over K rounds.

    Attributes:
        mean: [K+1, d], E x^k.
        bias: [K+1], |E x^k - x*|^2_Lbar / 2.
        variance: [K+1], tr(Lbar Cov x^k) / 2.
        method: "exact" or "Monte Carlo".
        how: "moments" (closed form), "enumeration" (all outcomes), "lifted moments" (of the method's whole state) or
            "simulation of N seeds", which also says where tails are too heavy for a mean over seeds.
        gap_error: [K+1], standard error of ``gap``; 0 where exact.
        covariance: [d, d], Cov x^K; None where simulated.
    """

    mean: Array
    bias: Array
    variance: Array
    method: str
    how: str
    gap_error: Array
    covariance: Array | None

    @property
    def gap(self) -> Array:
        """E f(x^k) - f* = bias + variance, [K+1]."""
        return self.bias + self.variance

    def to_frame(self) -> DataFrame:
        """Return gap, bias, variance and gap_error, a row a round, as a pandas table."""
        columns = {"gap": self.gap, "bias": self.bias, "variance": self.variance, "gap_error": self.gap_error}
        return frames.by_round(columns)


def round_moments(problem: Quadratic, method: Method) -> RoundMoments | None:
    """Return the exact moments of one round: closed form, else by enumeration, else None."""
    update = affine_update(problem, method)
    return Moments(update) if update is not None else enumerate_round(problem, method)


@overflowing
def dynamics(
    problem: Quadratic, method: Method, x0: ArrayLike, rounds: int, seeds: int = 1000, seed: int = 0
) -> Dynamics:
    """Return the course of ``method`` from ``x0``: exact where the sketch's moments are known, else Monte Carlo.

    With m = E x and S = Cov x, x+ = keep x + H x + h:

        m+ = v = keep m + E[H] m + E[h]
        S+ = keep^2 S + keep (E[H] S + S E[H]) + E[H (S + m m') H] + E[H m h'] + E[h m' H] + E[h h'] - u u',
        u = v - keep m.

    Exact for one local step with every sketch of the lab, for several (or infinitely many) where a worker never holds
    two units, and by enumeration of all outcomes for any local steps where those are few. For the other methods that
    are linear given their draws the same is done for their whole state (:mod:`isthmus.lab.theory.lifted`). A diverging
    course is a result: the gap grows without bound (inf).

    Args:
        problem: the quadratic.
        method: any; those that are not linear given their draws (Top-K, natural compression, dithering) are simulated.
        x0: [d].
        rounds: K >= 0.
        seeds: of the Monte Carlo fallback.
        seed: likewise.

    Raises:
        InvalidInput: wrong shapes or numbers.

    >>> from isthmus.lab import IST, Permutation
    >>> problem = Quadratic([[[1.0, 0.0], [0.0, 1.0]]] * 2, [[1.0, 1.0]] * 2)
    >>> dynamics(problem, IST(Permutation(2, 2), 0.5), [0.0, 0.0], rounds=1).gap
    array([1.  , 0.25])
    """
    check_integer("rounds", rounds, at_least=0)
    start = check_array("x0", x0, problem.dim)
    moments = round_moments(problem, method)
    if moments is not None:
        how = "moments" if isinstance(moments, Moments) else "enumeration"
        return _followed(problem, blocks(moments, start, rounds), rounds, how)
    if isinstance(method, LinearMethod):
        lifted = lifted_round(problem, method)
        if lifted is not None:
            path = _iterates(lifted, start_of(problem, method, start), rounds)
            return _followed(problem, path, rounds, "lifted moments")
    return _simulated(problem, method, start, rounds, seeds, seed)


def _iterates(lifted: LiftedRound, start: Array, rounds: int) -> Iterator[tuple[Array, Array]]:
    for m, S in lifted.course(start, rounds):
        yield (lifted.readout @ m)[None], (lifted.readout @ S @ lifted.readout.T)[None]


def _followed(problem: Quadratic, path: Iterator[tuple[Array, Array]], rounds: int, how: str) -> Dynamics:
    mean = np.full((rounds + 1, problem.dim), np.inf)
    bias, variance = np.full(rounds + 1, np.inf), np.full(rounds + 1, np.inf)
    covariance = np.zeros((problem.dim, problem.dim))
    with progress("exact dynamics", rounds) as advance:
        k = 0
        for means, covariances in path:
            here = slice(k, k + len(means))
            mean[here], bias[here] = means, problem.gap(means)
            spread = 0.5 * np.einsum("kab,ab->k", covariances, problem.mean_matrix)
            variance[here] = or_infinite(np.maximum(spread, 0.0))  # rounding
            covariance = covariances[-1]
            k += len(means)
            advance(len(means) - (here.start == 0))
    return Dynamics(mean, bias, variance, EXACT, how, np.zeros(rounds + 1), covariance)


@overflowing
def mean_trajectory(problem: Quadratic, method: Method, x0: ArrayLike, rounds: int) -> Array:
    """Return E x^k for k = 0..K, [K+1, d], at the cost of one matrix-vector product a round.

    Raises:
        InvalidInput: wrong shapes, or a method whose mean is not known in closed form or by enumeration.
    """
    moments = known_moments(problem, method)
    m = check_array("x0", x0, problem.dim)
    means = [m]
    for _ in range(check_integer("rounds", rounds, at_least=0)):
        m = moments.keep * m + moments.mean_matrix @ m + moments.mean_vector
        means.append(m)
    return np.stack(means)


@overflowing
def quadratic_forms(
    problem: Quadratic, method: Method, x0: ArrayLike, rounds: int, forms: Sequence[Array], center: Array | None = None
) -> Array:
    """Return E (x^k - c)' A (x^k - c) for every A of ``forms``, [len(forms), K+1], exact; c is x* unless given.

    Raises:
        InvalidInput: wrong shapes, or moments that are not known.
    """
    moments = known_moments(problem, method)
    c = problem.minimizer if center is None else center
    values = np.full((len(forms), check_integer("rounds", rounds, at_least=0) + 1), np.inf)
    k = 0
    for means, covariances in blocks(moments, check_array("x0", x0, problem.dim), rounds):
        second = covariances + (means - c)[:, :, None] * (means - c)[:, None]
        for form, A in enumerate(forms):
            values[form, k : k + len(means)] = np.einsum("kab,ab->k", second, A)
        k += len(means)
    return values


def blocks(moments: RoundMoments, x0: Array, rounds: int) -> Iterator[tuple[Array, Array]]:
    """Yield (means [B, d], covariances [B, d, d]) of rounds 0..K, B rounds at a time, while they are finite.

    By powers of one matrix where the problem is small and the course long, else round by round (B = 1).
    """
    done, covariance = 0, None
    if pays(len(x0), rounds):
        for means, covariances in powered(moments, x0, rounds):
            yield means, covariances
            done += len(means)
            x0, covariance = means[-1], covariances[-1]
    if done <= rounds:  # powers overflow before the course does
        rest = course(moments, x0, rounds - max(done - 1, 0), covariance)
        for place, (m, S) in enumerate(rest):
            if place or not done:
                yield m[None], S[None]


def course(
    moments: RoundMoments, x0: Array, rounds: int, covariance: Array | None = None
) -> Iterator[tuple[Array, Array]]:
    """Yield (mean, covariance) of rounds 0..K, from ``covariance`` (0) on; stops once they are no longer finite."""
    m, S = x0, np.zeros((len(x0), len(x0))) if covariance is None else covariance
    yield m, S
    with np.errstate(over="ignore", invalid="ignore"):  # local steps without limit give infinite maps
        noise = moments.noise()
    for _ in range(rounds):
        with np.errstate(over="ignore", invalid="ignore"):
            step = moments.mean_matrix @ m + moments.mean_vector
            S = covariance_step(moments, S, m)
            drift = moments.drift(m)
            S += drift
            S += drift.T
            del drift  # one array less while the next round is worked
            S += noise
            S -= np.outer(step, step)
            S = _symmetric(S)  # rounding makes a skew part, which no step shrinks
            m = moments.keep * m + step
        if not (np.isfinite(m).all() and np.isfinite(S).all()):
            return
        yield m, S


def covariance_step(moments: RoundMoments, S: Array, m: Array | None = None, less: float = 0.0) -> Array:
    """Return keep^2 S + keep (E[H] S + S E[H]) + E[H (S + m m') H]: the part of a round that is linear in S + m m'.

    With ``less`` = 1 what it adds to S, which small steps make far smaller than S.
    """
    if m is None:
        second = S
    else:
        second = np.outer(m, m)
        second += S
    result = moments.sandwich(second)
    if moments.keep:
        moved = moments.mean_times(S)
        moved *= moments.keep
        result += moved
        result += moved.T
    share = moments.keep**2 - less
    if share:
        result += S if share == 1 else share * S
    return result


def _symmetric(S: Array) -> Array:
    """The symmetric part, in place."""
    S += S.T.copy()
    S *= 0.5
    return S


def _simulated(problem: Quadratic, method: Method, x0: Array, rounds: int, seeds: int, seed: int) -> Dynamics:
    check_integer("seeds", seeds, at_least=2)
    run = simulate(problem, method, x0, rounds, seeds, seed)
    with np.errstate(invalid="ignore"):
        bias = problem.gap(run.mean)
    gap = run.mean_gap
    bias = np.where(np.isfinite(gap), bias, np.inf)
    finite = np.isfinite(gap)
    variance = np.where(finite, np.maximum(gap - np.where(finite, bias, 0.0), 0.0), np.inf)
    how = f"simulation of {seeds} seeds"
    if run.heavy.any():
        how += f", heavy tails (index {np.nanmin(run.tail_index):.2g}): its errors cover nothing"
    return Dynamics(run.mean, bias, variance, MONTE_CARLO, how, run.standard_error, None)


def known_moments(problem: Quadratic, method: Method) -> RoundMoments:
    """Return the exact moments of one round.

    Raises:
        InvalidInput: they are not known; the message says what to do instead.
    """
    moments = round_moments(problem, method)
    if moments is None:
        raise InvalidInput(
            f"`method` must have exact moments, got {method}: neither a closed form nor few enough outcomes; "
            "use `theory.dynamics` or `simulate`, which fall back to Monte Carlo"
        )
    return moments
