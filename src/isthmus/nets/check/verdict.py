"""What a verification says: every comparison with its error, and what could not be judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from isthmus.errors import InvalidInput

_ROUNDING = 10.0  # by how much more than one change in the last digits those of all operators may add up
_BLURRED = 0.05  # a relative error from which on rounding hides whether results agree


class Unjudged(InvalidInput):
    """A network that cannot be verified on this call, and why."""

    def __init__(self, why: str) -> None:
        super().__init__(f"`model` cannot be verified: {why}")


@dataclass(frozen=True)
class Check:
    """One comparison: what was compared, the relative error, and whether it is within the tolerance."""

    what: str
    error: float
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """All comparisons of a verification.

    Attributes:
        checks: the comparisons.
        unjudged: what was not compared, and why.
    """

    checks: tuple[Check, ...]
    unjudged: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether there are comparisons, and all are within the tolerance."""
        return bool(self.checks) and all(check.passed for check in self.checks)

    @property
    def worst(self) -> float:
        """The largest relative error."""
        return max((check.error for check in self.checks), default=0.0)

    def summary(self) -> str:
        """Return one line that says what differs, or that nothing does, and what was not judged."""
        rest = f"; not judged: {', '.join(self.unjudged)}" if self.unjudged else ""
        failed = [check for check in self.checks if not check.passed]
        if not failed:
            return f"{len(self.checks)} comparisons agree, largest relative error {self.worst:.1e}{rest}"
        shown = "; ".join(f"{check.what}: {check.error:.1e}" for check in failed[:3])
        return f"{len(failed)} of {len(self.checks)} comparisons differ ({shown}){rest}"


def judged(what: str, error: float, tolerance: float, change: Callable[[], float]) -> Check:
    """Return a comparison, in which a difference that rounding explains is none.

    Args:
        what: was compared.
        error: between the two.
        tolerance: of a network whose results rounding does not move.
        change: returns the error between the reference and itself with all numbers changed in their last digits: large
            where a norm takes few, nearly equal values.

    Raises:
        Unjudged: rounding moves the results as much as a wrong cut would.
    """
    if error <= tolerance:
        return Check(what, error, True)
    noise = _ROUNDING * change()
    if error > noise:
        return Check(what, error, False)
    if not noise <= _BLURRED:
        raise Unjudged(
            f"rounding alone moves its {what} by {noise:.0e} of what they are (a norm over very few or equal values?): "
            "give a larger batch"
        )
    return Check(what, error, True)


def relative_error(value: Tensor, reference: Tensor, scale: float = 0.0) -> float:
    """Return max |value - reference| / max(max |reference|, scale, 1e-6); infinite for different shapes.

    Whole numbers and truth values are equal or not; infinities and nan agree with themselves.
    """
    if value.shape != reference.shape:
        return float("inf")
    value, reference = (each if each.layout == torch.strided else each.to_dense() for each in (value, reference))
    if not value.numel():
        return 0.0
    if value.is_complex() and reference.is_complex():
        return relative_error(torch.view_as_real(value), torch.view_as_real(reference), scale)
    if not value.is_floating_point():
        return 0.0 if torch.equal(value, reference) else float("inf")
    same = (value == reference) | (value.isnan() & reference.isnan())
    difference = torch.where(same, torch.zeros_like(value), (value - reference).abs()).max().item()
    error = difference / max(magnitude(reference), scale, 1e-6)
    return error if error == error else float("inf")


def magnitude(tensor: Tensor) -> float:
    """Return the largest finite absolute value; 0 where there is none."""
    if not (tensor.is_floating_point() or tensor.is_complex()) or not tensor.numel():
        return 0.0
    size = tensor.detach().abs()
    return float(torch.where(size.isfinite(), size, torch.zeros_like(size)).max())
