"""What a method is: a pure start and a pure round, batched over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from isthmus.lab.accounting import Cost
from isthmus.lab.arrays import Array
from isthmus.lab.problems import Problem
from isthmus.randomness import generator


@dataclass(frozen=True)
class Draws:
    """The randomness of one round for a batch of seeds.

    Every purpose has a generator of its own. Whoever draws from it draws seed by seed (rows first), so that the numbers
    of one seed do not depend on how many seeds the batch has.
    """

    seed: int
    round: int
    seeds: int

    def generator(self, purpose: str, worker: int = 0) -> np.random.Generator:
        """Return this round's generator for ``purpose`` and ``worker``."""
        return generator(self.seed, f"simulate/{purpose}", self.round, worker)


class State(Protocol):
    """What a method carries from round to round: the iterate and whatever else it needs."""

    @property
    def x(self) -> Array:
        """Iterates of all seeds, [seeds, d]."""


@dataclass(frozen=True, eq=False)
class Iterate:
    """The state of a method without memory."""

    x: Array


class Method(Protocol):
    """A method of the lab: two pure functions.

    ``init`` makes the state of ``x0`` [seeds, d]; ``step`` returns the state after one round. Neither knows of gaps,
    records or theory.
    """

    @property
    def stepsize(self) -> float:
        """gamma."""

    def init(self, problem: Any, x0: Array) -> Any:
        """Return the state before the first round."""

    def step(self, problem: Any, state: Any, draws: Draws) -> Any:
        """Return the state after one round."""


class CountedMethod(Method, Protocol):
    """A method that also states what it costs, without touching the numerics."""

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """Return one round's cost of a worker: expected, or, for given draws, of every seed."""

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """Return what has to be paid before the first round."""
