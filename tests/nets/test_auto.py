"""What of a network says by which law it is dealt, on the networks it was measured on and on small ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import isthmus
from examples import networks
from isthmus.nets import MLP, Coupling, MLPSpec
from isthmus.partitions import Block, Fixed, Mixed, Overlapping, Uniform, law_of

LAWS = {"cnn": Block(), "gcn": Block(), "gpt": Fixed(), "resnet": Uniform()}


@pytest.fixture(scope="module")
def couplings() -> dict[str, Coupling]:
    made = {
        "cnn": networks.cnn((4, 8)),
        "gcn": networks.gcn((8, 8), nodes=20),
        "gpt": networks.gpt(layers=2, width=16, heads=4, context=8),
        "resnet": networks.resnet((4, 8), blocks=2),
    }
    return {name: isthmus.trace(network, args) for name, (network, args) in made.items()}


@pytest.mark.parametrize("name", LAWS)
def test_each_example_network_has_the_law_that_was_measured_best(name: str, couplings: dict[str, Coupling]) -> None:
    law, why = couplings[name].chosen()
    assert law == LAWS[name]
    assert ("a residual stream" in why) == (name in ("gpt", "resnet"))
    assert couplings[name].partition(2, 0, law="auto").law == law
    assert couplings[name].chosen("rolling") == (law_of("rolling"), "")


def test_depth_is_dealt_by_overlapping_and_width_beside_it_by_its_own_law(couplings: dict[str, Coupling]) -> None:
    resnet = couplings["resnet"]
    assert resnet.select(["block"]).chosen()[0] == Overlapping(1)
    both = resnet.select(["block", "channel"])
    law, why = both.chosen()
    assert law == Mixed.of({"block": Overlapping(1), "*": Uniform()})
    assert "whole residual blocks" in why
    assert "meet in a residual stream" in why
    partition = both.partition(2, 0, 3, law="auto", core=0.25)
    assert law_of(**partition.law.record()) == partition.law
    assert {axis.name for axis in both.cut_axes} == set(partition.held)


class Residual(nn.Module):
    """Branches on a stream: their number, and whether they are normalised by the batch, decide."""

    def __init__(self, branches: int, norm: bool, stem: bool = False) -> None:
        super().__init__()
        self.stem = nn.BatchNorm1d(6) if stem else nn.Identity()
        self.up = nn.ModuleList(nn.Linear(6, 8) for _ in range(branches))
        self.norm = nn.ModuleList(nn.BatchNorm1d(8) if norm else nn.Identity() for _ in range(branches))
        self.down = nn.ModuleList(nn.Linear(8, 6) for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for up, norm, down in zip(self.up, self.norm, self.down, strict=True):
            x = x + down(norm(up(x)).relu())
        return x


@pytest.mark.parametrize(
    ("network", "law"),
    [
        (Residual(1, norm=True), Block()),  # nobody meets in the stream
        (Residual(2, norm=False), Fixed()),
        (Residual(2, norm=True), Uniform()),
        (Residual(2, norm=False, stem=True), Fixed()),  # a norm of what is whole
        (MLP(MLPSpec(6, (8, 8), 3)), Block()),
        (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), Block()),
    ],
)
def test_axes_that_meet_in_a_stream_and_norms_of_them_decide(network: nn.Module, law: object) -> None:
    assert isthmus.trace(network, (torch.randn(4, 6),)).chosen()[0] == law


def test_a_stream_that_is_cut_itself_is_shared_by_nobody() -> None:
    coupling = isthmus.trace(Residual(2, norm=False), (torch.randn(4, 6),))
    stream = nn.Sequential(nn.Linear(5, 6), Residual(2, norm=False), nn.Linear(6, 3))
    whole = isthmus.trace(stream, (torch.randn(4, 5),))
    assert coupling.chosen()[0] == whole.chosen()[0] == Fixed()
    assert whole.select(["ffn", "stream"]).chosen()[0] == Block()


def test_blocks_are_dealt_and_the_units_of_those_that_stay_are_cut() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.norm, self.down = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.down(self.norm(self.up(x)).relu())

    network = nn.Sequential(nn.Linear(5, 6), *(Normed() for _ in range(3)), nn.Linear(6, 3))
    x = torch.randn(8, 5)
    coupling = isthmus.trace(network, (x,)).select(["block", "ffn"])
    assert coupling.verify(network, (x,), quick=True).passed
    partition = coupling.partition(2, 0, law="auto")
    for worker in range(2):
        piece = isthmus.cut(network, coupling, partition, worker)
        there = [f"{1 + number}" for number in partition.held["blocks"][worker]]
        assert len(there) >= 2
        held = {name.split(".")[0] for name, _ in piece.module.named_parameters()} - {"0", "4"}
        assert held == set(there)
        for name in there:
            assert piece.module.get_parameter(f"{name}.up.weight").shape == (4, 6)
            assert piece.module.get_parameter(f"{name}.down.weight").shape == (6, 4)
        assert piece.module(x).shape == (8, 3)
