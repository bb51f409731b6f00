"""How the dimensions of each operator's results follow from those of its operands."""

import isthmus.nets.rules.contraction
import isthmus.nets.rules.convolution
import isthmus.nets.rules.mapped
import isthmus.nets.rules.norm
import isthmus.nets.rules.pairs
import isthmus.nets.rules.pointwise
import isthmus.nets.rules.recurrent
import isthmus.nets.rules.regions
import isthmus.nets.rules.sampling
import isthmus.nets.rules.selection
import isthmus.nets.rules.sources
import isthmus.nets.rules.sparse
import isthmus.nets.rules.spectral
import isthmus.nets.rules.structure  # noqa: F401
from isthmus.nets.axes.registry import RULES, Rule, rule

__all__ = ["RULES", "Rule", "rule"]
