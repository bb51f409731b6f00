"""How each strategy opens and closes a round, one file a strategy, all behind :class:`Part`."""

from __future__ import annotations

from isthmus.errors import InvalidInput
from isthmus.strategies import (
    DDP,
    FSDP,
    IST,
    ClassCut,
    DataParallel,
    DiLoCo,
    Factored,
    HashedCodes,
    LocalSGD,
    Mach,
    Narrow,
    PostLocalSGD,
    SampledSoftmax,
    Shallow,
    ShardedSoftmax,
    Strategy,
)
from isthmus.trainer.strategies.class_cut import ClassCutPart
from isthmus.trainer.strategies.coded import CodedPart
from isthmus.trainer.strategies.data_parallel import DataParallelPart
from isthmus.trainer.strategies.ddp import DDPPart
from isthmus.trainer.strategies.diloco import DiLoCoPart
from isthmus.trainer.strategies.factored import FactoredPart
from isthmus.trainer.strategies.fsdp import FSDPPart
from isthmus.trainer.strategies.interface import Build, Merged, Part, Round, State, Worker
from isthmus.trainer.strategies.ist import ISTPart
from isthmus.trainer.strategies.local_sgd import LocalSGDPart
from isthmus.trainer.strategies.narrow import NarrowPart
from isthmus.trainer.strategies.post_local_sgd import PostLocalSGDPart
from isthmus.trainer.strategies.sampled import SampledPart
from isthmus.trainer.strategies.sharded import ShardedPart

__all__ = ["PARTS", "Merged", "Part", "Round", "State", "Worker", "part_of"]

PARTS: dict[type[Strategy], Build] = {
    IST: ISTPart,
    ClassCut: ClassCutPart,
    LocalSGD: LocalSGDPart,
    Narrow: NarrowPart,
    Shallow: NarrowPart,
    DiLoCo: DiLoCoPart,
    DataParallel: DataParallelPart,
    PostLocalSGD: PostLocalSGDPart,
    DDP: DDPPart,
    FSDP: FSDPPart,
    HashedCodes: CodedPart,
    Factored: FactoredPart,
    SampledSoftmax: SampledPart,
    ShardedSoftmax: ShardedPart,
    Mach: CodedPart,
}


def part_of(strategy: Strategy, worker: Worker) -> Part:
    """Return one worker's part in a strategy.

    Raises:
        InvalidInput: a strategy of one's own that is not registered in ``PARTS``.
    """
    if type(strategy) not in PARTS:
        name = type(strategy).__name__
        raise InvalidInput(f"`strategy` must be one that can run: register {name} in isthmus.trainer.strategies.PARTS")
    return PARTS[type(strategy)](strategy, worker)
