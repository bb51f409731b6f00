"""Gradient descent with compressed iterates, the method on whose analysis the theory of IST first leaned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from isthmus.errors import check_number
from isthmus.lab.accounting import Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.compressors import Compressor, require_unbiased
from isthmus.lab.methods.base import Draws, Iterate
from isthmus.lab.methods.linear import LinearMethod
from isthmus.lab.methods.messages import SEED, gradient_round, uplink
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.problems import Problem, mean_gradient, worker_gradients


@dataclass(frozen=True)
class GDCI(LinearMethod):
    """x+ = C(x) - gamma grad f(C(x)), one C(x) for all workers: the model is compressed on its way down.

    x* is not a fixed point: the method stalls at a level proportional to omega |x*|^2.

    Raises:
        InvalidInput: a biased compressor or a step size that is not positive.

    Reference:
        Khaled, Richtarik (arXiv 1909.04716).
    """

    compressor: Compressor
    stepsize: float

    def __post_init__(self) -> None:
        require_unbiased(self.compressor)
        check_number("stepsize", self.stepsize, above=0.0)

    def init(self, problem: Problem, x0: Array) -> Iterate:
        """Start at x0."""
        return Iterate(x0)

    def step(self, problem: Problem, state: Iterate, draws: Draws) -> Iterate:
        """Compress the model, step from there."""
        model, _ = self.send(problem, state, draws)
        return self.receive(problem, state, self.compressor.compress(model, draws.generator("compressor")), draws)

    def multipliers(self, problem: Problem) -> Multipliers | None:
        """The compressor's, of one message for all."""
        return self.compressor.multipliers(1)

    def send(self, problem: Problem, state: Iterate, draws: Draws) -> tuple[Array, Draws]:
        """The model, downwards; and the draws for its gradient."""
        return state.x[:, None], draws

    def receive(self, problem: Problem, state: Iterate, sent: Array, kept: Draws, heads: Any = None) -> Iterate:
        """A step from the compressed model."""
        x = sent[:, 0]
        return Iterate(x - self.stepsize * mean_gradient(problem, x, kept))

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A gradient, all of it up, the compressed model down; a model and a gradient held."""
        down = self.compressor.message(value_bits)
        if draws is not None:
            down = self.compressor.drawn_message(draws.generator("compressor"), draws.seeds, 1, value_bits)
        return gradient_round(problem, numbers(problem.dim, value_bits), down, memory=2 * problem.dim)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The run's seed."""
        return SEED


@dataclass(frozen=True)
class DistributedGDCI(LinearMethod):
    """x+ = (1 - eta) x + eta (1/n) sum_i C_i(x - gamma grad f_i(x)): the workers' new models are compressed.

    Args:
        compressor: unbiased.
        stepsize: gamma > 0.
        mixing: eta in (0, 1].

    Raises:
        InvalidInput: a biased compressor or a number outside its range.

    Reference:
        Chraibi et al. (arXiv 2102.07245); Shulgin, Richtarik (arXiv 2206.10452).
    """

    tunable: ClassVar[str | None] = "mixing"

    compressor: Compressor
    stepsize: float
    mixing: float = 1.0

    def __post_init__(self) -> None:
        require_unbiased(self.compressor)
        check_number("stepsize", self.stepsize, above=0.0)
        check_number("mixing", self.mixing, above=0.0, at_most=1.0)

    def init(self, problem: Problem, x0: Array) -> Iterate:
        """Start at x0."""
        return Iterate(x0)

    def step(self, problem: Problem, state: Iterate, draws: Draws) -> Iterate:
        """Every worker steps and compresses its model; the server mixes the mean in."""
        models, _ = self.send(problem, state, draws)
        return self.receive(problem, state, self.compressor.compress(models, draws.generator("compressor")))

    def multipliers(self, problem: Problem) -> Multipliers | None:
        """The compressor's."""
        return self.compressor.multipliers(problem.workers)

    def send(self, problem: Problem, state: Iterate, draws: Draws) -> tuple[Array, None]:
        """The workers' new models."""
        return state.x[:, None] - self.stepsize * worker_gradients(problem, state.x, draws), None

    def receive(self, problem: Problem, state: Iterate, sent: Array, kept: Any = None, heads: Any = None) -> Iterate:
        """Their mean, mixed in."""
        return Iterate((1.0 - self.mixing) * state.x + self.mixing * np.asarray(sent.mean(axis=1)))

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A gradient, a compressed model up, the model down; a model and a gradient held."""
        up = uplink(self.compressor, problem, draws, value_bits)
        return gradient_round(problem, up, numbers(problem.dim, value_bits), memory=2 * problem.dim)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The run's seed."""
        return SEED
