"""A network's outputs dealt by class, and what of that is refused before anything is trained."""

from __future__ import annotations

from isthmus.errors import InvalidInput
from isthmus.nets import Coupling
from isthmus.nets.axes.structure import Axis
from isthmus.partitions.classes import ClassDeal
from isthmus.strategies import ClassCut


def class_axis(coupling: Coupling) -> Axis:
    """Return the axis of a network's classes.

    Raises:
        InvalidInput: the trace does not find it; says why.
    """
    last = coupling.last
    if last is None or last.axis is None:
        why = "it was not looked for" if last is None else last.problem
        raise InvalidInput(f"strategy 'class-cut' needs a network whose last layer has a row a class: {why}")
    return last.axis


def deal_classes(strategy: ClassCut, coupling: Coupling, workers: int, seed: int) -> ClassDeal:
    """Return who owns which classes of a network.

    Raises:
        InvalidInput: a network whose last layer is not found, or more workers than classes.
    """
    return strategy.deal(class_axis(coupling).size, workers, seed)
