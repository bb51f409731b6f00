"""The average of a method's iterates, which rids it of variance (not of bias)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isthmus.errors import check_integer
from isthmus.lab.accounting import Cost
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import CountedMethod, Draws
from isthmus.lab.problems import Problem


@dataclass(frozen=True, eq=False)
class Average:
    """The mean of the iterates so far, [seeds, d], and the method's own state."""

    x: Array
    inner: Any


@dataclass(frozen=True)
class Averaged:
    """Run ``method`` and answer with the mean of its iterates after the first ``skip`` rounds.

    Args:
        method: any method.
        skip: rounds left out of the mean.

    Raises:
        InvalidInput: a negative ``skip``.
    """

    method: CountedMethod
    skip: int = 0

    def __post_init__(self) -> None:
        check_integer("skip", self.skip, at_least=0)

    @property
    def stepsize(self) -> float:
        """The method's."""
        return self.method.stepsize

    def init(self, problem: Problem, x0: Array) -> Average:
        """Start the method."""
        return Average(x0, self.method.init(problem, x0))

    def step(self, problem: Problem, state: Average, draws: Draws) -> Average:
        """One round of the method, then the mean."""
        inner = self.method.step(problem, state.inner, draws)
        count = draws.round - self.skip
        return Average(inner.x if count <= 1 else state.x + (inner.x - state.x) / count, inner)

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """The method's: the server averages."""
        return self.method.cost(problem, draws, value_bits)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The method's."""
        return self.method.start_cost(problem, value_bits)
