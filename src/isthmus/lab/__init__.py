"""The lab: exact theory of Independent Subnetwork Training on quadratics, beside simulation. NumPy and SciPy only."""

from isthmus.lab import theory
from isthmus.lab.methods import IST, GradientDescent
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.simulate import Simulation, simulate
from isthmus.lab.sketches import (
    Bernoulli,
    Identity,
    ImportanceSampling,
    Permutation,
    RandomSparsification,
    ScaledPermutation,
    Sketch,
)

__all__ = [
    "IST",
    "Bernoulli",
    "GradientDescent",
    "Identity",
    "ImportanceSampling",
    "Permutation",
    "Quadratic",
    "RandomSparsification",
    "ScaledPermutation",
    "Simulation",
    "Sketch",
    "simulate",
    "theory",
]
