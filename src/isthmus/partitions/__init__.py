"""Which worker holds which units this round: partitions, and the laws by which they are dealt, a file each."""

from isthmus.partitions.auto import Auto
from isthmus.partitions.block import Block
from isthmus.partitions.core import Core
from isthmus.partitions.fixed import Fixed
from isthmus.partitions.groups import Clusters
from isthmus.partitions.law import Axis, Law, Scenarios, Traits
from isthmus.partitions.mixed import Mixed
from isthmus.partitions.overlapping import Overlapping
from isthmus.partitions.partition import Indices, Partition, block_sizes, random_blocks, random_partition
from isthmus.partitions.registry import LAWS, law_of
from isthmus.partitions.rolling import Rolling
from isthmus.partitions.rotated import Rotated
from isthmus.partitions.uniform import Uniform
from isthmus.partitions.weighted import Weighted

__all__ = [
    "LAWS",
    "Auto",
    "Axis",
    "Block",
    "Clusters",
    "Core",
    "Fixed",
    "Indices",
    "Law",
    "Mixed",
    "Overlapping",
    "Partition",
    "Rolling",
    "Rotated",
    "Scenarios",
    "Traits",
    "Uniform",
    "Weighted",
    "block_sizes",
    "law_of",
    "random_blocks",
    "random_partition",
]
