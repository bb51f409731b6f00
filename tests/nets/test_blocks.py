"""Cut in depth: a piece without some blocks is the network that passes these by, whatever the others write to."""

import contextlib
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import isthmus
from isthmus.nets import Coupling

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


REGIONS: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no autocast": lambda: torch.autocast("cpu", enabled=False),
    "no grad": torch.no_grad,
    "grad set off": lambda: torch.set_grad_enabled(False),
}


class InRegions(Deep):
    """Blocks before a region, three in it, one across its border, one with a region of its own, one after it."""

    def __init__(self, region: Callable[[], contextlib.AbstractContextManager[object]]) -> None:
        super().__init__((Plain, Plain, FilledIn, Normed, Counting, Plain, Plain))
        self.region, self.bias = region, nn.Parameter(torch.ones(WIDTH))

    def block(self, number: int, x: Tensor) -> Tensor:
        return x + self.blocks[number](x) if number in self.kept else x

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(0, self.stem(x))
        with self.region():
            for number in (1, 2, 3):
                x = self.block(number, x)
            doubled = 2 * x + self.bias
            branch = self.blocks[4](x) if 4 in self.kept else torch.zeros_like(x)
        x = self.block(6, x + branch)
        if 5 in self.kept:
            with self.region():
                branch = self.blocks[5](x)
            x = x + branch
        return self.head(x.double() + doubled.double())


class Projected(nn.Module):
    """Stages of a ResNet: the first block of each has a projection as its shortcut, which stays when the block goes."""

    def __init__(self, before: bool) -> None:
        super().__init__()
        self.before = before  # activations come before the convolutions, the projection shares the first
        self.stem, self.head = nn.Conv2d(3, 4, 1), nn.Linear(6, 2)
        self.first = nn.ModuleList(nn.Conv2d(width, 6, 3, stride, 1) for width, stride in ((4, 2), (6, 1), (6, 1)))
        self.norms = nn.ModuleList(nn.BatchNorm2d(6) for _ in range(3))
        self.second = nn.ModuleList(nn.Conv2d(6, 6, 3, 1, 1) for _ in range(3))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 6, 1), nn.BatchNorm2d(6))
        self.kept = set(range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for number in range(3):
            x = x.relu() if self.before else x
            skip = self.shortcut(x) if number == 0 else x
            if number in self.kept:
                x = skip + self.second[number](self.norms[number](self.first[number](x)).relu())
            else:
                x = skip
            x = x if self.before else x.relu()
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """One head of attention, of its own normed input to itself or to something else."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.q, self.k, self.v, self.out = nn.LayerNorm(8), *(nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor, read: Tensor | None = None) -> Tensor:
        x = self.norm(x)
        read = x if read is None else read
        return self.out((self.q(x) @ self.k(read).mT).softmax(-1) @ self.v(read))


class Stacks(nn.Module):
    """An encoder and a decoder that reads its result; their tokens share a table, and so both streams are one axis."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, WIDTH)
        self.encoder = nn.ModuleList([Attention(), Plain(), Attention(), Plain()])
        self.decoder = nn.ModuleList([Attention(), Attention(), Plain(), Attention(), Attention(), Plain()])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 7)
        self.kept = set(range(10))

    def forward(self, x: Tensor) -> Tensor:
        read, x = self.table(x), self.table(x.flip(1))
        for number, block in enumerate(self.encoder):
            read = read + block(read) if number in self.kept else read
        read = self.norm(read)
        for number, block in enumerate(self.decoder):
            if 4 + number in self.kept:
                x = x + (block(x, read) if number in (1, 4) else block(x))
        return self.head(x)


Units = list[tuple[str, int]]


def compare(network: nn.Module, coupling: Coupling, x: Tensor, units: Units, kept: set[int], train: bool) -> None:
    """Compare a piece with some blocks (numbers of ``units``, axes and places there) with the whole without others."""
    held: dict[str, list[int]] = {axis.name: [] for axis in coupling.cut_axes}
    for number, (name, place) in enumerate(units):
        held[name] += [place] if number in kept else []
    arrays = {name: np.array(sorted(each), dtype=int) for name, each in held.items()}
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    piece = isthmus.nets.pieces.subnetwork.build(network, coupling, arrays).module.train(train)
    network.train(train).kept = kept
    for size in (x, torch.cat([x, x[:1]])):  # another batch, too
        found, expected = piece(size), network(size)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        network.zero_grad()
        piece.zero_grad()
        for output in (found, expected):
            output.square().sum().backward()
        for name, parameter in piece.named_parameters():
            torch.testing.assert_close(parameter.grad, network.get_parameter(name).grad, rtol=0, atol=1e-12)
        mine = dict(piece.named_buffers())
        for name, buffer in network.named_buffers():
            if name in mine:
                torch.testing.assert_close(mine[name], buffer, rtol=0, atol=1e-12)
            else:
                assert torch.equal(buffer, before[name])  # nobody has written to what the piece lacks
    lacked = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    network.kept = set(range(len(units)))
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(before[name])
    assert not lacked & {name for name, parameter in piece.named_parameters() if parameter.grad is not None}


def some(count: int) -> list[set[int]]:
    """Every unit alone, all but each, none and all."""
    every = set(range(count))
    return [set(), every, *({one} for one in every), *(every - {one} for one in every)]


@pytest.mark.parametrize("name", REGIONS)
def test_blocks_inside_regions_are_units_and_the_region_goes_on(name: str) -> None:
    torch.manual_seed(0)
    network, x = InRegions(REGIONS[name]).double(), torch.randn(3, 4, 5).double()
    coupling = isthmus.trace(network, (x,), cut=["block"], verify=True)
    (axis,) = coupling.cut_axes
    assert [block.name for block in axis.blocks] == [f"blocks.{number}" for number in (0, 1, 2, 3, 4, 6, 5)]
    assert coupling.problems == ()
    units = [(axis.name, place) for place in (0, 1, 2, 3, 4, 6, 5)]
    for train, kept in itertools.product((True, False), some(len(units))):
        compare(network, coupling, x, units, kept, train)


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
        compare(network, coupling, x, [(axis.name, place) for place in every], set(kept), mode)


@pytest.mark.parametrize("before", [False, True], ids=["activations after", "activations before"])
def test_a_block_with_a_projection_leaves_its_shortcut(before: bool) -> None:
    torch.manual_seed(0)
    network, x = Projected(before).double(), torch.randn(3, 3, 8, 8).double()
    coupling = isthmus.trace(network, (x,), cut=["block"], verify=True)
    (axis,) = coupling.cut_axes
    assert [block.shortcut for block in axis.blocks] == ["shortcut", "", ""]
    assert not any("shortcut" in name for block in axis.blocks for name in block.state)
    assert "shortcuts, which stay: shortcut" in isthmus.nets.coupling.display.as_text(coupling)
    for train, kept in itertools.product((True, False), some(3)):
        compare(network, coupling, x, [(axis.name, place) for place in range(3)], kept, train)


def test_encoder_and_decoder_are_stacks_of_their_own() -> None:
    torch.manual_seed(0)
    network, x = Stacks().double(), torch.randint(7, (3, 5))
    coupling = isthmus.trace(network, (x,), cut=["block"], verify=True)
    encoder, decoder = coupling.cut_axes
    assert [block.name for block in encoder.blocks] == [f"encoder.{number}" for number in range(4)]
    assert [block.name for block in decoder.blocks] == [f"decoder.{number}" for number in range(6)]
    units = [*((encoder.name, place) for place in range(4)), *((decoder.name, place) for place in range(6))]
    for train, kept in itertools.product((True, False), some(10)):
        compare(network, coupling, x, units, kept, train)
