"""Networks and how they are cut: small dense subnetworks out of a whole, and merged back by ownership (PyTorch).

Importing this package loads no torch; each name loads what it needs at its first use.
"""

from typing import TYPE_CHECKING

from isthmus.lazy import load_lazily

if TYPE_CHECKING:
    from isthmus.nets.axes.registry import rule as rule
    from isthmus.nets.axes.structure import Axis as Axis
    from isthmus.nets.axes.structure import Member as Member
    from isthmus.nets.check.verdict import Check as Check
    from isthmus.nets.check.verdict import Verdict as Verdict
    from isthmus.nets.check.verify import verify as verify
    from isthmus.nets.coupling.coupling import Coupling as Coupling
    from isthmus.nets.coupling.tracing import trace as trace
    from isthmus.nets.models.block_softmax import BlockSoftmax as BlockSoftmax
    from isthmus.nets.models.block_softmax import best_temperature as best_temperature
    from isthmus.nets.models.block_softmax import load_block_softmax as load_block_softmax
    from isthmus.nets.models.code_softmax import CodeSoftmax as CodeSoftmax
    from isthmus.nets.models.code_softmax import load_code_softmax as load_code_softmax
    from isthmus.nets.models.factored import FactoredSoftmax as FactoredSoftmax
    from isthmus.nets.models.factored import load_factored as load_factored
    from isthmus.nets.models.mlp import MLP as MLP
    from isthmus.nets.models.mlp import MLPSpec as MLPSpec
    from isthmus.nets.models.standardize import Standardize as Standardize
    from isthmus.nets.pieces.laws import NetPartition as NetPartition
    from isthmus.nets.pieces.merge import Coverage as Coverage
    from isthmus.nets.pieces.merge import coverage as coverage
    from isthmus.nets.pieces.merge import merge as merge
    from isthmus.nets.pieces.merge import zero_cross_blocks as zero_cross_blocks
    from isthmus.nets.pieces.optimizer import cut_optimizer as cut_optimizer
    from isthmus.nets.pieces.optimizer import merge_optimizer as merge_optimizer
    from isthmus.nets.pieces.subnetwork import Subnetwork as Subnetwork
    from isthmus.nets.pieces.subnetwork import build as build
    from isthmus.nets.pieces.subnetwork import cut as cut
    from isthmus.nets.scale.norms import recalibrate as recalibrate
    from isthmus.nets.scale.norms import statistics as statistics
    from isthmus.nets.scale.scaling import Scaling as Scaling
    from isthmus.nets.scale.scaling import scaled as scaled
    from isthmus.nets.scale.scaling import scaling as scaling
    from isthmus.nets.scale.scaling import search_readout as search_readout

__all__ = [
    "MLP",
    "Axis",
    "BlockSoftmax",
    "Check",
    "CodeSoftmax",
    "Coupling",
    "Coverage",
    "FactoredSoftmax",
    "MLPSpec",
    "Member",
    "NetPartition",
    "Scaling",
    "Standardize",
    "Subnetwork",
    "Verdict",
    "best_temperature",
    "build",
    "coverage",
    "cut",
    "cut_optimizer",
    "load_block_softmax",
    "load_code_softmax",
    "load_factored",
    "merge",
    "merge_optimizer",
    "recalibrate",
    "rule",
    "scaled",
    "scaling",
    "search_readout",
    "statistics",
    "trace",
    "verify",
    "zero_cross_blocks",
]

load_lazily(
    __name__,
    {
        "MLP": "isthmus.nets.models.mlp",
        "Axis": "isthmus.nets.axes.structure",
        "BlockSoftmax": "isthmus.nets.models.block_softmax",
        "Check": "isthmus.nets.check.verdict",
        "CodeSoftmax": "isthmus.nets.models.code_softmax",
        "Coupling": "isthmus.nets.coupling.coupling",
        "Coverage": "isthmus.nets.pieces.merge",
        "FactoredSoftmax": "isthmus.nets.models.factored",
        "MLPSpec": "isthmus.nets.models.mlp",
        "Member": "isthmus.nets.axes.structure",
        "NetPartition": "isthmus.nets.pieces.laws",
        "Scaling": "isthmus.nets.scale.scaling",
        "Standardize": "isthmus.nets.models.standardize",
        "Subnetwork": "isthmus.nets.pieces.subnetwork",
        "Verdict": "isthmus.nets.check.verdict",
        "best_temperature": "isthmus.nets.models.block_softmax",
        "build": "isthmus.nets.pieces.subnetwork",
        "coverage": "isthmus.nets.pieces.merge",
        "cut": "isthmus.nets.pieces.subnetwork",
        "cut_optimizer": "isthmus.nets.pieces.optimizer",
        "load_block_softmax": "isthmus.nets.models.block_softmax",
        "load_code_softmax": "isthmus.nets.models.code_softmax",
        "load_factored": "isthmus.nets.models.factored",
        "merge": "isthmus.nets.pieces.merge",
        "merge_optimizer": "isthmus.nets.pieces.optimizer",
        "recalibrate": "isthmus.nets.scale.norms",
        "rule": "isthmus.nets.axes.registry",
        "scaled": "isthmus.nets.scale.scaling",
        "scaling": "isthmus.nets.scale.scaling",
        "search_readout": "isthmus.nets.scale.scaling",
        "statistics": "isthmus.nets.scale.norms",
        "trace": "isthmus.nets.coupling.tracing",
        "verify": "isthmus.nets.check.verify",
        "zero_cross_blocks": "isthmus.nets.pieces.merge",
    },
)
