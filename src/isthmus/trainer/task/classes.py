"""A network's outputs dealt by class, and what of that is refused before anything is trained."""

from __future__ import annotations

from isthmus.nets import Coupling
from isthmus.partitions.classes import ClassDeal
from isthmus.strategies import ClassCut
from isthmus.trainer.task.fitting import class_axis


def deal_classes(strategy: ClassCut, coupling: Coupling, workers: int, seed: int) -> ClassDeal:
    """Return who owns which classes of a network.

    Raises:
        InvalidInput: a network whose last layer is not found, or more workers than classes.
    """
    return strategy.deal(class_axis(coupling, strategy.name).size, workers, seed)
