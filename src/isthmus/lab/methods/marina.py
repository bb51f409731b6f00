"""MARINA: compressed differences of gradients between rare synchronisations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isthmus.errors import check_number
from isthmus.lab.accounting import Cost, numbers
from isthmus.lab.arrays import Array
from isthmus.lab.compressors import Compressor, require_unbiased
from isthmus.lab.methods.base import Draws
from isthmus.lab.methods.linear import LinearMethod, joined, parted, toss
from isthmus.lab.methods.messages import SEED, gradient_round, uplink
from isthmus.lab.multipliers import Multipliers
from isthmus.lab.problems import Minibatch, Problem, worker_gradients


@dataclass(frozen=True, eq=False)
class Estimated:
    """Iterates [seeds, d], the server's estimate of the gradient [seeds, d], the workers' last gradients."""

    x: Array
    estimate: Array
    gradients: Array


@dataclass(frozen=True)
class MARINA(LinearMethod):
    """x+ = x - gamma G;  G+ = grad f(x+) by chance p, else G + (1/n) sum_i C_i(grad f_i(x+) - grad f_i(x)).

    One coin a round for all workers. With p = 1 it is gradient descent; with Perm-K the differences of equal workers
    are averaged without error. With minibatches both gradients of a difference use the same samples; synchronisations
    are exact.

    Args:
        compressor: unbiased; :class:`PermK` for MARINA with Perm-K.
        stepsize: gamma > 0.
        probability: p in (0, 1].

    Raises:
        InvalidInput: a biased compressor or a number outside its range.

    Reference:
        Gorbunov, Burlachenko, Li, Richtarik (arXiv 2102.07845); Szlendak, Tyurin, Richtarik (arXiv 2110.03300).
    """

    compressor: Compressor
    stepsize: float
    probability: float

    def __post_init__(self) -> None:
        require_unbiased(self.compressor)
        check_number("stepsize", self.stepsize, above=0.0)
        check_number("probability", self.probability, above=0.0, at_most=1.0)

    def init(self, problem: Problem, x0: Array) -> Estimated:
        """Start at x0 with the full gradient there."""
        gradients = problem.worker_gradients(x0)
        return Estimated(x0, np.asarray(gradients.mean(axis=1)), gradients)

    def step(self, problem: Problem, state: Estimated, draws: Draws) -> Estimated:
        """Step, then renew the estimate."""
        differences, moved = self.send(problem, state, draws)
        sent = self.compressor.compress(differences, draws.generator("compressor"))
        return self.receive(problem, state, sent, moved, toss(draws, self.chance))

    @property
    def chance(self) -> float:
        """p, of a synchronisation."""
        return self.probability

    def multipliers(self, problem: Problem) -> Multipliers | None:
        """The compressor's."""
        return self.compressor.multipliers(problem.workers)

    def send(self, problem: Problem, state: Estimated, draws: Draws) -> tuple[Array, Estimated]:
        """Differences of gradients at x+ and x; x+, the full gradient and the workers' gradients there."""
        x = state.x - self.stepsize * state.estimate
        gradients = worker_gradients(problem, x, draws)
        before = state.gradients
        if isinstance(problem, Minibatch):
            before = worker_gradients(problem, state.x, draws)  # the same draws: the same samples
        exact = problem.worker_gradients(x) if isinstance(problem, Minibatch) else gradients
        return gradients - before, Estimated(x, np.asarray(exact.mean(axis=1)), gradients)

    def receive(self, problem: Problem, state: Estimated, sent: Array, kept: Estimated, heads: Array) -> Estimated:
        """x+, with the full gradient there for heads and else the estimate moved by the mean difference."""
        estimate = np.where(heads[:, None], kept.estimate, state.estimate + sent.mean(axis=1))
        return Estimated(kept.x, estimate, kept.gradients)

    def flatten(self, state: Estimated) -> Array:
        """x and the estimate; the gradients follow from x."""
        return joined(state.x, state.estimate)

    def restore(self, problem: Problem, flat: Array) -> Estimated:
        """From x and the estimate."""
        x, estimate = parted(flat, (problem.dim,), (problem.dim,))
        return Estimated(x, estimate, problem.worker_gradients(x))

    def cost(self, problem: Problem, draws: Draws | None = None, value_bits: int = 64) -> Cost:
        """A gradient (two minibatches), a message or all of it up, the model down; a model and two gradients held."""
        share = self.probability if draws is None else toss(draws, self.chance).astype(np.float64)
        whole = numbers(problem.dim, value_bits)
        up = uplink(self.compressor, problem, draws, value_bits) * (1.0 - share) + whole * share
        if not isinstance(problem, Minibatch):
            return gradient_round(problem, up, whole, memory=3 * problem.dim)
        two = gradient_round(problem, up, whole, memory=3 * problem.dim, gradients=2.0)
        full = gradient_round(problem.problem, up, whole, memory=0.0)
        work, gradients = ((1.0 - share) * a + share * b for a, b in ((two.work, full.work), (two.gradients, 1.0)))
        return Cost(up, whole, True, work, gradients, two.memory)

    def start_cost(self, problem: Problem, value_bits: int = 64) -> Cost:
        """The run's seed, and the first full gradient up."""
        plain = problem.problem if isinstance(problem, Minibatch) else problem
        whole = numbers(problem.dim, value_bits)
        return SEED + gradient_round(plain, whole, whole, memory=2 * problem.dim)
