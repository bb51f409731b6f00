"""How the learning rate goes over a run: a linear rise in the warm-up, then one of these."""

from __future__ import annotations

from dataclasses import dataclass
from math import cos, pi
from typing import ClassVar

from isthmus.errors import check_number


@dataclass(frozen=True)
class Schedule:
    """A shape of the learning rate, as a share of its peak.

    Attributes:
        warmup: fraction of all steps in which it rises.

    Raises:
        InvalidInput: a fraction out of range.
    """

    name: ClassVar[str]

    warmup: float = 0.05

    def __post_init__(self) -> None:
        check_number("warmup", self.warmup, at_least=0.0, at_most=1.0)

    def share(self, step: int, steps: int) -> float:
        """Return the share of the peak at a step of so many."""
        rise = max(1, round(self.warmup * steps))
        return (step + 1) / rise if step < rise else self.after((step - rise) / max(1, steps - rise))

    def after(self, progress: float) -> float:
        """Return the share after the warm-up, at a progress from 0 to 1."""
        raise NotImplementedError


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine down to zero."""

    name: ClassVar[str] = "cosine"

    def after(self, progress: float) -> float:
        """Return the share after the warm-up."""
        return 0.5 * (1 + cos(pi * progress))


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line down to zero."""

    name: ClassVar[str] = "linear"

    def after(self, progress: float) -> float:
        """Return the share after the warm-up."""
        return 1 - progress


@dataclass(frozen=True)
class Constant(Schedule):
    """The peak until the end."""

    name: ClassVar[str] = "constant"

    def after(self, progress: float) -> float:
        """Return the share after the warm-up."""
        return 1.0


SCHEDULES: dict[str, type[Schedule]] = {kind.name: kind for kind in (Cosine, Linear, Constant)}
