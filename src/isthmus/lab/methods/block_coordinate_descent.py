"""Randomised block coordinate descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.lab.accounting import SEED_BITS, Cost, Message, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws, Iterate
from isthmus.lab.methods.linear import LinearMethod
from isthmus.lab.multipliers import Multipliers, random_subset
from isthmus.lab.problems import Problem, gradient_share, gradient_work, mean_gradient


@dataclass(frozen=True)
class BlockCoordinateDescent(LinearMethod):
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
        gradient, _ = self.send(problem, state, draws)
        sent = np.zeros_like(gradient)
        np.put_along_axis(sent[:, 0], block, np.take_along_axis(gradient[:, 0], block, axis=1), axis=1)
        return self.receive(problem, state, sent)

    def multipliers(self, problem: Problem) -> Multipliers:
        """1 on the block, 0 elsewhere, the same for all workers."""
        return random_subset(1, problem.dim, self.size).scaled(self.size / problem.dim)

    def send(self, problem: Problem, state: Iterate, draws: Draws) -> tuple[Array, None]:
        """The gradient."""
        return mean_gradient(problem, state.x, draws)[:, None], None

    def receive(self, problem: Problem, state: Iterate, sent: Array, kept: Any = None, heads: Any = None) -> Iterate:
        """A step in the block."""
        return Iterate(state.x - self.stepsize * sent[:, 0])

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
