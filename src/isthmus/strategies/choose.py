"""Strategies by name."""

from __future__ import annotations

import dataclasses

from isthmus.errors import InvalidInput, check_choice
from isthmus.partitions import Law, law_of
from isthmus.strategies.base import Strategy
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

STRATEGIES: dict[str, type[Strategy]] = {
    kind.name: kind
    for kind in (
        IST, ClassCut, Narrow, Shallow, LocalSGD, PostLocalSGD, DiLoCo, DataParallel, DDP, FSDP,
        Mach, HashedCodes, Factored, SampledSoftmax, ShardedSoftmax,
    )
}  # fmt: skip


def strategy_of(strategy: Strategy | str, law: Law | str | None = None, core: float | None = None) -> Strategy:
    """Return a strategy from its name, with a law and a core where they are given.

    Args:
        strategy: an object, which says everything itself, or a name.
        law: how units are dealt, for the strategies that cut; by default their own.
        core: fraction of the units that all workers hold.

    Raises:
        InvalidInput: an unknown name, or a law or core that would have no effect.
    """
    given = [name for name, value in (("law", law), ("core", core)) if value is not None]
    if isinstance(strategy, Strategy):
        if given:
            raise InvalidInput(
                f"`{given[0]}` has no effect beside a strategy object: give it to {type(strategy).__name__}(...)"
            )
        return strategy
    kind = STRATEGIES[check_choice("strategy", strategy, STRATEGIES)]
    if not given:
        return kind()
    if not kind.cuts:
        raise InvalidInput(f"`{given[0]}` has no effect with strategy {strategy!r}, which cuts nothing")
    if "law" not in {field.name for field in dataclasses.fields(kind)}:
        raise InvalidInput(f"`{given[0]}` has no effect with strategy {strategy!r}, whose pieces are dealt once")
    default = kind().dealt
    assert default is not None
    return kind(law=law_of(default if law is None else law, core=core or 0.0))  # type: ignore[call-arg]
