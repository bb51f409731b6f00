"""Exact theory of IST on quadratics: moments, dynamics, fixed points, and the theorems with what they assume."""

from isthmus.lab.bounds import Assumption, Bound
from isthmus.lab.methods.local_steps import local_map
from isthmus.lab.theory.bounds import (
    ExactBound,
    exact_scaled_gap,
    gradient_descent_rate,
    perm_q_form,
    scaled_noise,
    sgd_rate,
    theorem1_average,
    theorem1_contraction,
    theorem2,
)
from isthmus.lab.theory.coordinates import CoordinateCourse, coordinate_dynamics
from isthmus.lab.theory.dynamics import Dynamics, dynamics, mean_trajectory, quadratic_forms
from isthmus.lab.theory.fixed_points import fixed_point, relative_gap
from isthmus.lab.theory.free import lost
from isthmus.lab.theory.lifted import LiftedRound, lifted_round
from isthmus.lab.theory.rate import BestStep, asymptotic_rate, best_stepsize, spectral_radius
from isthmus.lab.theory.readouts import Readouts, first_order_fixed_point, readouts, sketched_objective
from isthmus.lab.theory.spectrum import Radius, operator_radius, positive_radius
from isthmus.lab.theory.stable_steps import StableSteps, stable_stepsizes
from isthmus.lab.theory.stationary import Stationary, stationary
from isthmus.lab.theory.stepsizes import contraction_limit, local_limit
from isthmus.lab.theory.tails import Tails, tails
from isthmus.lab.theory.theorem1 import Theorem1, expected_matrix, theorem1

__all__ = [
    "Assumption",
    "BestStep",
    "Bound",
    "CoordinateCourse",
    "Dynamics",
    "ExactBound",
    "LiftedRound",
    "Radius",
    "Readouts",
    "StableSteps",
    "Stationary",
    "Tails",
    "Theorem1",
    "asymptotic_rate",
    "best_stepsize",
    "contraction_limit",
    "coordinate_dynamics",
    "dynamics",
    "exact_scaled_gap",
    "expected_matrix",
    "first_order_fixed_point",
    "fixed_point",
    "gradient_descent_rate",
    "lifted_round",
    "local_limit",
    "local_map",
    "lost",
    "mean_trajectory",
    "operator_radius",
    "perm_q_form",
    "positive_radius",
    "quadratic_forms",
    "readouts",
    "relative_gap",
    "scaled_noise",
    "sgd_rate",
    "sketched_objective",
    "spectral_radius",
    "stable_stepsizes",
    "stationary",
    "tails",
    "theorem1",
    "theorem1_average",
    "theorem1_contraction",
    "theorem2",
]
