"""DIANA: compressed differences to learned shifts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from isthmus.errors import check_number
from isthmus.lab.accounting import Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.compressors import Compressor, require_unbiased
from isthmus.lab.methods.base import Draws
from isthmus.lab.methods.linear import LinearMethod, joined, parted
from isthmus.lab.methods.messages import SEED, gradient_round, uplink
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.problems import Problem, worker_gradients


@dataclass(frozen=True, eq=False)
class Shifted:
    """Iterates [seeds, d] and the workers' shifts [seeds, n, d]."""

    x: Array
    shifts: Array


@dataclass(frozen=True)
class DIANA(LinearMethod):
    """m_i = C_i(grad f_i(x) - h_i),  x+ = x - gamma (1/n) sum_i (h_i + m_i),  h_i+ = h_i + alpha m_i.

    The shifts h_i learn grad f_i(x*), so what is compressed vanishes and so does the noise. They start at 0; with
    alpha = 0 they stay there and the method is DCGD.

    Args:
        compressor: unbiased.
        stepsize: gamma > 0.
        shift_rate: alpha in [0, 1]; None for 1/(1 + omega), the largest the theory admits.

    Raises:
        InvalidInput: a biased compressor or a number outside its range.

    Reference:
        Mishchenko, Gorbunov, Takac, Richtarik (arXiv 1901.09269); Horvath et al. (arXiv 1904.05115).
    """

    tunable: ClassVar[str | None] = "shift_rate"

    compressor: Compressor
    stepsize: float
    shift_rate: float | None = None

    def __post_init__(self) -> None:
        omega = require_unbiased(self.compressor)
        check_number("stepsize", self.stepsize, above=0.0)
        rate = 1.0 / (1.0 + omega) if self.shift_rate is None else self.shift_rate
        object.__setattr__(self, "shift_rate", check_number("shift_rate", rate, at_least=0.0, at_most=1.0))

    def init(self, problem: Problem, x0: Array) -> Shifted:
        """Start at x0 with shifts 0."""
        return Shifted(x0, np.zeros((len(x0), problem.workers, problem.dim)))

    def step(self, problem: Problem, state: Shifted, draws: Draws) -> Shifted:
        """Compress differences, step, learn."""
        differences, _ = self.send(problem, state, draws)
        return self.receive(problem, state, self.compressor.compress(differences, draws.generator("compressor")))

    def multipliers(self, problem: Problem) -> Multipliers | None:
        """The compressor's."""
        return self.compressor.multipliers(problem.workers)

    def send(self, problem: Problem, state: Shifted, draws: Draws) -> tuple[Array, None]:
        """Gradients less shifts."""
        return worker_gradients(problem, state.x, draws) - state.shifts, None

    def receive(self, problem: Problem, state: Shifted, sent: Array, kept: Any = None, heads: Any = None) -> Shifted:
        """A step along the mean of what the shifts have become, and the shifts a part of the way there."""
        x = state.x - self.stepsize * (state.shifts + sent).mean(axis=1)
        assert self.shift_rate is not None
        return Shifted(x, state.shifts + self.shift_rate * sent)

    def flatten(self, state: Shifted) -> Array:
        """x and the shifts; x alone where they stay 0."""
        return joined(state.x, state.shifts) if self.shift_rate else state.x

    def restore(self, problem: Problem, flat: Array) -> Shifted:
        """From x and the shifts."""
        if not self.shift_rate:
            return self.init(problem, flat)
        return Shifted(*parted(flat, (problem.dim,), (problem.workers, problem.dim)))

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A gradient, its message up, the model down; a model, a gradient and a shift held."""
        up = uplink(self.compressor, problem, draws, value_bits)
        return gradient_round(problem, up, numbers(problem.dim, value_bits), memory=3 * problem.dim)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The run's seed."""
        return SEED
