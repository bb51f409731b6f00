"""What the workers do in a round, one strategy a file, all behind :class:`Strategy`."""

from __future__ import annotations

from collections.abc import Callable

from isthmus.train.round import Worker
from isthmus.train.strategies.data_parallel import DataParallel
from isthmus.train.strategies.interface import Strategy, Whole
from isthmus.train.strategies.ist import IST
from isthmus.train.strategies.local_sgd import LocalSGD
from isthmus.train.strategies.narrow import Narrow

__all__ = ["STRATEGIES", "Strategy", "Whole"]

STRATEGIES: dict[str, Callable[[Worker], Strategy]] = {
    "ist": IST,
    "local-sgd": LocalSGD,
    "narrow": Narrow,
    "data-parallel": DataParallel,
}
