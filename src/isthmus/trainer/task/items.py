"""The shares of data of one's own: datasets or loaders of PyTorch, given from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler, default_collate

from isthmus.errors import InvalidInput
from isthmus.randomness import generator
from isthmus.trainer.config import TrainConfig
from isthmus.trainer.task.examples import ItemExamples
from isthmus.trainer.task.shares import Shares, check_batch, split_held_out
from isthmus.trainer.task.terms import items_terms

_SIZE = 256  # items of one forward pass without gradients


@dataclass(frozen=True, eq=False)
class Items:
    """A dataset, and how a batch is made of its items."""

    items: Sequence[Any]
    collate: Callable[[list[Any]], Any]


def item_shares(config: TrainConfig) -> Shares:
    """Return the shares of ``data=(train, test)``, each a dataset with ``len`` and items by number, or a loader of one.

    Loaders give their dataset and their way to make batches; the order is isthmus' own, by seed and worker.

    Raises:
        InvalidInput: something else, or shares smaller than a batch.
    """
    data = config.data
    if not isinstance(data, (tuple, list)) or len(data) != 2:
        kind = type(data).__name__
        raise InvalidInput(f"`data` must be a name, a Dataset, or two datasets or loaders (train, test), got {kind}")
    if config.features == "standardized":
        raise InvalidInput("`features` has no effect on datasets of one's own: scale there, or in the network")
    train, test = (_items(part, name) for part, name in zip(data, ("train", "test"), strict=True))
    held_out, rest = split_held_out(len(train.items), config.seed)
    order = generator(config.seed, "data/over_workers").permutation(len(rest))
    if len(rest) < config.workers:
        raise InvalidInput(
            f"`workers` must be at most the number of samples, got {config.workers} workers for {len(rest)}"
        )
    parts = [np.sort(rest[part]) for part in np.array_split(order, config.workers)]
    check_batch(parts, config.step.batch_size)
    everything = np.arange(len(test.items))
    return Shares(
        lambda positions, device: ItemExamples(train.items, positions, train.collate, device, _SIZE),
        parts,
        lambda device: ItemExamples(train.items, held_out, train.collate, device, _SIZE),
        lambda device: ItemExamples(test.items, everything, test.collate, device, _SIZE),
        cache(lambda: items_terms({"training": train.items, "test": test.items})),
    )


def _items(part: Any, name: str) -> Items:
    if not isinstance(part, DataLoader):
        return Items(_sized(part, name), default_collate)
    plain = isinstance(part.sampler, (SequentialSampler, RandomSampler))
    if not plain or type(part.batch_sampler) is not torch.utils.data.BatchSampler:
        raise InvalidInput(
            f"the {name} loader of `data` has a sampler of its own, which would have no effect: isthmus deals the "
            "samples itself; give the dataset, or write the loop with isthmus.Training"
        )
    return Items(_sized(part.dataset, name), part.collate_fn)


def _sized(items: Any, name: str) -> Sequence[Any]:
    if isinstance(items, IterableDataset) or not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
        raise InvalidInput(
            f"the {name} part of `data` must have a length and items by number, got {type(items).__name__}: "
            "for streams write the loop with isthmus.Training"
        )
    if len(items) == 0:
        raise InvalidInput(f"the {name} part of `data` must hold at least one sample, got none")
    return items
