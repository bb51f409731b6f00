"""Run a method over many seeds at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isthmus import frames
from isthmus.errors import check_integer
from isthmus.lab.arrays import Array, check_array
from isthmus.lab.methods import Draws, Method
from isthmus.lab.problems import Problem
from isthmus.progress import progress

if TYPE_CHECKING:
    from pandas import DataFrame

HEAVY = 2.0  # the tail index up to which the variance is infinite
_DIVERGED = 1e30
_FEWEST_FOR_TAILS = 20


@dataclass(frozen=True, eq=False)
class Simulation:
    """What a method did over seeds.

    Attributes:
        gap: [seeds, K+1], f(x^k) - f*; infinite from the round on at which the run was stopped as diverged.
        mean: [K+1, d], mean iterate over seeds (nan after divergence).
        final: [seeds, d], last iterates.
        diverged_at: the round at which some seed's gap left all bounds, or None.
    """

    gap: Array
    mean: Array
    final: Array
    diverged_at: int | None

    @property
    def mean_gap(self) -> Array:
        """Mean over seeds, [K+1]."""
        return np.asarray(self.gap.mean(axis=0))

    @property
    def standard_error(self) -> Array:
        """Standard error of that mean, [K+1]; infinite for one seed, which shows no spread.

        Where :attr:`tail_index` is 2 or less the mean +- this error covers nothing: prefer the exact value.
        """
        seeds = len(self.gap)
        if seeds == 1:
            return np.full(self.gap.shape[1], np.inf)
        finite = np.isfinite(self.gap).all(axis=0)
        spread = np.full(self.gap.shape[1], np.inf)
        spread[finite] = self.gap[:, finite].std(axis=0, ddof=1) / np.sqrt(seeds)
        return spread

    @property
    def tail_index(self) -> Array:
        """Hill's estimate of how fast the gap's tail falls, P(gap > t) ~ t^-index, [K+1]; nan below 20 seeds.

        From the sqrt(seeds) largest gaps (at least five). Multiplicative noise makes it small: at 2 or less the
        variance is infinite and no number of seeds gives the mean an error; at 1 or less rare seeds are all of it.

        Reference:
            Hill, "A simple general approach to inference about the tail of a distribution" (1975).
        """
        seeds = len(self.gap)
        if seeds < _FEWEST_FOR_TAILS:
            return np.full(self.gap.shape[1], np.nan)
        top = max(5, math.isqrt(seeds))
        largest = np.sort(self.gap, axis=0)[-top - 1 :]
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(largest[1:] / largest[0]).mean(axis=0)
            return np.asarray(np.where(np.isfinite(largest[-1]) & (largest[0] > 0), 1.0 / logs, np.nan))

    @property
    def heavy(self) -> NDArray[np.bool_]:
        """The rounds at which the mean has no error, [K+1]: tail index at most 2."""
        return np.asarray(self.tail_index <= HEAVY, dtype=np.bool_)

    def to_frame(self) -> DataFrame:
        """Return mean, standard error, lowest, median and highest gap over seeds, a row a round, as a pandas table."""
        gap = self.gap
        spread = {"lowest": gap.min(axis=0), "median": np.median(gap, axis=0), "highest": gap.max(axis=0)}
        return frames.by_round({"mean_gap": self.mean_gap, "standard_error": self.standard_error, **spread})


@dataclass(frozen=True)
class Watch:
    """What to do beside counting gaps.

    Attributes:
        see: called with the round and the method's state, from round 0 on.
        target: stop after the round in which every seed's gap is at most this; the later rounds' gaps are left out.
    """

    see: Callable[[int, Any], None] | None = None
    target: float | None = None


def simulate(
    problem: Problem, method: Method, x0: ArrayLike, rounds: int, seeds: int, seed: int = 0, watch: Watch = Watch()
) -> Simulation:
    """Run ``method`` for ``rounds`` rounds over ``seeds`` independent seeds.

    Args:
        problem: the quadratic.
        method: gradient descent, IST, ...
        x0: [d], or [seeds, d].
        rounds: K >= 0.
        seeds: how many.
        seed: of the whole batch; member s draws the same numbers whatever the batch's size.
        watch: what else to record, and when to stop early.

    Raises:
        InvalidInput: wrong shapes, or no seeds.

    >>> from isthmus.lab import GradientDescent, Quadratic
    >>> problem = Quadratic([[[1.0]]], [[0.0]])
    >>> simulate(problem, GradientDescent(0.5), [2.0], rounds=2, seeds=1).gap
    array([[2.   , 0.5  , 0.125]])
    """
    check_integer("rounds", rounds, at_least=0)
    check_integer("seeds", seeds, at_least=1)
    x = np.array(_starts(x0, seeds, problem.dim))
    gap = np.full((seeds, rounds + 1), np.inf)
    mean = np.full((rounds + 1, problem.dim), np.nan)
    gap[:, 0], mean[0] = problem.gap(x), x.mean(axis=0)
    limit = _DIVERGED * max(float(gap[:, 0].max()), float(problem.gap(np.zeros(problem.dim))))
    state = method.init(problem, x)
    if watch.see is not None:
        watch.see(0, state)
    with progress("simulating", rounds) as advance, np.errstate(over="ignore", invalid="ignore"):
        for k in range(1, rounds + 1):
            state = method.step(problem, state, Draws(seed, k, seeds))
            now = problem.gap(state.x)
            if not bool((now <= limit).all()):
                return Simulation(gap, mean, state.x, diverged_at=k)
            gap[:, k], mean[k] = now, state.x.mean(axis=0)
            if watch.see is not None:
                watch.see(k, state)
            if watch.target is not None and bool((now <= watch.target).all()):
                return Simulation(gap[:, : k + 1], mean[: k + 1], state.x, diverged_at=None)
            advance()
    return Simulation(gap, mean, state.x, diverged_at=None)


def _starts(x0: ArrayLike, seeds: int, dim: int) -> Array:
    if np.ndim(x0) == 2:
        return check_array("x0", x0, seeds, dim)
    return np.broadcast_to(check_array("x0", x0, dim), (seeds, dim))
