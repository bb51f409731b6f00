"""EF21: error feedback for contractive compressors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isthmus.errors import check_number
from isthmus.lab.accounting import Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.compressors import Compressor, require_contractive
from isthmus.lab.methods.base import Draws
from isthmus.lab.methods.diana import Shifted
from isthmus.lab.methods.linear import LinearMethod, joined, parted
from isthmus.lab.methods.messages import SEED, gradient_round, uplink
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.problems import Problem, worker_gradients


@dataclass(frozen=True)
class EF21(LinearMethod):
    """x+ = x - gamma (1/n) sum_i G_i,  G_i+ = G_i + C_i(grad f_i(x+) - G_i).

    The G_i (``shifts`` of the state) start at grad f_i(x^0), which are sent whole.

    Raises:
        InvalidInput: a compressor that is not contractive or a step size that is not positive.

    Reference:
        Richtarik, Sokolov, Fatkhullin (arXiv 2106.05203), Algorithm 2.
    """

    compressor: Compressor
    stepsize: float

    def __post_init__(self) -> None:
        require_contractive(self.compressor)
        check_number("stepsize", self.stepsize, above=0.0)

    def init(self, problem: Problem, x0: Array) -> Shifted:
        """Start at x0 with G_i = grad f_i(x0)."""
        return Shifted(x0, problem.worker_gradients(x0))

    def step(self, problem: Problem, state: Shifted, draws: Draws) -> Shifted:
        """Step along the mean of the G_i, then correct them."""
        missing, x = self.send(problem, state, draws)
        return self.receive(problem, state, self.compressor.compress(missing, draws.generator("compressor")), x)

    def multipliers(self, problem: Problem) -> Multipliers | None:
        """The compressor's."""
        return self.compressor.multipliers(problem.workers)

    def send(self, problem: Problem, state: Shifted, draws: Draws) -> tuple[Array, Array]:
        """What the G_i miss of the gradients at x+, and x+."""
        x = state.x - self.stepsize * state.shifts.mean(axis=1)
        return worker_gradients(problem, x, draws) - state.shifts, x

    def receive(self, problem: Problem, state: Shifted, sent: Array, kept: Array, heads: Any = None) -> Shifted:
        """x+, and the G_i corrected."""
        return Shifted(kept, state.shifts + sent)

    def flatten(self, state: Shifted) -> Array:
        """x and the G_i."""
        return joined(state.x, state.shifts)

    def restore(self, problem: Problem, flat: Array) -> Shifted:
        """From x and the G_i."""
        return Shifted(*parted(flat, (problem.dim,), (problem.workers, problem.dim)))

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A gradient, its message up, the model down; a model, a gradient and G_i held."""
        up = uplink(self.compressor, problem, draws, value_bits)
        return gradient_round(problem, up, numbers(problem.dim, value_bits), memory=3 * problem.dim)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The run's seed, and the first gradients up."""
        whole = numbers(problem.dim, value_bits)
        return SEED + gradient_round(problem, whole, whole, memory=2 * problem.dim)
