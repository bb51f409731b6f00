"""Axes with fewer units than workers are left whole, and what is inside them is cut in their place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import isthmus
from isthmus.errors import InvalidInput
from isthmus.nets import scaling


class Factored(nn.Module):
    """32 hidden units that are 2 x 16 for the layer behind them, and 3 units of their own at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.m, self.o, self.p = nn.Linear(6, 32), nn.Linear(16, 12), nn.Linear(24, 3), nn.Linear(3, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.m(self.a(x).relu().view(-1, 16)).relu()
        return self.p(self.o(h.view(x.shape[0], -1)).relu())


def traced(cut: list[str] | None = None) -> tuple[nn.Module, Tensor, isthmus.nets.Coupling]:
    torch.manual_seed(0)
    net, x = Factored(), torch.randn(4, 6)
    return net, x, isthmus.trace(net, (x,), cut=cut)


@pytest.mark.parametrize(
    ("workers", "law", "cut", "whole"),
    [
        (2, "uniform", [2, 3], {}),
        (3, "uniform", [3, 12, 16], {2: "2 units, too few for 3 workers"}),
        (4, "uniform", [12, 16], {2: "2 units, too few for 4 workers", 3: "3 units, too few for 4 workers"}),
        (16, "rolling", [16], {n: f"{n} units, too few for 16 workers" for n in (2, 3, 12)}),
        (16, "overlapping", [3, 12, 16], {}),
        (17, "overlapping", [2, 3], {}),
    ],
)
def test_the_factor_that_serves_is_cut(workers: int, law: str, cut: list[int], whole: dict[int, str]) -> None:
    net, x, coupling = traced()
    serving = coupling.serving(workers, law)
    assert sorted(axis.size for axis in serving.cut_axes) == cut
    sizes = {axis.name: axis.size for axis in coupling.axes}
    assert {sizes[name]: why for name, why in serving.left_whole.items()} == whole
    partition = coupling.partition(workers, seed=0, law=law)
    assert sorted(sizes[name] for name in partition.held) == cut
    parts = [isthmus.cut(net, coupling, partition, worker) for worker in range(workers)]
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    isthmus.merge(net, parts)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert serving.verify(net, (x,)).passed
    assert set(scaling(coupling, partition).why) == set(partition.held)


def test_what_was_asked_for_has_no_other_in_its_place() -> None:
    _, _, coupling = traced(["a", "o"])
    assert [axis.size for axis in coupling.serving(3).cut_axes] == [3]
    with pytest.raises(InvalidInput) as caught:
        coupling.partition(4, seed=0)
    assert str(caught.value) == (
        "axis 'o' has 3 units, too few for 4 workers, and no other axis has more: "
        "use fewer workers, or law='overlapping'"
    )
    shared = coupling.partition(4, seed=0, law="overlapping")
    assert {name: np.unique(np.concatenate(sets)).tolist() for name, sets in shared.held.items()} == {
        "a": [0, 1],
        "o": [0, 1, 2],
    }


class Attention(nn.Module):
    """Three heads of 8 on a stream of 24, with query, key and value in one weight or in one each."""

    def __init__(self, how: Heads) -> None:
        super().__init__()
        self.how = how
        self.norm, self.out, self.end = nn.LayerNorm(24), nn.Linear(24, 24), nn.Linear(24, 5)
        self.qkv = nn.Linear(24, 72) if how.fused else nn.ModuleList(nn.Linear(24, 24) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        if self.how.fused:
            q, k, v = self.qkv(y).unflatten(-1, (3, 3, 8)).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = (each(y).unflatten(-1, (3, 8)).transpose(1, 2) for each in self.qkv)
        if self.how.one_operator:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            mixed = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1) @ v
        return self.end(x + self.out(mixed.transpose(1, 2).flatten(2)))


@dataclass(frozen=True)
class Heads:
    """How an attention is written."""

    fused: bool
    one_operator: bool


@pytest.mark.parametrize("one_operator", [True, False])
@pytest.mark.parametrize(("fused", "inside"), [(True, [8]), (False, [8, 8])])
def test_heads_too_few_for_the_workers_are_cut_inside(fused: bool, inside: list[int], one_operator: bool) -> None:
    """Where heads serve they alone are cut; the values are an axis of their own where they have a weight of theirs."""
    torch.manual_seed(0)
    net, x = Attention(Heads(fused, one_operator)), torch.randn(2, 5, 24)
    coupling = isthmus.trace(net, (x,))
    assert [(axis.kind, axis.size) for axis in coupling.serving(3).cut_axes] == [("head", 3)]
    serving = coupling.serving(4)
    assert [axis.size for axis in serving.cut_axes] == inside
    assert list(serving.left_whole.values()) == ["3 units, too few for 4 workers"]
    assert [axis.size for axis in coupling.serving(9).cut_axes] == []
    assert serving.verify(net, (x,)).passed
    parts = [isthmus.cut(net, coupling, coupling.partition(4, seed=0, law="fixed"), worker) for worker in range(4)]
    q = "qkv.weight" if fused else "qkv.0.weight"
    assert [tuple(part.state()[q].shape) for part in parts] == [(18 if fused else 6, 24)] * 4


def test_one_head_is_no_axis_and_stays_whole_inside() -> None:
    class Single(Attention):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (each(self.norm(x)) for each in self.qkv)
            return self.end(x + self.out(F.scaled_dot_product_attention(q, k, v)))

    coupling = isthmus.trace(Single(Heads(False, True)), (torch.randn(2, 5, 24),))
    assert "inside a head" in [axis.why for axis in coupling.axes]
