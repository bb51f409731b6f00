"""How the dimensions of each operator's results follow from those of its operands."""

from isthmus.nets.registry import RULES, Rule, rule
from isthmus.nets.rules import contraction, convolution, norm, pointwise, recurrent, regions, selection, sources
from isthmus.nets.rules import structure as structure

__all__ = ["RULES", "Rule", "rule"]
_ = (contraction, convolution, norm, pointwise, recurrent, regions, selection, sources)
