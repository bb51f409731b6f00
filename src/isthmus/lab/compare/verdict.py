"""Why a method did not reach the target: too few rounds, an end above the target, or no end at all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array
from isthmus.lab.methods import AnchoredIST, LinearMethod
from isthmus.lab.problems import Minibatch, exact
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.rates import Setting, asymptotic_factor, bounds
from isthmus.lab.theory import stationary

_EXACT_UP_TO = 100  # coordinates for which the spectrum of second moments is a matter of seconds ...
_STATE_UP_TO = 150  # ... and numbers of a state, where a method keeps more than its iterate
_FAR = 1e9
_FALLING = 0.8


@dataclass(frozen=True)
class Verdict:
    """What became of a method that missed the target, or would have become.

    Attributes:
        status: "slow" (its end is at or below the target), "stalled" (above it) or "diverged" (it has none).
        how: "exact" (its exact dynamics tell), "theorem" (a bound that applies) or "measured" (its last rounds).
        end: exact relative gap E f - f* at which it ends; inf where it diverges, None where it is not known.
    """

    status: str
    how: str
    end: float | None = None


def verdict(setting: Setting, method: Any, target: float, relative: Array, diverged: bool) -> Verdict:
    """Return the verdict on a method that did not reach ``target``; ``relative`` [K+1] is its mean relative gap."""
    end = exact_end(setting, method)
    if diverged:
        return Verdict("diverged", "measured", end)
    if end is not None:
        return Verdict("diverged" if np.isinf(end) else "stalled" if end > target else "slow", "exact", end)
    if _led_below(setting, method, target):
        return Verdict("slow", "theorem")
    quarter = max(1, len(relative) // 4)
    falls = relative[-quarter:].mean() <= _FALLING * relative[-2 * quarter : -quarter].mean()
    return Verdict("slow" if falls else "stalled", "measured")


def exact_end(setting: Setting, method: Any) -> float | None:
    """Return the relative gap E f - f* at which a method ends, inf where it diverges, None where it is not known."""
    problem = exact(setting.problem)
    if not isinstance(problem, Quadratic) or isinstance(setting.problem, Minibatch) or problem.dim > _EXACT_UP_TO:
        return None
    if isinstance(method, LinearMethod) and method.state_size(problem) > max(_STATE_UP_TO, problem.dim):
        return None
    try:
        if isinstance(method, AnchoredIST):  # x* is its fixed point, whatever is drawn
            factor = asymptotic_factor(problem, method)
            return None if abs(factor - 1.0) <= factor.error else 0.0 if factor < 1.0 else float("inf")
        settled = stationary(problem, method)
    except InvalidInput:  # no exact moments
        return None
    if settled.exists:
        return settled.gap / setting.gap
    return float("inf") if settled.radius > 1.0 + settled.radius.error else None


@dataclass(frozen=True, eq=False)
class _AtTheEnd(Setting):
    """The setting of a bound's last round, long after the run's."""

    @cached_property
    def k(self) -> Array:
        """0 and a round that nobody waits for."""
        return np.array([0.0, _FAR])


def _led_below(setting: Setting, method: Any, target: float) -> bool:
    """Whether an upper bound that applies ends at or below the target."""
    far = _AtTheEnd(setting.problem, setting.x0, 1)
    for bound in bounds(method, far):
        if bound.applies and bound.kind == "upper" and bound.measure in ("gap", "distance"):
            factor = 1.0 if bound.measure == "gap" else 0.5 * setting.constants.L
            if factor * bound.values[-1] / setting.gap <= target:
                return True
    return False
