"""The pieces that the methods' costs are made of."""

from __future__ import annotations

from isthmus.lab.accounting import SEED_BITS, Cost, Message
from isthmus.lab.compressors import Compressor
from isthmus.lab.methods.base import Draws
from isthmus.lab.problems import Problem, gradient_share, gradient_work
from isthmus.lab.sketches import Sketch

# The run's seed, sent once: it stands for every subset, block and coin the server can derive by itself.
SEED = Cost(Message(), Message(extras=float(SEED_BITS)), True, 0.0, 0.0, 0.0)


def uplink(compressor: Compressor, problem: Problem, draws: Draws | None, value_bits: int) -> Message:
    """Return the compressed message up: expected, or per seed for given draws."""
    if draws is None:
        return compressor.message(value_bits)
    return compressor.drawn_message(draws.generator("compressor"), draws.seeds, problem.workers, value_bits)


def gradient_round(
    problem: Problem, up: Message, down: Message, memory: float, gradients: float = 1.0, same_for_all: bool = True
) -> Cost:
    """Return the cost of a round with ``gradients`` whole gradients a worker."""
    share = gradients * gradient_share(problem)
    return Cost(up, down, same_for_all, gradients * gradient_work(problem), share, memory)


def block_size(sketch: Sketch) -> float:
    """Return the coordinates a worker holds, on average over draws and workers; d where the law is not known."""
    masks = sketch.masks
    if masks is None:
        return float(sketch.dim)
    units = float(sketch.dim) if masks.marginals is None else float(masks.marginals.sum(axis=1).mean())
    return masks.within[0] * units
