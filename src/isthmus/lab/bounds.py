"""What a theorem says, as data: a value per round, which assumptions hold and why, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from isthmus import frames
from isthmus.errors import InvalidInput, check_choice
from isthmus.lab.arrays import Array

if TYPE_CHECKING:
    from pandas import DataFrame

KINDS = ("tight", "upper", "lower")
MEASURES = ("gap", "distance", "gradient")


@dataclass(frozen=True)
class Assumption:
    """One assumption of a theorem.

    Attributes:
        name: what is assumed.
        holds: whether it does here; None where it cannot be decided.
        number: the number that decides.
        why: one line that says it.
    """

    name: str
    holds: bool | None
    number: float
    why: str

    def __post_init__(self) -> None:
        if self.holds is not None:  # NumPy's booleans are not `False`, which is how a failure is told from None
            object.__setattr__(self, "holds", bool(self.holds))


@dataclass(frozen=True, eq=False)
class Bound:
    """A statement about one quantity, round by round.

    Attributes:
        name: of the theorem.
        measure: what is bounded: "gap" E f(x^k) - f*, "distance" E|x^k - x*|^2, or "gradient", the running average
            (1/k) sum_{j<k} E|grad f(x^j)|^2 (its round 0 is inf).
        values: [K+1].
        kind: "tight", "upper" or "lower".
        assumptions: what the statement needs; it applies where none of them fails.
        reference: where it stands.

    Raises:
        InvalidInput: an unknown kind or measure, or values that are not one number a round.

    >>> bound = Bound("halving", "gap", np.array([1.0, 0.5]), "upper", (), "")
    >>> bound.applies, bound.ratio(np.array([1.0, 0.25]))
    (True, 1.0)
    """

    name: str
    measure: str
    values: Array
    kind: str
    assumptions: tuple[Assumption, ...]
    reference: str

    measures: ClassVar[tuple[str, ...] | None] = MEASURES  # what `measure` may be; None where any quantity

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        if self.measures is not None:
            check_choice("measure", self.measure, self.measures)
        if np.ndim(self.values) != 1 or len(self.values) == 0:
            raise InvalidInput(f"`values` must be one number a round, got shape {np.shape(self.values)}")

    @property
    def applies(self) -> bool:
        """Whether no assumption fails."""
        return all(assumption.holds is not False for assumption in self.assumptions)

    def ratio(self, measured: Array) -> float:
        """Return the worst measured/bound over the rounds: at most 1 where an upper bound holds, at least 1 a lower."""
        measured = np.asarray(measured, dtype=np.float64)[: len(self.values)]
        values = self.values[: len(measured)]
        sane = np.isfinite(values) & (values > 0)
        ratios = measured[sane] / values[sane]
        if len(ratios) == 0:
            return float("nan")
        return float(ratios.min() if self.kind == "lower" else ratios.max())

    def to_frame(self) -> DataFrame:
        """Return what is bounded and how (a column "upper bound of gap", ...), a row a round, as a pandas table."""
        return frames.by_round({f"{self.kind} bound of {self.measure}": self.values})
