"""Block-gradient IST: the whole model forward, one block backward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.errors import check_number
from isthmus.lab.accounting import Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws, Iterate
from isthmus.lab.methods.ist import check_fits
from isthmus.lab.methods.linear import LinearMethod
from isthmus.lab.methods.messages import SEED, block_size
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.problems import Problem, gradient_share, gradient_work, worker_gradients
from isthmus.lab.sketches import as_sketch


@dataclass(frozen=True)
class BlockGradientIST(LinearMethod):
    """x+ = x - gamma (1/n) sum_i C_i grad f_i(x): backward masking; unbiased, but every worker needs the whole x.

    It is DCGD with the sketch as compressor (with :class:`Permutation`, DCGD with Perm-K) at another cost: only the
    block's share of the backward pass.

    Args:
        sketch: unbiased.
        stepsize: gamma > 0.

    Raises:
        InvalidInput: no sketch, or a step size that is not positive.

    Reference:
        SDP (arXiv 2507.09029), backward against forward masking.
    """

    sketch: Any
    stepsize: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "sketch", as_sketch(self.sketch))
        check_number("stepsize", self.stepsize, above=0.0)

    def init(self, problem: Problem, x0: Array) -> Iterate:
        """Start at x0."""
        check_fits(problem, self.sketch)
        return Iterate(x0)

    def step(self, problem: Problem, state: Iterate, draws: Draws) -> Iterate:
        """Sketch the workers' gradients, step along their mean."""
        gradients, _ = self.send(problem, state, draws)
        sketched = self.sketch.sample_many(draws.generator("sketch"), draws.seeds)
        return self.receive(problem, state, sketched * gradients)

    def multipliers(self, problem: Problem) -> Multipliers | None:
        """The sketch's."""
        return self.sketch.multipliers()

    def send(self, problem: Problem, state: Iterate, draws: Draws) -> tuple[Array, None]:
        """Gradients."""
        return worker_gradients(problem, state.x, draws), None

    def receive(self, problem: Problem, state: Iterate, sent: Array, kept: Any = None, heads: Any = None) -> Iterate:
        """A step along the mean."""
        return Iterate(state.x - self.stepsize * np.asarray(sent.mean(axis=1)))

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A block's gradient, the block up, the model down; a model and a block held."""
        size = block_size(self.sketch)
        work = gradient_work(problem, wanted=size)
        share = gradient_share(problem) * work / gradient_work(problem)
        up, down = numbers(size, value_bits), numbers(problem.dim, value_bits)
        return Cost(up, down, True, work, share, problem.dim + size)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The run's seed."""
        return SEED
