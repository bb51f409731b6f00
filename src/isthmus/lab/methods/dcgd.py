"""Distributed compressed gradient descent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isthmus.errors import check_number
from isthmus.lab.accounting import Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.compressors import Compressor, require_unbiased
from isthmus.lab.methods.base import Draws, Iterate
from isthmus.lab.methods.linear import LinearMethod
from isthmus.lab.methods.messages import SEED, gradient_round, uplink
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.problems import Problem, worker_gradients


@dataclass(frozen=True)
class DCGD(LinearMethod):
    """x+ = x - gamma (1/n) sum_i C_i(grad f_i(x)).

    Compressed gradients: the noise at x* is that of compressing grad f_i(x*), zero where the workers agree there. With
    Perm-K and equal workers it is gradient descent. Partial participation is the compressor :class:`Participation`.

    Raises:
        InvalidInput: a biased compressor or a step size that is not positive.

    Reference:
        Khirirat, Feyzmahdavian, Johansson (2018); Gorbunov, Hanzely, Richtarik (arXiv 1905.11261).
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
        """Every worker compresses its gradient; the server steps along the mean."""
        gradients, _ = self.send(problem, state, draws)
        return self.receive(problem, state, self.compressor.compress(gradients, draws.generator("compressor")))

    def multipliers(self, problem: Problem) -> Multipliers | None:
        """The compressor's."""
        return self.compressor.multipliers(problem.workers)

    def send(self, problem: Problem, state: Iterate, draws: Draws) -> tuple[Array, None]:
        """Gradients."""
        return worker_gradients(problem, state.x, draws), None

    def receive(self, problem: Problem, state: Iterate, sent: Array, kept: Any = None, heads: Any = None) -> Iterate:
        """A step along the mean."""
        return Iterate(state.x - self.stepsize * sent.mean(axis=1))

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A gradient, its message up, the model down; a model and a gradient held."""
        up = uplink(self.compressor, problem, draws, value_bits)
        return gradient_round(problem, up, numbers(problem.dim, value_bits), memory=2 * problem.dim)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The run's seed down."""
        return SEED
