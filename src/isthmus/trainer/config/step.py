"""What one step of a worker is."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.errors import InvalidInput, check_choice, check_integer, check_number

AUTOCAST = ("bfloat16", "float16")


@dataclass(frozen=True)
class Step:
    """One step of the optimizer.

    Attributes:
        batch_size: samples of one step of one worker.
        accumulate: passes a step's samples go through the network in; their gradients are added up.
        clip: largest norm of a step's gradient; a larger one is shortened to it.
        autocast: type of number for matrix products (bfloat16 or float16); None: as the network has them.

    Raises:
        InvalidInput: a value that breaks its rule.
    """

    batch_size: int = 32
    accumulate: int = 1
    clip: float | None = None
    autocast: str | None = None

    def __post_init__(self) -> None:
        check_integer("batch_size", self.batch_size, at_least=1)
        check_integer("accumulate", self.accumulate, at_least=1)
        if self.batch_size % self.accumulate:
            raise InvalidInput(
                f"`accumulate` must divide the batch of {self.batch_size} samples evenly, got {self.accumulate}"
            )
        if self.clip is not None:
            check_number("clip", self.clip, above=0.0)
        if self.autocast is not None:
            check_choice("autocast", self.autocast, AUTOCAST)
