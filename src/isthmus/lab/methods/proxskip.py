"""ProxSkip, in its federated form Scaffnew: local steps that do accelerate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import check_number
from isthmus.lab.accounting import SEED_BITS, Cost, Message, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.methods.base import Draws
from isthmus.lab.methods.linear import LinearMethod, joined, parted, toss
from isthmus.lab.methods.messages import gradient_round
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.problems import Problem, worker_gradients


@dataclass(frozen=True, eq=False)
class LocalModels:
    """The workers' models and control variates, [seeds, n, d]."""

    models: Array
    controls: Array

    @property
    def x(self) -> Array:
        """The mean of the workers' models, [seeds, d]."""
        return np.asarray(self.models.mean(axis=1))


@dataclass(frozen=True)
class ProxSkip(LinearMethod):
    """y_i = x_i - gamma (grad f_i(x_i) - h_i);  x_i+ = mean y by chance p, else y_i;  h_i += (p/gamma)(x_i+ - y_i).

    One coin a round for all workers; the h_i start at 0 and always sum to 0.

    Args:
        stepsize: gamma > 0.
        probability: p in (0, 1] of communicating.

    Raises:
        InvalidInput: a number outside its range.

    Reference:
        Mishchenko, Malinovsky, Stich, Richtarik (arXiv 2202.09357).
    """

    stepsize: float
    probability: float

    def __post_init__(self) -> None:
        check_number("stepsize", self.stepsize, above=0.0)
        check_number("probability", self.probability, above=0.0, at_most=1.0)

    def init(self, problem: Problem, x0: Array) -> LocalModels:
        """Start every worker at x0."""
        models = np.broadcast_to(x0[:, None], (len(x0), problem.workers, problem.dim))
        return LocalModels(models, np.zeros(models.shape))

    def step(self, problem: Problem, state: LocalModels, draws: Draws) -> LocalModels:
        """A corrected local step, then perhaps the mean."""
        local, _ = self.send(problem, state, draws)
        return self.receive(problem, state, local, None, toss(draws, self.chance))

    @property
    def chance(self) -> float:
        """p, of a meeting."""
        return self.probability

    def multipliers(self, problem: Problem) -> Multipliers:
        """Nothing is compressed."""
        return Multipliers.certain(problem.workers, problem.dim)

    def send(self, problem: Problem, state: LocalModels, draws: Draws) -> tuple[Array, None]:
        """Local models, a corrected step on."""
        moved = worker_gradients(problem, state.models, draws) - state.controls
        return state.models - self.stepsize * moved, None

    def receive(self, problem: Problem, state: LocalModels, sent: Array, kept: None, heads: Array) -> LocalModels:
        """The mean for heads, and the controls that it teaches."""
        models = np.where(heads[:, None, None], sent.mean(axis=1, keepdims=True), sent)
        return LocalModels(models, state.controls + (self.probability / self.stepsize) * (models - sent))

    def flatten(self, state: LocalModels) -> Array:
        """Models and controls."""
        return joined(state.models, state.controls)

    def restore(self, problem: Problem, flat: Array) -> LocalModels:
        """From models and controls; the controls' sum is always 0, a direction that no state has."""
        models, controls = parted(flat, *[(problem.workers, problem.dim)] * 2)
        return LocalModels(models, controls - controls.mean(axis=1, keepdims=True))

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A gradient; with probability p a model up and one down; a model, a gradient and a control held."""
        share = self.probability if draws is None else toss(draws, self.chance).astype(np.float64)
        whole = numbers(problem.dim, value_bits) * share
        return gradient_round(problem, whole, whole, memory=3 * problem.dim)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The run's seed, for the coins, and the first model down."""
        down = numbers(problem.dim, value_bits) + Message(extras=float(SEED_BITS))
        return Cost(Message(), down, True, 0.0, 0.0, 0.0)
