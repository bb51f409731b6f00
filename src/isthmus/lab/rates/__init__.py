"""Rates: what theorems say of every method on a given problem, and the step sizes they admit."""

from isthmus.lab.rates import estimators, gradients, models
from isthmus.lab.rates.base import Setting, bounds, largest_stepsize, with_default_stepsize
from isthmus.lab.rates.models import local_fixed_point

__all__ = [
    "Setting",
    "bounds",
    "estimators",
    "gradients",
    "largest_stepsize",
    "local_fixed_point",
    "models",
    "with_default_stepsize",
]
