"""torch's DistributedDataParallel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from isthmus.errors import InvalidInput, check_choice, check_integer
from isthmus.strategies.base import Strategy

HOOKS = ("none", "fp16", "powersgd")
_POWERSGD = {"powersgd_rank": 4, "powersgd_start": 10}


@dataclass(frozen=True)
class DDP(Strategy):
    """Every worker holds the dense network; torch averages gradients while the backward pass goes on.

    Attributes:
        hook: how gradients travel: as they are, as fp16 (half the bytes), or as the two thin factors of PowerSGD.
        powersgd_rank: columns of these factors; by default 4.
        powersgd_start: steps before it, in which gradients travel as they are; by default 10.

    Raises:
        InvalidInput: an unknown hook, or numbers of PowerSGD without it.

    Reference:
        Li et al., "PyTorch Distributed: experiences on accelerating data parallel training" (VLDB 2020); Vogels,
        Karimireddy, Jaggi, "PowerSGD: practical low-rank gradient compression for distributed optimization" (NeurIPS
        2019).
    """

    name: ClassVar[str] = "ddp"
    label: ClassVar[str] = "torch DDP"
    color: ClassVar[str] = "#56B4E9"
    meaning: ClassVar[str] = (
        "torch's own data parallel: gradients are averaged at every step, while they are computed; they may be "
        "shortened to 16 bits, or to two thin matrices (PowerSGD)"
    )
    restarts: ClassVar[bool] = False
    elastic: ClassVar[bool] = False
    processes: ClassVar[bool] = True
    overlaps: ClassVar[bool] = True
    lr: ClassVar[float] = 0.1

    hook: str = "none"
    powersgd_rank: int | None = None
    powersgd_start: int | None = None

    def __post_init__(self) -> None:
        check_choice("hook", self.hook, HOOKS)
        for name, default in _POWERSGD.items():
            value = getattr(self, name)
            if self.hook == "powersgd":
                object.__setattr__(self, name, default if value is None else value)
            elif value is not None:
                raise InvalidInput(f"`{name}` has no effect with hook {self.hook!r}")
        if self.powersgd_rank is not None and self.powersgd_start is not None:
            check_integer("powersgd_rank", self.powersgd_rank, at_least=1)
            check_integer("powersgd_start", self.powersgd_start, at_least=2)  # torch arranges gradients anew after one

    @property
    def title(self) -> str:
        """The name, and the hook."""
        rank = "" if self.powersgd_rank is None else f" of rank {self.powersgd_rank}"
        return self.name if self.hook == "none" else f"{self.name} ({self.hook}{rank})"

    @property
    def slug(self) -> str:
        """The name, and the hook's."""
        rank = "" if self.powersgd_rank is None else str(self.powersgd_rank)
        return self.name if self.hook == "none" else f"{self.name}-{self.hook}{rank}"
