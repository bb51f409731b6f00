"""Gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isthmus.errors import check_number
from isthmus.lab.accounting import NOTHING, Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws, Iterate
from isthmus.lab.methods.linear import LinearMethod
from isthmus.lab.methods.messages import gradient_round
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.problems import Problem, mean_gradient


@dataclass(frozen=True)
class GradientDescent(LinearMethod):
    """x+ = x - gamma grad f(x).

    Raises:
        InvalidInput: a step size that is not positive.
    """

    stepsize: float

    def __post_init__(self) -> None:
        check_number("stepsize", self.stepsize, above=0.0)

    def init(self, problem: Problem, x0: Array) -> Iterate:
        """Start at x0."""
        return Iterate(x0)

    def step(self, problem: Problem, state: Iterate, draws: Draws) -> Iterate:
        """One gradient step; no randomness but that of minibatches."""
        gradient, _ = self.send(problem, state, draws)
        return self.receive(problem, state, gradient)

    def multipliers(self, problem: Problem) -> Multipliers:
        """Nothing is compressed."""
        return Multipliers.certain(1, problem.dim)

    def send(self, problem: Problem, state: Iterate, draws: Draws) -> tuple[Array, None]:
        """The gradient."""
        return mean_gradient(problem, state.x, draws)[:, None], None

    def receive(self, problem: Problem, state: Iterate, sent: Array, kept: Any = None, heads: Any = None) -> Iterate:
        """A step."""
        return Iterate(state.x - self.stepsize * sent[:, 0])

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A gradient up, the model down; a model and a gradient held."""
        whole = numbers(problem.dim, value_bits)
        return gradient_round(problem, whole, whole, memory=2 * problem.dim)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """Nothing."""
        return NOTHING
