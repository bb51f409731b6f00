"""Exact theory of IST on quadratics: moments, dynamics, fixed points, and the theorems with what they assume."""

from isthmus.lab.theory.dynamics import Dynamics, dynamics, mean_trajectory
from isthmus.lab.theory.fixed_points import fixed_point, relative_gap
from isthmus.lab.theory.stepsizes import contraction_limit
from isthmus.lab.theory.theorem1 import Condition, Theorem1, expected_matrix, theorem1

__all__ = [
    "Condition",
    "Dynamics",
    "Theorem1",
    "contraction_limit",
    "dynamics",
    "expected_matrix",
    "fixed_point",
    "mean_trajectory",
    "relative_gap",
    "theorem1",
]
