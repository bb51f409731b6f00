"""Many classes, a small network and its batches: what strategies are tried on that change the last layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES, BATCH = 40, 8
EXAMPLE = (torch.zeros(2, 6),)


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def batch(seat: int, step: int) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(100 * seat + step)
    return torch.randn(BATCH, 6, generator=random), torch.randint(0, CLASSES, (BATCH,), generator=random)
