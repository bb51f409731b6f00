"""What the methods' theorems start from, and the two questions they answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, singledispatch
from typing import Any

import numpy as np

from isthmus.errors import InvalidInput
from isthmus.lab.arrays import Array, or_infinite, overflowing
from isthmus.lab.bounds import Assumption, Bound
from isthmus.lab.problems import Constants, Minibatch, Problem, constants, exact

_SLACK = 1e-9


@dataclass(frozen=True, eq=False)
class Setting:
    """A problem with its constants, a start and how long.

    Attributes:
        problem: what the method runs on.
        x0: [d].
        rounds: K.
    """

    problem: Problem
    x0: Array
    rounds: int

    @cached_property
    def constants(self) -> Constants:
        """mu, L, ..."""
        return constants(self.problem)

    @property
    def n(self) -> int:
        """Workers."""
        return self.problem.workers

    @cached_property
    def gap(self) -> float:
        """f(x0) - f* (f(x0) less a lower bound where f* is not known)."""
        return float(self.problem.gap(self.x0))

    @cached_property
    def distance(self) -> float:
        """|x0 - x*|^2; nan where there is no one minimiser."""
        minimizer = getattr(exact(self.problem), "minimizer", None)
        return float("nan") if minimizer is None else float(((self.x0 - minimizer) ** 2).sum())

    @property
    def k(self) -> Array:
        """0..K."""
        return np.arange(self.rounds + 1, dtype=np.float64)

    @property
    def full_gradients(self) -> Assumption:
        """No minibatches."""
        holds = not isinstance(self.problem, Minibatch)
        return Assumption("full gradients", holds, float(holds), "full gradients" if holds else "minibatches")

    def strongly_convex(self, mu: float, name: str = "mu") -> Assumption:
        """f (or every f_i) strongly convex."""
        why = f"{name} = {mu:.4g}" if mu > 0 else f"{name} = 0: no linear rate from this theorem"
        return Assumption("strong convexity", mu > 0, mu, why)

    def step_within(self, stepsize: float, limit: float) -> Assumption:
        """gamma at most the theorem's limit, up to rounding."""
        holds = stepsize <= limit * (1 + _SLACK)
        sign = "<=" if holds else ">"
        return Assumption("step size", holds, limit, f"gamma = {stepsize:.4g} {sign} {limit:.4g}, the theorem's limit")

    def geometric(self, factor: float, start: float, level: float = 0.0) -> Array:
        """factor^k start + level; inf where that overflows, nan where ``start`` is not known."""
        values = factor**self.k * start + level
        return values if np.isnan(start) else or_infinite(values)

    def average(self, total: float) -> Array:
        """total/k, inf for k = 0."""
        return np.concatenate([[np.inf], total / self.k[1:]])


@overflowing
@singledispatch
def largest_stepsize(method: Any, setting: Setting) -> float:
    """Return the largest step size that the method's theorem admits on this problem; nan where there is no theorem.

    The method's own step size plays no part.

    Raises:
        InvalidInput: a problem whose constants are not known.
    """
    return float("nan")


@overflowing
@singledispatch
def bounds(method: Any, setting: Setting) -> tuple[Bound, ...]:
    """Return what theorems say of the method's course, with the assumptions that hold and those that fail.

    Raises:
        InvalidInput: a problem whose constants are not known.
    """
    return ()


def step_of(numerator: float, curvature: float) -> float:
    """Return their ratio, a step size; infinite where the curvature is 0, and nothing is too far.

    >>> step_of(2.0, 4.0), step_of(2.0, 0.0)
    (0.5, inf)
    """
    return float(numerator / curvature) if curvature > 0 else np.inf


def with_default_stepsize(method: Any, setting: Setting) -> Any:
    """Return ``method`` with the largest step size its theorem admits.

    Raises:
        InvalidInput: there is no theorem that gives one.
    """
    limit = largest_stepsize(method, setting)
    if not (np.isfinite(limit) and limit > 0):
        raise InvalidInput(f"`stepsize` must be given for {type(method).__name__}: no theorem gives one here")
    return replace(method, stepsize=limit)
