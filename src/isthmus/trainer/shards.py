"""The data of a run: test, a held-out part of the training data, and one real shard a worker."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from isthmus.data import Dataset, load, over_workers, standardize, train_test
from isthmus.errors import InvalidInput
from isthmus.randomness import generator
from isthmus.trainer.config import TrainConfig

_HELD_OUT = 0.1  # of the training data, for choices that must not see the test data
_HELD_OUT_MOST = 2000
_TARGETS_HELD_OUT = 16_384  # of long sequences fewer samples are held out
_TARGETS_TESTED = 65_536  # and fewer are tested


@dataclass(frozen=True, eq=False)
class Shards:
    """The data of a run, scaled by statistics of the training part.

    Attributes:
        train: what the workers share out.
        shares: each worker's sample indices into ``train``, disjoint.
        held_out: training data that no worker trains on.
        test: the test part; of text about a thousand windows, evenly spaced.
    """

    train: Dataset
    shares: list[NDArray[np.int64]]
    held_out: Dataset
    test: Dataset


def load_shards(config: TrainConfig, length: int | None = None) -> Shards:
    """Return the data of a run: loaded, split by seed, scaled, dealt to the workers in equal random shares.

    Images are centred and scaled by the mean and deviation of all pixels, other features one by one; tokens and the
    nodes of a graph are left as they are.

    Args:
        config: of the run.
        length: of the sequences the network takes, for text.

    Raises:
        InvalidInput: an unknown data set, one without classes, or shares smaller than a batch.
        DataError: missing or malformed files.
    """
    dataset = load(config.data, length)
    if config.model is None and dataset.graph is not None:
        raise InvalidInput(
            f"`model` must name a network of (features, adjacency) to train on the graph {config.data!r}, got none"
        )
    if dataset.classes < 2:
        raise InvalidInput(
            f"`data` must have classes to train a classifier, got {config.data!r}, which is a regression: "
            "try digits, breast-cancer or idx:FOLDER"
        )
    train, test = train_test(dataset, config.seed)
    order = generator(config.seed, "train/held_out").permutation(train.samples)
    size = max(1, min(_HELD_OUT_MOST, _TARGETS_HELD_OUT // _length(train), round(_HELD_OUT * train.samples)))
    held_out, train = train.take(np.sort(order[:size])), train.take(np.sort(order[size:]))
    shares = over_workers(train.targets, config.workers, config.seed)
    smallest = min(len(share) for share in shares)
    if config.batch_size > smallest:
        raise InvalidInput(
            f"`batch_size` must be at most a worker's share of the training data, {smallest} samples, "
            f"got {config.batch_size}"
        )
    if train.numeric:
        scale = _scale_images if len(dataset.shape) > 1 else standardize
        train, held_out, test = scale(train, held_out, test)
    return Shards(train, shares, held_out, _thinned(test))


def batch_at(config: TrainConfig, worker: int, share: int, step: int) -> NDArray[np.int64]:
    """Return the positions in a worker's share of ``share`` samples that make up its batch of a global step.

    Every epoch is a new order; the last samples of it that do not fill a batch are left to the next.
    """
    per_epoch = share // config.batch_size
    epoch, place = divmod(step, per_epoch)
    return _order(config.seed, epoch, worker, share)[place * config.batch_size : (place + 1) * config.batch_size]


@lru_cache(maxsize=64)
def _order(seed: int, epoch: int, worker: int, share: int) -> NDArray[np.int64]:
    return generator(seed, "train/order", epoch, worker).permutation(share)


def _length(data: Dataset) -> int:
    """Return the number of targets of a sample: the length of a sequence, or 1."""
    return data.targets[:1].size


def _thinned(test: Dataset) -> Dataset:
    """Return evenly spaced samples of a large test part of sequences; of other data all."""
    most = max(1, _TARGETS_TESTED // _length(test))
    if _length(test) == 1 or test.samples <= most:
        return test
    return test.take(np.linspace(0, test.samples - 1, most).round().astype(np.int64))


def _scale_images(train: Dataset, *others: Dataset) -> tuple[Dataset, ...]:
    """Scale by one mean and deviation, so that a pixel that is almost always dark does not become a huge number."""
    mean, deviation = train.features.mean(dtype=np.float64), train.features.std(dtype=np.float64) or 1.0
    return tuple(
        dataclasses.replace(part, features=((part.features - mean) / deviation).astype(np.float32))
        for part in (train, *others)
    )
