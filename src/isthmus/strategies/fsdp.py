"""torch's fully sharded data parallel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.strategies.base import Strategy


@dataclass(frozen=True)
class FSDP(Strategy):
    """Every worker holds 1/n of the network, its gradients and the optimizer's state; layers come whole for a moment.

    Reference:
        Zhao et al., "PyTorch FSDP: experiences on scaling fully sharded data parallel" (VLDB 2023); torch's
        ``fully_shard`` ("FSDP2").
    """

    name: ClassVar[str] = "fsdp"
    label: ClassVar[str] = "torch FSDP"
    color: ClassVar[str] = "#8C564B"
    meaning: ClassVar[str] = (
        "torch's fully sharded data parallel: as data parallel, but each worker holds only its share of the network, "
        "and layers are put together for every step: little memory, and the most bytes"
    )
    restarts: ClassVar[bool] = False
    elastic: ClassVar[bool] = False
    processes: ClassVar[bool] = True
    lr: ClassVar[float] = 0.1
