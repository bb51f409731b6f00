"""Which network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isthmus.errors import InvalidInput, check_choice, check_integer
from isthmus.partitions import Axis, Law

ACTIVATIONS = ("relu", "gelu", "tanh")
NORMS = ("batch", "none")


@dataclass(frozen=True)
class Perceptron:
    """The multilayer perceptron that is trained where no other network is named.

    Attributes:
        widths: units of each hidden layer.
        activation: relu, gelu or tanh.
        norm: batch (batch norm) or none.

    Raises:
        InvalidInput: a value that breaks its rule.
    """

    widths: tuple[int, ...] = (256, 256)
    activation: str = "relu"
    norm: str = "batch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("norm", self.norm, NORMS)
        if not self.widths:
            raise InvalidInput("`widths` must name at least one hidden layer, got none")
        for width in self.widths:
            check_integer("widths", width, at_least=1)

    def check_cut(self, law: Law, workers: int) -> None:
        """Refuse layers all of which are too narrow for a piece a worker.

        Raises:
            InvalidInput: a worker would hold nothing.
        """
        problem = law.too_few(Axis("the widest", max(self.widths), kind="hidden"), workers)
        if problem is not None:
            raise InvalidInput(f"the widest hidden layer has {problem}: use fewer workers, or law='overlapping'")


@dataclass(frozen=True, eq=False)
class Own:
    """A network of one's own.

    Attributes:
        model: MODULE:FACTORY, a function that returns (network, args) or (network, args, kwargs) with an example call;
            or, from Python, such a function itself, one that returns a network, or a network.
        example: a call of the network, where the function returns none.
    """

    model: Any
    example: Any = None

    @property
    def shown(self) -> str:
        """What to call it."""
        if isinstance(self.model, str):
            return self.model
        return getattr(self.model, "__qualname__", type(self.model).__name__)
