"""Axes with fewer units than workers are left whole, and what is inside them is cut in their place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
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
