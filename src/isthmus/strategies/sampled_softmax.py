"""The narrow rival, trained on a few classes at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.errors import check_choice
from isthmus.strategies.narrow import Narrow
from isthmus.strategies.width import check_count

FREQUENCIES = ("even", "zipf")


@dataclass(frozen=True)
class SampledSoftmax(Narrow):
    """Local SGD on the narrow network; in a step it scores the right classes, and some others that are drawn.

    Scores of drawn classes are corrected by the logarithm of the chance to be drawn. Memory and bytes are those of
    ``narrow``; a step costs less.

    Attributes:
        law, balanced: as of ``narrow``.
        negatives: classes that are drawn for a step, m; or ``auto``: a tenth.
        frequencies: how likely they are drawn: ``even``, or ``zipf``: as 1 / (number of the class + 1), where classes
            are numbered by frequency.

    Raises:
        InvalidInput: a value out of range.

    Reference:
        Bengio, Senécal, "Adaptive importance sampling to accelerate training of a neural probabilistic language model"
        (IEEE TNN 2008).
    """

    name: ClassVar[str] = "sampled-softmax"
    label: ClassVar[str] = "sampled softmax"
    color: ClassVar[str] = "#44AA99"
    meaning: ClassVar[str] = (
        "as the narrow net, but a step scores the right classes and a few that are drawn, not all: cheaper steps, "
        "the same memory and bytes"
    )
    by_class: ClassVar[bool] = True

    negatives: int | str = "auto"
    frequencies: str = "even"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("negatives", self.negatives, 1)
        check_choice("frequencies", self.frequencies, FREQUENCIES)

    @property
    def title(self) -> str:
        """The name, and how many are drawn."""
        return f"{super().title} ({self.negatives} drawn)"

    @property
    def slug(self) -> str:
        """The same as part of a file's name."""
        parts = [] if isinstance(self.negatives, str) else [f"m{self.negatives}"]
        return "-".join([super().slug, *parts, *(["zipf"] if self.frequencies == "zipf" else [])])
