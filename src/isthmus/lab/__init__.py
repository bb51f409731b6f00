"""The lab: exact theory of Independent Subnetwork Training on quadratics, beside simulation. NumPy and SciPy only."""

from isthmus.lab import theory
from isthmus.lab.methods import IST, GradientDescent
from isthmus.lab.quadratics import Quadratic
from isthmus.lab.simulate import Simulation, simulate
from isthmus.lab.sketches import Identity, Permutation, Sketch

__all__ = [
    "IST",
    "GradientDescent",
    "Identity",
    "Permutation",
    "Quadratic",
    "Simulation",
    "Sketch",
    "simulate",
    "theory",
]
