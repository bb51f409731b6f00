"""Local gradient descent (FedAvg): several steps on every worker, then an average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.lab.accounting import NOTHING, Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws, Iterate
from isthmus.lab.methods.linear import LinearMethod
from isthmus.lab.methods.messages import gradient_round
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.problems import Problem, worker_gradients


@dataclass(frozen=True)
class LocalGradientDescent(LinearMethod):
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
            raise InvalidInput(f"`participants` must be at most the {problem.workers} workers, got {self.participants}")
        return Iterate(x0)

    def step(self, problem: Problem, state: Iterate, draws: Draws) -> Iterate:
        """Local steps, then the mean."""
        models, _ = self.send(problem, state, draws)
        if self.participants is not None:
            order = np.argsort(draws.generator("participants").random(models.shape[:2]), axis=1)
            here = order[:, : self.participants]  # their mean alone: the models of the others may be infinite
            models = np.take_along_axis(models, here[:, :, None], axis=1)
        return self.receive(problem, state, models)

    def multipliers(self, problem: Problem) -> Multipliers:
        """n/m for the m participants, 0 for the others."""
        n, m = problem.workers, self.participants or problem.workers
        together = n * (m - 1) / (m * (n - 1)) if n > 1 else 1.0
        return Multipliers.exchangeable(n, problem.dim, 1.0, (n / m, n / m), (together, together))

    def send(self, problem: Problem, state: Iterate, draws: Draws) -> tuple[Array, None]:
        """The workers' models after H steps."""
        models = state.x[:, None] - self.stepsize * worker_gradients(problem, state.x, draws)
        for step in range(1, self.local_steps):
            models = models - self.stepsize * worker_gradients(problem, models, draws, step)
        return models, None

    def receive(self, problem: Problem, state: Iterate, sent: Array, kept: Any = None, heads: Any = None) -> Iterate:
        """Their mean."""
        return Iterate(np.asarray(sent.mean(axis=1)))

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """H gradients, a model up and one down; a model and a gradient held. Only participants pay."""
        whole = numbers(problem.dim, value_bits)
        every = gradient_round(problem, whole, whole, memory=2 * problem.dim, gradients=self.local_steps)
        return every if self.participants is None else every * (self.participants / problem.workers)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """Nothing."""
        return NOTHING
