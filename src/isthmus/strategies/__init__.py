"""What workers do in a round, by name: IST and the rivals that are always shown beside it; one strategy a file.

A strategy here is what a user chooses and a run records, a frozen dataclass that needs no PyTorch. How its rounds are
opened and closed is in ``isthmus.trainer.strategies``. :data:`STRATEGIES` is the only place that knows their names.
"""

from __future__ import annotations

from isthmus.strategies.base import Strategy
from isthmus.strategies.choose import STRATEGIES, strategy_of
from isthmus.strategies.class_cut import ClassCut
from isthmus.strategies.data_parallel import DataParallel
from isthmus.strategies.ddp import DDP
from isthmus.strategies.diloco import DiLoCo
from isthmus.strategies.factored import Factored
from isthmus.strategies.fsdp import FSDP
from isthmus.strategies.hashed_codes import HashedCodes
from isthmus.strategies.ist import IST
from isthmus.strategies.local_sgd import LocalSGD
from isthmus.strategies.mach import Mach
from isthmus.strategies.narrow import Narrow
from isthmus.strategies.post_local_sgd import PostLocalSGD
from isthmus.strategies.sampled_softmax import SampledSoftmax
from isthmus.strategies.shallow import Shallow
from isthmus.strategies.sharded_softmax import ShardedSoftmax

__all__ = [
    "DDP", "FSDP", "IST", "STRATEGIES", "ClassCut", "DataParallel", "DiLoCo", "Factored", "HashedCodes", "LocalSGD",
    "Mach", "Narrow", "PostLocalSGD", "SampledSoftmax", "Shallow", "ShardedSoftmax", "Strategy", "strategy_of",
]  # fmt: skip
