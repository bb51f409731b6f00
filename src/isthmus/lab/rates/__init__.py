"""Rates: what theorems say of every method on a given problem, and the step sizes they admit."""

from isthmus.lab.rates import estimators, gradients, models
from isthmus.lab.rates.anchored import (
    Surrogate,
    anchored_factor,
    asymptotic_factor,
    best_momentum,
    best_scale,
    surrogate,
)
from isthmus.lab.rates.anchored_dynamics import anchored_dynamics
from isthmus.lab.rates.base import Setting, bounds, largest_stepsize, with_default_stepsize
from isthmus.lab.rates.extrapolation import extrapolated_fixed_point, extrapolation_weights
from isthmus.lab.rates.gradients import best_momentum_of
from isthmus.lab.rates.models import local_fixed_point

__all__ = [
    "Setting",
    "Surrogate",
    "anchored_dynamics",
    "anchored_factor",
    "asymptotic_factor",
    "best_momentum",
    "best_momentum_of",
    "best_scale",
    "bounds",
    "estimators",
    "extrapolated_fixed_point",
    "extrapolation_weights",
    "gradients",
    "largest_stepsize",
    "local_fixed_point",
    "models",
    "surrogate",
    "with_default_stepsize",
]
