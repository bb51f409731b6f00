"""Local gradient descent (FedAvg): several steps on every worker, then an average."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.lab.accounting import NOTHING, Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws, Iterate
from isthmus.lab.methods.messages import gradient_round
from isthmus.lab.problems import Problem, worker_gradients


@dataclass(frozen=True)
class LocalGradientDescent:
    """z_i^0 = x,  z_i^{t+1} = z_i^t - gamma grad f_i(z_i^t),  t < H;  x+ = the mean of z_i^H over those who take part.

    One local step with all workers is gradient descent. With more, the limit is biased where the workers differ.

    Args:
        stepsize: gamma > 0.
        local_steps: H >= 1.
        participants: workers that take part in a round, drawn uniformly without replacement; None for all.

    Raises:
        InvalidInput: a number outside its range.

    Reference:
        Khaled, Mishchenko, Richtarik (arXiv 1909.04715).
    """

    stepsize: float
    local_steps: int = 1
    participants: int | None = None

    def __post_init__(self) -> None:
        check_number("stepsize", self.stepsize, above=0.0)
        check_integer("local_steps", self.local_steps, at_least=1)
        if self.participants is not None:
            check_integer("participants", self.participants, at_least=1)

    def init(self, problem: Problem, x0: Array) -> Iterate:
        """Start at x0.

        Raises:
            InvalidInput: more participants than workers.
        """
        if self.participants is not None and self.participants > problem.workers:
            raise InvalidInput(
                f"`participants` must be at most the {problem.workers} workers, got {self.participants}"
            )
        return Iterate(x0)

    def step(self, problem: Problem, state: Iterate, draws: Draws) -> Iterate:
        """Local steps, then the mean."""
        models = state.x[:, None] - self.stepsize * worker_gradients(problem, state.x, draws)
        for step in range(1, self.local_steps):
            models = models - self.stepsize * worker_gradients(problem, models, draws, step)
        if self.participants is None:
            return Iterate(np.asarray(models.mean(axis=1)))
        order = np.argsort(draws.generator("participants").random((len(state.x), problem.workers)), axis=1)
        here = order[:, : self.participants]
        return Iterate(np.asarray(np.take_along_axis(models, here[:, :, None], axis=1).mean(axis=1)))

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """H gradients, a model up and one down; a model and a gradient held. Only participants pay."""
        whole = numbers(problem.dim, value_bits)
        every = gradient_round(problem, whole, whole, memory=2 * problem.dim, gradients=self.local_steps)
        return every if self.participants is None else every * (self.participants / problem.workers)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """Nothing."""
        return NOTHING
