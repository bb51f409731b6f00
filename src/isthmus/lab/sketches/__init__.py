"""Sketches: the joint law of the workers' random diagonal matrices, its samples, moments and support."""

from isthmus.lab.sketches.base import SampledSketch, Sketch, as_sketch
from isthmus.lab.sketches.dealt import Dealt
from isthmus.lab.sketches.grouped import Grouped
from isthmus.lab.sketches.identity import Identity
from isthmus.lab.sketches.independent import Bernoulli, ImportanceSampling, RandomSparsification
from isthmus.lab.sketches.law import Blocks, Masks, Support
from isthmus.lab.sketches.permutation import Permutation
from isthmus.lab.sketches.scaled import ScaledPermutation, WeightedPermutation

__all__ = [
    "Bernoulli",
    "Blocks",
    "Dealt",
    "Grouped",
    "Identity",
    "ImportanceSampling",
    "Masks",
    "Permutation",
    "RandomSparsification",
    "SampledSketch",
    "ScaledPermutation",
    "Sketch",
    "Support",
    "WeightedPermutation",
    "as_sketch",
]
