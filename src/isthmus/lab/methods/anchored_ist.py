"""IST without its bias: an anchor with a known full gradient as control variate over the sketch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from isthmus.errors import check_integer, check_number
from isthmus.lab.accounting import Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws
from isthmus.lab.methods.ist import check_fits
from isthmus.lab.methods.local_steps import run_local_steps
from isthmus.lab.methods.messages import SEED, block_size
from isthmus.lab.problems import Problem, exact, gradient_share, gradient_work, rows_per_gradient, worker_gradients
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Blocks, as_sketch


@dataclass(frozen=True, eq=False)
class Anchored:
    """Iterates, anchors, the full gradients at the anchors, and where the last period ended; all [seeds, d]."""

    x: Array
    anchor: Array
    gradient: Array
    ended: Array


@dataclass(frozen=True)
class AnchoredIST:
    """x+ = x - gamma ( (1/n) sum_i C_i [grad f_i(C_i x) - grad f_i(C_i y)] + grad f(y) ),  y the anchor.

    The bias of IST comes from the sketch inside the gradient; here it cancels, as does the noise, at x = y = x*: the
    method converges to the minimiser with a constant step. Every ``period`` rounds y moves to x and the full gradient
    there is computed, block by block. The sketch need not be unbiased: its scale is free (see ``docs/anchored.md``).

    With T local steps, z_i^0 = C_i x and z_i+ = z_i - gamma C_i [grad f_i(z_i) - grad f_i(C_i y) + grad f(y)]; the part
    of grad f(y) that the sketches of a round miss is added by the server.

    Args:
        sketch: a :class:`Sketch`, or any object whose ``sample(generator)`` gives diagonals [n, d].
        stepsize: gamma > 0.
        period: m >= 1 rounds (an integer), or the probability in (0, 1) that a round ends with a new anchor.
        local_steps: T >= 1.
        momentum: beta in [0, 1): the new anchor is x + beta (x - x'), x' where the period before ended; nothing more
            is sent for it.

    Raises:
        InvalidInput: a value breaks its rule.
    """

    tunable: ClassVar[str | None] = "momentum"

    sketch: Any
    stepsize: float
    period: float
    local_steps: int = 1
    momentum: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "sketch", as_sketch(self.sketch))
        check_number("stepsize", self.stepsize, above=0.0)
        if isinstance(self.period, float):
            check_number("period", self.period, above=0.0, below=1.0)
        else:
            check_integer("period", self.period, at_least=1)
        check_integer("local_steps", self.local_steps, at_least=1)
        check_number("momentum", self.momentum, at_least=0.0, below=1.0)

    def init(self, problem: Problem, x0: Array) -> Anchored:
        """Start at x0, anchored there.

        Raises:
            InvalidInput: a sketch that does not fit.
        """
        check_fits(problem, self.sketch)
        return Anchored(x0, x0, problem.gradient(x0), x0)

    def step(self, problem: Problem, state: Anchored, draws: Draws) -> Anchored:
        """One round: sketch, local steps against the anchor, merge, perhaps a new anchor."""
        if isinstance(problem, Quadratic):
            x = self._step_of_quadratic(problem, state, draws)
        else:
            x = self._step_by_gradients(problem, state, draws)
        renew = self._renews(draws)
        if renew is False:
            return Anchored(x, state.anchor, state.gradient, state.ended)
        anchor = x + self.momentum * (x - state.ended) if self.momentum else x
        if renew is True:
            return Anchored(anchor, anchor, problem.gradient(anchor), x)
        chosen = np.asarray(renew)[:, None]
        gradient = state.gradient.copy()
        gradient[renew] = problem.gradient(anchor[renew])
        anchored, ended = np.where(chosen, anchor, state.anchor), np.where(chosen, x, state.ended)
        return Anchored(np.where(chosen, anchor, x), anchored, gradient, ended)

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """Blocks down (x - y alone for a quadratic and T = 1), T block gradients, a block up; a share of an anchor."""
        size = block_size(self.sketch)
        linear = isinstance(problem, Quadratic)
        down = (1 if linear else 2) + (self.local_steps > 1)
        each = gradient_work(problem, size, size) * (1 if linear else 2)
        work = each * self.local_steps
        share = gradient_share(problem) * work / gradient_work(problem)
        plain = Cost(
            numbers(size, value_bits),
            numbers(down * size, value_bits),
            False,
            work,
            share,
            (down + 1) * size,
        )
        anchor = self._anchor_cost(problem, value_bits)
        if draws is None:
            return plain + anchor * (self.period if isinstance(self.period, float) else 1.0 / self.period)
        return plain + anchor * np.asarray(self._renews(draws), dtype=np.float64)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The run's seed and the first anchor."""
        return SEED + self._anchor_cost(problem, value_bits)

    def _anchor_cost(self, problem: Problem, value_bits: int) -> Cost:
        """The anchor down and the full gradient up, streamed block by block.

        What a worker must hold meanwhile is its predictions on its samples, or, from matrices, one vector; a block of
        the anchor and one of the gradient. Where that is more than two vectors it does not stream.
        """
        full = exact(problem)
        whole, size = numbers(problem.dim, value_bits), block_size(self.sketch)
        rows = rows_per_gradient(full)
        between = problem.dim if rows is None else min(rows, problem.dim)
        memory = min(2 * problem.dim, 2 * size + between)
        return Cost(whole, whole, True, gradient_work(full), 1.0, memory)

    def _renews(self, draws: Draws) -> Any:
        """Whether this round ends with a new anchor: one answer, or one a seed."""
        if isinstance(self.period, float):
            return draws.generator("anchor").random(draws.seeds) < self.period
        return draws.round % self.period == 0

    def _step_of_quadratic(self, problem: Quadratic, state: Anchored, draws: Draws) -> Array:
        blocks = self.sketch.sample_blocks(draws.generator("sketch"), draws.seeds)
        # z_i - C_i y follows the same recursion with -grad f(y) in place of b_i
        away, G = state.x - state.anchor, state.gradient
        _, change = run_local_steps(problem, blocks, away, self.stepsize, self.local_steps, -G)
        missed = G - _mean_diagonal(blocks, problem.workers, problem.dim) * G
        return state.x + change / problem.workers - (self.stepsize * self.local_steps) * missed

    def _step_by_gradients(self, problem: Problem, state: Anchored, draws: Draws) -> Array:
        sketched = self.sketch.sample_many(draws.generator("sketch"), draws.seeds)
        models, anchors = sketched * state.x[:, None], sketched * state.anchor[:, None]
        moved = models
        for step in range(self.local_steps):
            change = worker_gradients(problem, moved, draws, step) - worker_gradients(problem, anchors, draws, step)
            moved = moved - self.stepsize * sketched * (change + state.gradient[:, None])
        missed = state.gradient - sketched.mean(axis=1) * state.gradient
        return np.asarray(
            state.x + (moved - models).mean(axis=1) - (self.stepsize * self.local_steps) * missed
        )


def _mean_diagonal(blocks: Blocks, workers: int, dim: int) -> Array:
    """Return (1/n) sum_i C_i as diagonals, [seeds, d]."""
    if blocks.members is None:
        return np.asarray(blocks.values.mean(axis=1))
    seeds = len(blocks.values)
    places = blocks.members + (dim + 1) * np.arange(seeds)[:, None, None]
    total = np.bincount(places.ravel(), weights=blocks.values.ravel(), minlength=seeds * (dim + 1))
    return np.asarray(total.reshape(seeds, dim + 1)[:, :dim] / workers)
