"""Gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.errors import check_number
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws, Iterate
from isthmus.lab.quadratics import Quadratic


@dataclass(frozen=True)
class GradientDescent:
    """x+ = x - gamma grad f(x).

    Raises:
        InvalidInput: a step size that is not positive.
    """

    stepsize: float

    def __post_init__(self) -> None:
        check_number("stepsize", self.stepsize, above=0.0)

    def init(self, problem: Quadratic, x0: Array) -> Iterate:
        """Start at x0."""
        return Iterate(x0)

    def step(self, problem: Quadratic, state: Iterate, draws: Draws) -> Iterate:
        """One gradient step; no randomness."""
        return Iterate(state.x - self.stepsize * problem.gradient(state.x))
