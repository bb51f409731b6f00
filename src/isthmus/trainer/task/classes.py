"""A network's outputs dealt by class, and what of that is refused before anything is trained."""

from __future__ import annotations

from dataclasses import replace

from isthmus.errors import InvalidInput
from isthmus.nets import Coupling
from isthmus.partitions.classes import ClassDeal
from isthmus.strategies import ClassCut
from isthmus.trainer.task.fitting import class_axis
from isthmus.trainer.task.shares import Shares


def deal_classes(strategy: ClassCut, coupling: Coupling, workers: int, seed: int) -> ClassDeal:
    """Return who owns which classes of a network.

    Raises:
        InvalidInput: a network whose last layer is not found, or more workers than classes.
    """
    return strategy.deal(class_axis(coupling, strategy.name).size, workers, seed)


def grouped(strategy: ClassCut, shares: Shares, workers: int, seed: int) -> ClassCut:
    """Return the cut with its groups of classes, where those are learned from the training data.

    Raises:
        InvalidInput: data whose inputs are not known.
    """
    if strategy.grouping.ready:
        return strategy
    if shares.clusters is None:
        raise InvalidInput(
            f"`groups` {strategy.grouping.name!r} needs data that isthmus reads itself, or an isthmus.data.Dataset: of "
            "others give ClassCut(groups=Clusters.of(profiles, workers, seed)), a profile a class"
        )
    return replace(strategy, groups=shares.clusters(strategy.gating.experts(workers), seed))
