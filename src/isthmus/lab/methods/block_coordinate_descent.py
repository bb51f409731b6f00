"""Randomised block coordinate descent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.lab.accounting import SEED_BITS, Cost, Message, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws, Iterate
from isthmus.lab.problems import Problem, gradient_share, gradient_work, mean_gradient


@dataclass(frozen=True)
class BlockCoordinateDescent:
    """x+ = x - gamma P grad f(x), P the mask of one uniformly random K-subset for all workers.

    The workers keep the whole model; only the block travels, both ways. With K = d it is gradient descent.

    Args:
        size: K, at most d.
        stepsize: gamma > 0.

    Raises:
        InvalidInput: a number outside its range.

    Reference:
        Richtarik, Takac, "Iteration complexity of randomized block-coordinate descent methods" (2014).
    """

    size: int
    stepsize: float

    def __post_init__(self) -> None:
        check_integer("size", self.size, at_least=1)
        check_number("stepsize", self.stepsize, above=0.0)

    def init(self, problem: Problem, x0: Array) -> Iterate:
        """Start at x0.

        Raises:
            InvalidInput: a block larger than d.
        """
        if self.size > problem.dim:
            raise InvalidInput(f"`size` must be at most {problem.dim}, got {self.size}")
        return Iterate(x0)

    def step(self, problem: Problem, state: Iterate, draws: Draws) -> Iterate:
        """Step in one block."""
        keys = draws.generator("block").random(state.x.shape)
        block = np.argpartition(keys, self.size - 1, axis=1)[:, : self.size]
        moved = np.take_along_axis(mean_gradient(problem, state.x, draws), block, axis=1)
        x = state.x.copy()
        np.put_along_axis(x, block, np.take_along_axis(x, block, axis=1) - self.stepsize * moved, axis=1)
        return Iterate(x)

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A block of the gradient, the block up, the block's new values down; a model and a block held."""
        block = numbers(self.size, value_bits)
        work = gradient_work(problem, wanted=self.size)
        share = gradient_share(problem) * work / gradient_work(problem)
        return Cost(block, block, True, work, share, problem.dim + self.size)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The run's seed and the first model down."""
        down = numbers(problem.dim, value_bits) + Message(extras=float(SEED_BITS))
        return Cost(Message(), down, True, 0.0, 0.0, 0.0)
