"""Accelerated gradient descent: what a worker that can hold the model is to be measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from isthmus.errors import check_number
from isthmus.lab.accounting import NOTHING, Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws
from isthmus.lab.methods.linear import LinearMethod, joined, parted
from isthmus.lab.methods.messages import gradient_round
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.problems import Problem, mean_gradient


@dataclass(frozen=True, eq=False)
class Extrapolated:
    """Iterates and the points that the next gradients are taken at, both [seeds, d]."""

    x: Array
    ahead: Array


@dataclass(frozen=True)
class AcceleratedGradientDescent(LinearMethod):
    """x+ = y - gamma grad f(y),  y+ = x+ + beta (x+ - x); the server extrapolates, the workers hold y.

    With beta = 0 it is gradient descent.

    Args:
        stepsize: gamma > 0.
        momentum: beta in [0, 1).

    Raises:
        InvalidInput: a number outside its range.

    Reference:
        Nesterov, "Introductory Lectures on Convex Optimization" (2004), scheme (2.2.11).
    """

    tunable: ClassVar[str | None] = "momentum"

    stepsize: float
    momentum: float

    def __post_init__(self) -> None:
        check_number("stepsize", self.stepsize, above=0.0)
        check_number("momentum", self.momentum, at_least=0.0, below=1.0)

    def init(self, problem: Problem, x0: Array) -> Extrapolated:
        """Start at x0, looking nowhere ahead."""
        return Extrapolated(x0, x0)

    def step(self, problem: Problem, state: Extrapolated, draws: Draws) -> Extrapolated:
        """Step from the extrapolated point, extrapolate again."""
        gradient, _ = self.send(problem, state, draws)
        return self.receive(problem, state, gradient)

    def multipliers(self, problem: Problem) -> Multipliers:
        """Nothing is compressed."""
        return Multipliers.certain(1, problem.dim)

    def send(self, problem: Problem, state: Extrapolated, draws: Draws) -> tuple[Array, None]:
        """The gradient at the extrapolated point."""
        return mean_gradient(problem, state.ahead, draws)[:, None], None

    def receive(
        self, problem: Problem, state: Extrapolated, sent: Array, kept: Any = None, heads: Any = None
    ) -> Extrapolated:
        """A step, and the next point."""
        x = state.ahead - self.stepsize * sent[:, 0]
        return Extrapolated(x, x + self.momentum * (x - state.x))

    def flatten(self, state: Extrapolated) -> Array:
        """Both points."""
        return joined(state.x, state.ahead)

    def restore(self, problem: Problem, flat: Array) -> Extrapolated:
        """From both points."""
        return Extrapolated(*parted(flat, (problem.dim,), (problem.dim,)))

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A gradient up, a point down; a point and a gradient held."""
        whole = numbers(problem.dim, value_bits)
        return gradient_round(problem, whole, whole, memory=2 * problem.dim)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """Nothing."""
        return NOTHING
