"""The shares of data that isthmus reads itself."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import numpy as np

from isthmus.data import Dataset, class_profiles, load, over_workers, train_test
from isthmus.errors import InvalidInput
from isthmus.nets.graph.example import Example
from isthmus.nets.models.standardize import Standardize
from isthmus.partitions.groups import Clusters
from isthmus.trainer.config import Perceptron, TrainConfig
from isthmus.trainer.task.examples import rows
from isthmus.trainer.task.shares import HELD_OUT_MOST, Shares, check_batch, split_held_out
from isthmus.trainer.task.terms import Terms, arrays_terms

_TARGETS_HELD_OUT = 16_384  # of long sequences fewer samples are held out
_TARGETS_TESTED = 65_536  # and fewer are tested


@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """Data read, split by seed and dealt to the workers in equal random shares; nothing is scaled.

    Attributes:
        name: of the data.
        train, held_out, test: the parts.
        parts: each worker's positions in ``train``.
    """

    name: str
    train: Dataset
    held_out: Dataset
    test: Dataset
    parts: list[Any]

    def standardization(self) -> Standardize:
        """Return the constants that standardize features: images by all their pixels, others one by one."""
        return Standardize.of(self.train.features, by_feature=len(self.train.shape) == 1)

    def standardized(self, front: Standardize) -> Tables:
        """Return the same data standardized."""
        parts = {name: getattr(self, name) for name in ("train", "held_out", "test")}
        return dataclasses.replace(
            self,
            **{
                name: dataclasses.replace(part, features=front.apply_to(part.features).astype(np.float32))
                for name, part in parts.items()
            },
        )

    def shares(self, call: Example) -> Shares:
        """Return the data as a network takes it that is called so."""
        return Shares(
            lambda positions, device: rows(self.train.take(positions), call, device),
            self.parts,
            lambda device: rows(self.held_out, call, device),
            lambda device: rows(self.test, call, device),
            cache(self.terms),
            lambda groups, seed: Clusters.of(class_profiles(self.train), groups, seed),
        )

    def terms(self) -> Terms:
        """Return what of the data must be the same on all workers."""
        parts = {"training": self.train, "held-out": self.held_out, "test": self.test}
        arrays: dict[str, tuple[Any, ...]] = {name: (part.features, part.targets) for name, part in parts.items()}
        graph = self.train.graph
        if graph is not None:
            arrays["graph"] = (graph.features, graph.adjacency)
        return arrays_terms(arrays, self.train.classes)


def read_tables(config: TrainConfig, length: int | None = None) -> Tables:
    """Return the data that a configuration names or holds.

    Args:
        config: of the run.
        length: of the sequences the network takes, for text.

    Raises:
        InvalidInput: an unknown data set, one without classes, or shares smaller than a batch.
        DataError: missing or malformed files.
    """
    dataset = config.data if isinstance(config.data, Dataset) else load(config.data, length)
    if isinstance(config.model, Perceptron) and dataset.graph is not None:
        raise InvalidInput(
            f"`model` must name a network of (features, adjacency) to train on the graph {config.data_shown!r}, "
            "got none"
        )
    if dataset.classes < 2:
        raise InvalidInput(
            f"`data` must have classes to train a classifier, got {config.data_shown!r}, which is a regression: "
            "try digits, breast-cancer or idx:FOLDER"
        )
    train, test = train_test(dataset, config.seed)
    most = min(HELD_OUT_MOST, _TARGETS_HELD_OUT // train.targets_each)
    held_out, rest = split_held_out(train.samples, config.seed, most)
    held, train = train.take(held_out), train.take(rest)
    parts = over_workers(np.arange(train.samples), config.workers, config.seed)
    check_batch(parts, config.step.batch_size)
    return Tables(dataset.name, train, held, _thinned(test), parts)


def _thinned(test: Dataset) -> Dataset:
    """Return evenly spaced samples of a large test part of sequences; of other data all."""
    most = max(1, _TARGETS_TESTED // test.targets_each)
    if test.targets_each == 1 or test.samples <= most:
        return test
    return test.take(np.linspace(0, test.samples - 1, most).round().astype(np.int64))
