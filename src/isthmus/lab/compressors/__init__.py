"""Compressors: random maps of a worker's vector, their exact parameters, and the messages that carry them."""

from isthmus.lab.compressors.base import Compressor, require_contractive, require_unbiased
from isthmus.lab.compressors.bernoulli import Participation, bernoulli_compressor
from isthmus.lab.compressors.composition import Composition, Scaled
from isthmus.lab.compressors.identity import IdentityCompressor
from isthmus.lab.compressors.permutation import PermK
from isthmus.lab.compressors.quantizers import Dithering, Natural
from isthmus.lab.compressors.sparsifiers import RandK, TopK

__all__ = [
    "Composition",
    "Compressor",
    "Dithering",
    "IdentityCompressor",
    "Natural",
    "Participation",
    "PermK",
    "RandK",
    "Scaled",
    "TopK",
    "bernoulli_compressor",
    "require_contractive",
    "require_unbiased",
]
