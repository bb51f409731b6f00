"""What the workers do in a round, one strategy a file, all behind :class:`Strategy`."""

from __future__ import annotations

from collections.abc import Callable

from isthmus.nets.mlp import MLPSpec
from isthmus.train.round import Worker
from isthmus.train.strategies.data_parallel import DataParallel
from isthmus.train.strategies.interface import Strategy, Whole
from isthmus.train.strategies.ist import IST
from isthmus.train.strategies.local_sgd import LocalSGD
from isthmus.train.strategies.narrow import narrow

__all__ = ["STRATEGIES", "Strategy", "Whole"]

STRATEGIES: dict[str, Callable[[MLPSpec, Worker], Strategy]] = {
    "ist": IST,
    "local-sgd": LocalSGD,
    "narrow": narrow,
    "data-parallel": DataParallel,
}
