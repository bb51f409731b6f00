"""What the workers do in a round, one strategy a file, all behind :class:`Strategy`."""

from __future__ import annotations

from collections.abc import Callable

from isthmus.trainer.round import Worker
from isthmus.trainer.strategies.data_parallel import DataParallel
from isthmus.trainer.strategies.interface import Strategy, Whole
from isthmus.trainer.strategies.ist import IST
from isthmus.trainer.strategies.local_sgd import LocalSGD
from isthmus.trainer.strategies.narrow import Narrow

__all__ = ["STRATEGIES", "Strategy", "Whole"]

STRATEGIES: dict[str, Callable[[Worker], Strategy]] = {
    "ist": IST,
    "local-sgd": LocalSGD,
    "narrow": Narrow,
    "data-parallel": DataParallel,
}
