"""Methods whose round is linear in their state given its draws: simulation draws, exact theory takes moments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np

from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws, Iterate
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.problems import Problem


class LinearMethod(ABC):
    """A round in two halves, between which the compressor acts:

        u = send(state),   s_i = C_i(u_i),   state+ = receive(state, s, heads).

    On quadratics both halves are affine. Where C_i multiplies entrywise, C_i(u) = c_i * u, the moments of the state
    obey closed recursions in those of c (``multipliers``) and of a coin that all workers share (``chance``); the exact
    theory reads the maps off these very functions.

    Attributes:
        tunable: the field besides the step size, between 0 and 1, that may be chosen for the best rate.
    """

    tunable: ClassVar[str | None] = None
    stepsize: float

    @abstractmethod
    def init(self, problem: Any, x0: Array) -> Any:
        """Return the state before the first round."""

    @abstractmethod
    def step(self, problem: Any, state: Any, draws: Draws) -> Any:
        """Draw, send and receive."""

    @property
    def chance(self) -> float:
        """Probability of heads; without a coin 0."""
        return 0.0

    @abstractmethod
    def multipliers(self, problem: Problem) -> Multipliers | None:
        """Return the law of c for the vectors sent, [m, d]; None where the compressor is not linear."""

    @abstractmethod
    def send(self, problem: Problem, state: Any, draws: Draws) -> tuple[Array, Any]:
        """Return the vectors u, [seeds, m, d], and what :meth:`receive` needs besides."""

    @abstractmethod
    def receive(self, problem: Problem, state: Any, sent: Array, kept: Any, heads: Array) -> Any:
        """Return the state after the round, of the compressed vectors and the coins [seeds]."""

    def state_size(self, problem: Problem) -> int:
        """Return how many numbers make up a state, N."""
        return int(self.flatten(self.init(problem, np.zeros((1, problem.dim)))).shape[1])

    def flatten(self, state: Any) -> Array:
        """Return the numbers that make up a state, [seeds, N]."""
        return np.asarray(state.x)

    def restore(self, problem: Problem, flat: Array) -> Any:
        """Return the state made up of these numbers."""
        return Iterate(flat)


def toss(draws: Draws, chance: float) -> Array:
    """Return the coins of a round, [seeds]."""
    return np.asarray(draws.generator("coin").random(draws.seeds) < chance)


def joined(*parts: Array) -> Array:
    """Return [seeds, ...] arrays side by side, [seeds, N]."""
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def parted(flat: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Return the arrays of these shapes (a seed's) that :func:`joined` put side by side."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = np.split(flat, ends[:-1], axis=1)
    return [part.reshape(len(flat), *shape) for part, shape in zip(parts, shapes, strict=True)]
