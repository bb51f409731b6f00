"""Which examples are whose: a real share a worker, a part held out of training, and the test part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from isthmus.errors import InvalidInput
from isthmus.partitions.groups import Clusters
from isthmus.randomness import generator
from isthmus.trainer.task.examples import Examples
from isthmus.trainer.task.terms import Terms

HELD_OUT = 0.1  # of the training data, for choices that must not see the test data
HELD_OUT_MOST = 2000


@dataclass(frozen=True, eq=False)
class Shares:
    """The data of a run, before it is on a device.

    Attributes:
        train: makes the examples at some positions of the training part.
        parts: each worker's positions in it, disjoint.
        held_out: makes training examples that no worker trains on.
        test: makes the test part; of text about a thousand windows, evenly spaced.
        terms: returns what of the data must be the same on all workers; reads them.
        clusters: returns a number of groups of classes with like inputs, by seed; None where inputs are not known.
    """

    train: Callable[[NDArray[np.int64], torch.device], Examples]
    parts: list[NDArray[np.int64]]
    held_out: Callable[[torch.device], Examples]
    test: Callable[[torch.device], Examples]
    terms: Callable[[], Terms]
    clusters: Callable[[int, int], Clusters] | None = None

    def of(self, worker: int, device: torch.device) -> Examples:
        """Return a worker's own share."""
        return self.train(self.parts[worker], device)

    @property
    def everything(self) -> NDArray[np.int64]:
        """The positions of all workers' shares, sorted."""
        return np.sort(np.concatenate(self.parts))

    def targets(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """Return the targets at some positions.

        Raises:
            InvalidInput: they are not tensors.
        """
        examples = self.train(positions, torch.device("cpu"))
        found = [examples.batch(piece).targets for piece in examples.pieces()]
        if not all(isinstance(each, torch.Tensor) for each in found):
            raise InvalidInput("`strategy` needs data with a class number of every sample")
        return np.asarray(torch.cat(found))


def split_held_out(count: int, seed: int, most: int = HELD_OUT_MOST) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return positions of the training part that are held out, and the others, both sorted."""
    order = generator(seed, "train/held_out").permutation(count)
    size = max(1, min(most, round(HELD_OUT * count)))
    return np.sort(order[:size]), np.sort(order[size:])


@dataclass(frozen=True, eq=False)
class Feed:
    """What one worker trains on, step by step.

    Attributes:
        examples: of this worker.
        at: returns the positions in them of the batch of a global step.
        sent: how many of them other workers have, and send before the first round.
    """

    examples: Examples
    at: Callable[[int], NDArray[np.int64]]
    sent: int = 0


def check_batch(parts: list[NDArray[np.int64]], batch_size: int) -> None:
    """Refuse a batch that is larger than a worker's share.

    Raises:
        InvalidInput: it is.
    """
    smallest = min(len(part) for part in parts)
    if batch_size > smallest:
        raise InvalidInput(
            f"`batch_size` must be at most a worker's share of the training data, {smallest} samples, got {batch_size}"
        )


def batch_at(seed: int, batch_size: int, worker: int, share: int, step: int) -> NDArray[np.int64]:
    """Return the positions in a worker's share of ``share`` examples that make up its batch of a global step.

    Every epoch is a new order; the last examples of it that do not fill a batch are left to the next.
    """
    per_epoch = share // batch_size
    epoch, place = divmod(step, per_epoch)
    return _order(seed, epoch, worker, share)[place * batch_size : (place + 1) * batch_size]


@lru_cache(maxsize=64)
def _order(seed: int, epoch: int, worker: int, share: int) -> NDArray[np.int64]:
    return generator(seed, "train/order", epoch, worker).permutation(share)
