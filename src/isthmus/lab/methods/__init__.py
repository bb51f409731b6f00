"""Methods of the lab, each a pure ``init`` and ``step`` batched over seeds."""

from isthmus.lab.methods.base import Draws, Iterate, Method, State
from isthmus.lab.methods.gradient_descent import GradientDescent
from isthmus.lab.methods.ist import IST

__all__ = ["IST", "Draws", "GradientDescent", "Iterate", "Method", "State"]
