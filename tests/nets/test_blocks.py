"""Cut in depth: a piece without some blocks is the network that passes these by, whatever the others write to."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isthmus

WIDTH = 8


class Plain(nn.Module):
    """Nothing is written to."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 12), nn.Linear(12, WIDTH)

    def shift(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.shift(self.up(self.norm(x))).relu())


class FilledIn(Plain):
    """A mask of slice assignments, one of which is taken from another tensor that is filled in."""

    def shift(self, x: Tensor) -> Tensor:
        other = x.new_ones(12)
        other[3:6] = 2.0
        mask = x.new_zeros(12)
        mask[:4] = -1.0
        mask[4:10] = other[2:8]
        return x + mask


class InPlace(Plain):
    """Operators whose result nobody takes, on a view of a view."""

    def shift(self, x: Tensor) -> Tensor:
        y = x * 2
        y.view(-1, 4, 3)[:, 1].mul_(3.0)
        y[..., :2].clamp_(max=0.5)
        return y


class Counting(Plain):
    """A counter and a running mean of its own, which nothing but its buffer takes."""

    count: Tensor
    running: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("running", torch.zeros(12), persistent=False)

    def shift(self, x: Tensor) -> Tensor:
        if self.training:
            self.count += 1
            self.running.mul_(0.5).add_(0.5 * x.detach().mean((0, 1)))
        return x


class Normed(Plain):
    """A batch norm inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.BatchNorm1d(12)

    def shift(self, x: Tensor) -> Tensor:
        return self.inner(x.transpose(1, 2)).transpose(1, 2)


BLOCKS = (Plain, FilledIn, InPlace, Counting, Normed)


class Deep(nn.Module):
    """Some blocks, of which a call can pass some by."""

    def __init__(self, kinds: tuple[type[Plain], ...]) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.blocks = nn.ModuleList(kind() for kind in kinds)
        self.kept = set(range(len(kinds)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number, block in enumerate(self.blocks):
            if number in self.kept:
                x = x + block(x)
        return self.head(x)


@pytest.mark.parametrize("kinds", [BLOCKS, BLOCKS[::-1]], ids=["in this order", "in the other"])
def test_a_piece_without_blocks_is_the_network_that_passes_them_by(kinds: tuple[type[Plain], ...]) -> None:
    torch.manual_seed(0)
    network, x = Deep(kinds).double(), torch.randn(4, 6, 5).double()
    coupling = isthmus.trace(network, (x,), cut=["block"])
    (axis,) = coupling.cut_axes
    every = range(len(kinds))
    assert axis.size == len(kinds)
    subsets = [*([one] for one in every), *([other for other in every if other != one] for one in every)]
    for mode, kept in itertools.product((True, False), subsets):
        before = {name: buffer.clone() for name, buffer in network.named_buffers()}
        piece = isthmus.nets.pieces.subnetwork.build(network, coupling, {axis.name: np.array(kept)}).module.train(mode)
        network.train(mode).kept = set(kept)
        found, expected = piece(x), network(x)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        network.zero_grad()
        for output in (found, expected):
            output.square().sum().backward()
        for name, parameter in piece.named_parameters():
            torch.testing.assert_close(parameter.grad, network.get_parameter(name).grad, rtol=0, atol=1e-12)
        mine = dict(piece.named_buffers())
        for name, buffer in network.named_buffers():
            if int(name.split(".")[1]) in kept:
                torch.testing.assert_close(mine[name], buffer, rtol=0, atol=1e-12)
        with torch.no_grad():
            for name, buffer in network.named_buffers():
                buffer.copy_(before[name])
