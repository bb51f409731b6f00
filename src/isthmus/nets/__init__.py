"""Networks and how they are cut: small dense subnetworks out of a whole, and merged back by ownership (PyTorch).

Importing this package loads no torch; each name loads what it needs at its first use.
"""

from typing import TYPE_CHECKING

from isthmus.lazy import load_lazily

if TYPE_CHECKING:
    from isthmus.nets.block_softmax import BlockSoftmax as BlockSoftmax
    from isthmus.nets.block_softmax import best_temperature as best_temperature
    from isthmus.nets.block_softmax import load_block_softmax as load_block_softmax
    from isthmus.nets.code_softmax import CodeSoftmax as CodeSoftmax
    from isthmus.nets.code_softmax import load_code_softmax as load_code_softmax
    from isthmus.nets.coupling import Axis as Axis
    from isthmus.nets.coupling import Coupling as Coupling
    from isthmus.nets.coupling import Member as Member
    from isthmus.nets.factored import FactoredSoftmax as FactoredSoftmax
    from isthmus.nets.factored import load_factored as load_factored
    from isthmus.nets.laws import NetPartition as NetPartition
    from isthmus.nets.merge import Coverage as Coverage
    from isthmus.nets.merge import coverage as coverage
    from isthmus.nets.merge import merge as merge
    from isthmus.nets.merge import zero_cross_blocks as zero_cross_blocks
    from isthmus.nets.mlp import MLP as MLP
    from isthmus.nets.mlp import MLPSpec as MLPSpec
    from isthmus.nets.norms import recalibrate as recalibrate
    from isthmus.nets.norms import statistics as statistics
    from isthmus.nets.optimizer import cut_optimizer as cut_optimizer
    from isthmus.nets.optimizer import merge_optimizer as merge_optimizer
    from isthmus.nets.registry import rule as rule
    from isthmus.nets.scaling import Scaling as Scaling
    from isthmus.nets.scaling import scaled as scaled
    from isthmus.nets.scaling import scaling as scaling
    from isthmus.nets.scaling import search_readout as search_readout
    from isthmus.nets.standardize import Standardize as Standardize
    from isthmus.nets.subnetwork import Subnetwork as Subnetwork
    from isthmus.nets.subnetwork import build as build
    from isthmus.nets.subnetwork import cut as cut
    from isthmus.nets.tracing import trace as trace
    from isthmus.nets.verdict import Check as Check
    from isthmus.nets.verdict import Verdict as Verdict
    from isthmus.nets.verify import verify as verify

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
        "MLP": "isthmus.nets.mlp",
        "Axis": "isthmus.nets.coupling",
        "BlockSoftmax": "isthmus.nets.block_softmax",
        "Check": "isthmus.nets.verdict",
        "CodeSoftmax": "isthmus.nets.code_softmax",
        "Coupling": "isthmus.nets.coupling",
        "Coverage": "isthmus.nets.merge",
        "FactoredSoftmax": "isthmus.nets.factored",
        "MLPSpec": "isthmus.nets.mlp",
        "Member": "isthmus.nets.coupling",
        "NetPartition": "isthmus.nets.laws",
        "Scaling": "isthmus.nets.scaling",
        "Standardize": "isthmus.nets.standardize",
        "Subnetwork": "isthmus.nets.subnetwork",
        "Verdict": "isthmus.nets.verdict",
        "best_temperature": "isthmus.nets.block_softmax",
        "build": "isthmus.nets.subnetwork",
        "coverage": "isthmus.nets.merge",
        "cut": "isthmus.nets.subnetwork",
        "cut_optimizer": "isthmus.nets.optimizer",
        "load_block_softmax": "isthmus.nets.block_softmax",
        "load_code_softmax": "isthmus.nets.code_softmax",
        "load_factored": "isthmus.nets.factored",
        "merge": "isthmus.nets.merge",
        "merge_optimizer": "isthmus.nets.optimizer",
        "recalibrate": "isthmus.nets.norms",
        "rule": "isthmus.nets.registry",
        "scaled": "isthmus.nets.scaling",
        "scaling": "isthmus.nets.scaling",
        "search_readout": "isthmus.nets.scaling",
        "statistics": "isthmus.nets.norms",
        "trace": "isthmus.nets.tracing",
        "verify": "isthmus.nets.verify",
        "zero_cross_blocks": "isthmus.nets.merge",
    },
)
