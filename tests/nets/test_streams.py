"""What a residual connection runs along is a stream; what is only added in several layers is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import isthmus

WIDTH, HEADS, LENGTH = 16, 4, 5


class Biased(nn.Module):
    """Attention with a bias by relative position, the same for all samples in all layers."""

    def __init__(self, spread: bool, masked: bool) -> None:
        super().__init__()
        self.spread, self.masked = spread, masked
        self.table = nn.Embedding(2 * LENGTH, HEADS)
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(3))
        self.out = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        bias = self.table(places[:, None] - places[None, :] + LENGTH).permute(2, 0, 1)
        if self.spread:
            bias = bias.expand(x.shape[0], -1, -1, -1).contiguous()
        for qkv, out in zip(self.qkv, self.out, strict=True):
            parts = qkv(x).chunk(3, -1)
            q, k, v = (each.unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2) for each in parts)
            scores = q @ k.transpose(-1, -2)
            if self.masked:
                scores = scores + torch.ones(LENGTH, LENGTH).tril().log()
            x = x + out(((scores + bias).softmax(-1) @ v).transpose(1, 2).flatten(2))
        return x


class Latents(nn.Module):
    """Learned latents, the same for all samples, that take from the data and pass on in a stream."""

    def __init__(self) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(3, WIDTH))
        self.read, self.up, self.down = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)
        self.end = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.latents.expand(x.shape[0], -1, -1).contiguous()
        y = y + self.read((y @ x.transpose(-1, -2)).softmax(-1) @ x)
        return self.end(y + self.down(self.up(y).relu()))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("spread", [False, True], ids=["broadcast", "a copy a sample"])
def test_a_bias_added_in_every_layer_is_no_stream(spread: bool, masked: bool) -> None:
    torch.manual_seed(0)
    net, x = Biased(spread, masked), torch.randn(3, LENGTH, WIDTH)
    coupling = isthmus.trace(net, (x,))
    assert [(axis.kind, axis.size) for axis in coupling.cut_axes] == [("head", HEADS)]
    assert not [axis for axis in coupling.axes if axis.kind == "stream" and axis.size == HEADS]
    assert coupling.verify(net, (x,)).passed


def test_what_does_not_depend_on_the_input_can_begin_a_stream() -> None:
    torch.manual_seed(0)
    net, x = Latents(), torch.randn(2, LENGTH, WIDTH)
    coupling = isthmus.trace(net, (x,))
    assert [(axis.kind, axis.size) for axis in coupling.cut_axes] == [("ffn", 24)]
    assert coupling.verify(net, (x,)).passed
