"""Which samples a worker of a class cut trains on: a share of every batch from its own classes, the rest from all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from isthmus.errors import InvalidInput
from isthmus.partitions.classes import ClassDeal
from isthmus.randomness import generator
from isthmus.trainer.task.balanced import Balanced
from isthmus.trainer.task.examples import Positions
from isthmus.trainer.task.shares import Feed, Shares, batch_at


@dataclass(frozen=True, eq=False)
class Routed:
    """One worker's samples, and the order in which it takes them.

    Attributes:
        own: positions of the samples of its own classes, which are sent to it, whoever had them.
        rest: positions of the samples that the others are drawn from.
        had: positions of the share of all samples that it has anyway.
        batch_size: samples of a step.
        own_count: of these from ``own``.
        prior: P, the share of its own classes among all targets.
        drawn: q', that among the targets of its batches, in expectation.
        seed, worker: what the order is drawn from.
    """

    own: Positions
    rest: Positions
    had: Positions
    batch_size: int
    own_count: int
    prior: float
    drawn: float
    seed: int
    worker: int

    @property
    def positions(self) -> Positions:
        """All samples it needs, sorted."""
        return np.union1d(self.own if self.own_count else self.own[:0], self.rest if self._others else self.rest[:0])

    @property
    def sent(self) -> int:
        """How many of them others have, and send: once, before the first round."""
        return len(np.setdiff1d(self.positions, self.had))

    @property
    def _others(self) -> int:
        return self.batch_size - self.own_count

    def at(self, step: int) -> Positions:
        """Return the positions of a step's samples: first those of its own classes."""
        own = _drawn(self.own, self.own_count, step, (self.seed, "train/own", self.worker))
        return np.concatenate([own, _drawn(self.rest, self._others, step, (self.seed, "train/rest", self.worker))])


def routed(
    deal: ClassDeal, worker: int, targets: np.ndarray, rest: Positions, batch_size: int, own_share: float, seed: int
) -> Routed:
    """Return what a worker trains on.

    With several targets a sample (every position of a sequence, several labels) a sample is of many classes: every
    worker needs all of them, as they are.

    Args:
        deal: of the classes.
        worker: by its seat.
        targets: [m] class numbers of all samples, or [m, ...] several of each; negative ones do not count. Of labels
            nothing but their number m is looked at.
        rest: positions of the worker's share of them.
        batch_size: samples of a step.
        own_share: q, the share of a step's samples that are of its own classes; at least one is of the rest.
        seed: of the run.

    Raises:
        InvalidInput: a share that has no effect, or no samples of the worker's classes.
    """
    gate, owned = deal.gate, deal.owned(worker)
    everything, own = np.arange(len(targets)), np.empty(0, np.int64)
    if not gate.normalized or not len(owned):  # labels by themselves, or a gate: it learns from all as they are
        return Routed(own, everything, rest, batch_size, 0, 1.0, 1.0, seed, worker)
    is_own = np.isin(targets, owned)
    prior = float(is_own.sum() / max(1, (targets >= 0).sum()))
    if targets.ndim > 1:
        return Routed(own, everything, rest, batch_size, 0, prior, prior, seed, worker)
    own = np.flatnonzero(is_own)
    count = _own_count(deal, worker, batch_size, own_share)
    if count and not len(own):
        raise InvalidInput(f"no training sample is of the {len(owned)} classes of worker {worker}: use fewer workers")
    share = count / batch_size
    return Routed(own, rest, rest, batch_size, count, prior, share + (1 - share) * prior, seed, worker)


def routed_feed(
    shares: Shares, deal: ClassDeal, worker: int, batch_size: int, own_share: float, seed: int, device: torch.device
) -> tuple[Feed, Routed]:
    """Return what a worker of a run trains on, and how that was chosen.

    Args:
        shares: the data of the run.
        deal, worker, batch_size, own_share, seed: as in :func:`routed`.
        device: where to train.
    """
    everything = shares.everything
    rest = np.searchsorted(everything, shares.parts[worker])
    targets = shares.targets(everything) if deal.gate.normalized else everything  # of labels, no more than how many
    chosen = routed(deal, worker, targets, rest, batch_size, own_share, seed)
    held = chosen.positions
    examples = shares.train(everything[held], device)
    return Feed(examples, lambda step: np.searchsorted(held, chosen.at(step)), chosen.sent), chosen


def _own_count(deal: ClassDeal, worker: int, batch_size: int, own_share: float) -> int:
    """Return how many samples of a step are drawn from a worker's own classes."""
    if len(deal.owned(worker)) == deal.classes:
        return 0
    if deal.units(worker) == 0:  # nothing is to be learned from other classes
        return batch_size
    return min(round(own_share * batch_size), batch_size - 1)


def _drawn(pool: Positions, count: int, step: int, key: tuple[int, str, int]) -> Positions:
    """Return what a step takes of a pool that is gone through again and again, every time in a new order."""
    if not count:
        return pool[:0]
    epochs, places = np.divmod(np.arange(step * count, (step + 1) * count), len(pool))
    seed, purpose, worker = key
    parts = (places[epochs == epoch] for epoch in range(epochs[0], epochs[-1] + 1))
    orders = (_order(seed, purpose, epoch, worker, len(pool)) for epoch in range(epochs[0], epochs[-1] + 1))
    return pool[np.concatenate([order[part] for order, part in zip(orders, parts, strict=True)])]


@lru_cache(maxsize=64)
def _order(seed: int, purpose: str, epoch: int, worker: int, size: int) -> Positions:
    return generator(seed, purpose, epoch, worker).permutation(size)


@dataclass(frozen=True)
class Common:
    """The order in which all workers take all samples.

    Attributes:
        count: of samples.
        batch_size: samples of a step.
        seed: what the order is drawn from.
    """

    count: int
    batch_size: int
    seed: int

    def at(self, step: int) -> Positions:
        """Return the positions of a step's samples."""
        return batch_at(self.seed, self.batch_size, 0, self.count, step)


def common_feed(shares: Shares, worker: int, batch_size: int, seed: int, device: torch.device) -> Feed:
    """Return what a worker trains on where all take the same batches of all samples.

    Args:
        shares: the data of the run.
        worker: by its seat.
        batch_size: samples of a step.
        seed: of the run.
        device: where to train.
    """
    everything = shares.everything
    order = Common(len(everything), batch_size, seed)
    return Feed(shares.train(everything, device), order.at, len(everything) - len(shares.parts[worker]))


class Batches:
    """The batches of a worker's loop: a batch sampler for ``torch.utils.data.DataLoader``, which goes on where it was.

    Args:
        routed: the worker's samples, in the order in which it takes them.
        length: batches of one pass through the loader.
        among: positions of the samples that it numbers; None: those of all.
    """

    def __init__(self, routed: Routed | Balanced | Common, length: int, among: Positions | None = None) -> None:
        self.routed, self._length, self._among, self._step = routed, length, among, 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self):  # type: ignore[no-untyped-def]
        for _ in range(self._length):
            self._step += 1
            chosen = self.routed.at(self._step - 1)
            yield (chosen if self._among is None else self._among[chosen]).tolist()

    def state_dict(self) -> dict[str, int]:
        """Return how many batches were taken."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self._step = state["step"]
