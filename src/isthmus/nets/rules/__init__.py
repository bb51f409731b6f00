"""How the dimensions of each operator's results follow from those of its operands."""

from isthmus.nets.rules import contraction, convolution, norm, pointwise, recurrent, regions, selection, sources
from isthmus.nets.rules import structure as structure
from isthmus.nets.rules.registry import RULES, Rule, rule

__all__ = ["RULES", "Rule", "rule"]
_ = (contraction, convolution, norm, pointwise, recurrent, regions, selection, sources)
