"""One accounting for every method: bits, work, memory and gradients, per worker and in total.

All counts are of one worker in one round unless they say otherwise. They are computed beside the numerics, never from
them: a method states its :class:`Cost`, expected or for given draws.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from isthmus.errors import check_choice
from isthmus.lab.arrays import Array

Count = float | Array
BROADCASTS = ("unicast", "multicast")
SEED_BITS = 64


@dataclass(frozen=True, eq=False)
class Message:
    """Bits of one message, by what they are for.

    Attributes:
        values: numbers at the precision of the run.
        indices: which coordinates they belong to.
        extras: norms, signs and levels, exponents, flags, seeds: all that is needed beside values and indices.

    >>> (Message(values=64.0) + Message(indices=3.0)).bits
    67.0
    """

    values: Count = 0.0
    indices: Count = 0.0
    extras: Count = 0.0

    @property
    def bits(self) -> Count:
        """All of them."""
        return self.values + self.indices + self.extras

    @property
    def without_indices(self) -> Count:
        """All but the indices: what many papers count."""
        return self.values + self.extras

    def __add__(self, other: Message) -> Message:
        return Message(self.values + other.values, self.indices + other.indices, self.extras + other.extras)

    def __mul__(self, times: Count) -> Message:
        return Message(self.values * times, self.indices * times, self.extras * times)

    def mean_over_workers(self) -> Message:
        """Return counts [seeds, n] averaged over their last axis; a number stays what it is."""
        counts = (self.values, self.indices, self.extras)
        return Message(*(count.mean(axis=-1) if isinstance(count, np.ndarray) else count for count in counts))


@dataclass(frozen=True, eq=False)
class Cost:
    """What one round costs one worker, on average over the workers.

    Attributes:
        up: to the server.
        down: from the server.
        same_for_all: whether the downlink is one message for all workers, which a multicast sends once.
        work: floating-point operations (a multiply-add is two), of gradients; compression is left out as O(d).
        gradients: full gradients of f_i, a block's gradient counting as its share of the work.
        memory: numbers a worker holds beside its data: models, gradients, shifts, at the largest moment of the round.
    """

    up: Message
    down: Message
    same_for_all: bool
    work: Count
    gradients: Count
    memory: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.up + other.up,
            self.down + other.down,
            self.same_for_all and other.same_for_all,
            self.work + other.work,
            self.gradients + other.gradients,
            max(self.memory, other.memory),
        )

    def __mul__(self, times: Count) -> Cost:
        """Repeat, or happen with a probability: everything scales but the memory, which must be there."""
        return Cost(
            self.up * times,
            self.down * times,
            self.same_for_all,
            self.work * times,
            self.gradients * times,
            self.memory,
        )


NOTHING = Cost(Message(), Message(), True, 0.0, 0.0, 0.0)


def numbers(count: Count, value_bits: int) -> Message:
    """Return a message of ``count`` plain numbers."""
    return Message(values=count * value_bits)


def index_bits(dim: int) -> int:
    """Return ceil(log2 d): bits that name one of d coordinates.

    >>> index_bits(1), index_bits(2), index_bits(5)
    (0, 1, 3)
    """
    return (dim - 1).bit_length()


@dataclass(frozen=True, eq=False)
class Ledger:
    """Running totals after each round, [seeds, K+1] or [K+1]; round 0 holds the start-up cost.

    Attributes:
        up: bits up per worker.
        down: bits down per worker.
        up_without_indices: likewise, indices left out.
        up_total: bits up over all workers.
        down_total: bits down over all workers, a broadcast counted as ``broadcast`` says.
        work: floating-point operations per worker.
        gradients: full gradients per worker.
        memory: numbers a worker holds, the largest so far (one number).
        broadcast: "unicast" (a message to all is n messages) or "multicast" (it is one).
    """

    up: Array
    down: Array
    up_without_indices: Array
    up_total: Array
    down_total: Array
    work: Array
    gradients: Array
    memory: float
    broadcast: str

    @property
    def bits(self) -> Array:
        """Bits up and down per worker."""
        return self.up + self.down

    @property
    def bits_total(self) -> Array:
        """Bits up and down over all workers."""
        return self.up_total + self.down_total

    def at(self, seed: int, round: int) -> dict[str, float]:
        """Return the totals of one seed after one round as plain numbers."""
        names = [field.name for field in fields(self) if field.name not in ("memory", "broadcast")]
        picked = {name: float(getattr(self, name)[seed, round]) for name in [*names, "bits", "bits_total"]}
        return {**picked, "memory": self.memory}


def ledger(start: Cost, rounds: list[Cost], workers: int, seeds: int, broadcast: str = "unicast") -> Ledger:
    """Add up the start-up cost and the rounds' costs.

    Args:
        start: once, before the first round.
        rounds: one cost a round, in numbers or arrays over seeds.
        workers: n.
        seeds: how many.
        broadcast: how a message to all is counted in the totals.

    Raises:
        InvalidInput: another broadcast.
    """
    check_choice("broadcast", broadcast, BROADCASTS)
    costs = [start, *rounds]

    def running(values: list[Count]) -> Array:
        table = np.stack([np.broadcast_to(np.asarray(value, dtype=np.float64), (seeds,)) for value in values], axis=1)
        return np.cumsum(table, axis=1)

    def sent_down(cost: Cost) -> Count:
        return cost.down.bits * (1 if broadcast == "multicast" and cost.same_for_all else workers)

    up = running([cost.up.bits for cost in costs])
    return Ledger(
        up=up,
        down=running([cost.down.bits for cost in costs]),
        up_without_indices=running([cost.up.without_indices for cost in costs]),
        up_total=up * workers,
        down_total=running([sent_down(cost) for cost in costs]),
        work=running([cost.work for cost in costs]),
        gradients=running([cost.gradients for cost in costs]),
        memory=max(cost.memory for cost in costs),
        broadcast=broadcast,
    )
