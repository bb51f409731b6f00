"""Problems beyond the plain quadratic: data on workers, minibatches, and the constants theorems speak of."""

from isthmus.lab.problems.base import Problem, gradient_share, gradient_work, rows_per_gradient
from isthmus.lab.problems.constants import Constants, constants
from isthmus.lab.problems.generated import random_quadratic
from isthmus.lab.problems.least_squares import LeastSquares
from isthmus.lab.problems.logistic import Logistic
from isthmus.lab.problems.minibatch import Minibatch, exact, mean_gradient, worker_gradients
from isthmus.lab.problems.samples import Samples

__all__ = [
    "Constants",
    "LeastSquares",
    "Logistic",
    "Minibatch",
    "Problem",
    "Samples",
    "constants",
    "exact",
    "gradient_share",
    "gradient_work",
    "mean_gradient",
    "random_quadratic",
    "rows_per_gradient",
    "worker_gradients",
]
