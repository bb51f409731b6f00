"""The gallery: pictures as plain data, by name. Drawing is done elsewhere."""

from collections.abc import Callable

from isthmus.lab.figures import bias, courses
from isthmus.lab.figures.figure import Figure, Panel

FIGURES: dict[str, Callable[[int], Figure]] = {
    "heterogeneous": courses.heterogeneous,
    "homogeneous": courses.homogeneous,
    "remark-1": courses.remark_1,
    "algorithm-1": courses.algorithm_1,
    "theorem-1": courses.theorem_1,
    "theorem-2": courses.theorem_2,
    "least-squares": courses.least_squares,
    "bias-variance": bias.bias_variance,
    "readouts": bias.readout,
    "bias-removal": bias.bias_removal,
}

__all__ = ["FIGURES", "Figure", "Panel"]
