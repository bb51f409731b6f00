"""The last layer: found where its rows are the scores and nothing else, with the reason where they are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from isthmus.nets import trace

TOKENS = (torch.zeros(2, 5, dtype=torch.int64),)


class Words(nn.Module):
    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
        if tied:
            self.out.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        return {"logits": self.out(self.embed(tokens).relu())}


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.a(x), self.b(x)], -1)


@pytest.mark.parametrize(
    ("network", "example", "name", "members"),
    [
        (nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6)), (torch.zeros(2, 4),), "2", {"2.weight", "2.bias"}),
        (Words(), TOKENS, "out", {"out.weight"}),
    ],
)
def test_found(network: nn.Module, example: Any, name: str, members: set[str]) -> None:
    coupling = trace(network, example)
    assert coupling.last is not None
    assert coupling.last.axis is not None
    assert (coupling.last.axis.name, coupling.last.axis.kind) == (name, "class")
    assert {member.name for member in coupling.last.axis.members} == members
    assert coupling.last.axis not in coupling.axes  # no law deals it, and no pattern of `cut` names it
    assert "class" in str(coupling)


@pytest.mark.parametrize(
    ("network", "example", "why"),
    [
        (Words(tied=True), TOKENS, "looked up by index"),
        (Two(), (torch.zeros(2, 4),), "several layers"),
        (nn.Sequential(nn.Linear(4, 3), nn.Flatten(0)), (torch.zeros(2, 4),), "no tensor of scores"),
        (nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(-1)), (torch.zeros(2, 4),), "not the rows of one layer"),
    ],
)
def test_not_found_and_why(network: nn.Module, example: Any, why: str) -> None:
    coupling = trace(network, example)
    assert coupling.last is not None
    assert coupling.last.axis is None
    assert why in coupling.last.problem
