"""Independent Subnetwork Training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from isthmus.errors import InvalidInput, check_choice, check_integer, check_number
from isthmus.lab.accounting import Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws, Iterate
from isthmus.lab.methods.local_steps import run_local_steps
from isthmus.lab.methods.messages import SEED, block_size
from isthmus.lab.methods.sketched_steps import sketched_steps
from isthmus.lab.problems import Problem, gradient_share, gradient_work
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.sketches import Sketch, as_sketch

MERGES = ("gradient", "model")


@dataclass(frozen=True)
class IST:
    """Every worker takes T local steps on its sketched model; what they did is merged.

    z_i^0 = C_i x,  z_i^{t+1} = z_i^t - gamma C_i grad f_i(z_i^t),  t < T.

    - ``merge="gradient"``: x+ = x + (1/n) sum_i (z_i^T - z_i^0). For T = 1 the method the theory is about,
      x+ = x - gamma (1/n) sum_i C_i grad f_i(C_i x).
    - ``merge="model"``: x+ = (1/n) sum_i z_i^T, the averaging of Algorithm 1. The two are one where
      (1/n) sum_i C_i = I, as for the unbiased permutation sketch with n <= d.

    Args:
        sketch: a :class:`Sketch`, or any object whose ``sample(generator)`` gives diagonals [n, d].
        stepsize: gamma > 0.
        local_steps: T >= 1, or ``math.inf`` for the local minimiser.
        merge: "gradient" or "model".

    Raises:
        InvalidInput: a value breaks its rule.

    Reference:
        Shulgin, Richtarik (arXiv 2306.16484), Algorithm 1 and method (2).
    """

    sketch: Any
    stepsize: float
    local_steps: float = 1
    merge: str = "gradient"

    def __post_init__(self) -> None:
        object.__setattr__(self, "sketch", as_sketch(self.sketch))
        check_number("stepsize", self.stepsize, above=0.0)
        if not (isinstance(self.local_steps, float) and math.isinf(self.local_steps) and self.local_steps > 0):
            object.__setattr__(self, "local_steps", check_integer("local_steps", self.local_steps, at_least=1))
        check_choice("merge", self.merge, MERGES)

    def init(self, problem: Problem, x0: Array) -> Iterate:
        """Start at x0.

        Raises:
            InvalidInput: a sketch that does not fit, or infinitely many local steps on what is not a quadratic.
        """
        check_fits(problem, self.sketch)
        if math.isinf(self.local_steps) and not isinstance(problem, Quadratic):
            raise InvalidInput("`local_steps` must be finite where the problem is not a quadratic, got inf")
        return Iterate(x0)

    def step(self, problem: Problem, state: Iterate, draws: Draws) -> Iterate:
        """One round: sketch, local steps, merge."""
        random = draws.generator("sketch")
        if isinstance(problem, Quadratic):
            blocks = self.sketch.sample_blocks(random, draws.seeds)
            start, change = run_local_steps(problem, blocks, state.x, self.stepsize, self.local_steps)
        else:
            sketched = self.sketch.sample_many(random, draws.seeds)
            start, change = sketched_steps(problem, sketched, state.x, self.stepsize, int(self.local_steps), draws)
        if self.merge == "gradient":
            return Iterate(state.x + change / problem.workers)
        return Iterate((start + change) / problem.workers)

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A block down, T gradients on it (a linear solve where T is infinite), the block up; two blocks held."""
        size = block_size(self.sketch)
        block = numbers(size, value_bits)
        solve = 2.0 / 3.0 * size**3
        steps = gradient_work(problem, size, size) * self.local_steps if math.isfinite(self.local_steps) else solve
        share = gradient_share(problem) * steps / gradient_work(problem)
        return Cost(block, block, False, steps, share, 2 * size)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The run's seed."""
        return SEED


def check_fits(problem: Problem, sketch: Sketch) -> None:
    """Refuse a sketch of another number of workers or coordinates than the problem's.

    Raises:
        InvalidInput: they differ.
    """
    if (sketch.workers, sketch.dim) != (problem.workers, problem.dim):
        raise InvalidInput(
            f"`sketch` must be for {problem.workers} workers and {problem.dim} coordinates like the problem, "
            f"got {sketch.workers} and {sketch.dim}"
        )
