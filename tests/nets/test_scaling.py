"""Evaluation scales: the merged network's sums match those of its pieces, by factors folded into plain parameters."""

from collections.abc import Callable, Mapping
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import isthmus
from cases.networks import NETWORKS, FusedAttention, Network
from isthmus.nets.coupling import Coupling
from isthmus.nets.merge import zero_cross_blocks
from isthmus.nets.scaling import scaled, scaling

PIECE_LAWS = [("fixed", 0.0), ("fixed", 0.25), ("rotated", 0.25), ("block", 0.0), ("block", 0.25)]


class Flat(nn.Module):
    """Every channel fills nine columns of the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.out = nn.Conv2d(2, 8, 2), nn.Linear(8 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.conv(x).tanh().flatten(1))


class Grouped(nn.Module):
    """The channels within the groups of a second convolution, plain or transposed."""

    def __init__(self, second: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 24, 2), second(24, 4, 2, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).tanh())


class Joined(nn.Module):
    """Two axes of different sizes and one that is whole, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 12), nn.Linear(4, 8), nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.cat([self.a(x).tanh(), x, self.b(x).tanh()], -1))


class ByHand(nn.Module):
    """A weight stored as [out, parts, width], used transposed, in the other order, and by einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(4, 12)
        self.w, self.v = nn.Parameter(torch.randn(3, 4, 3)), nn.Parameter(torch.randn(2, 12))
        self.u = nn.Parameter(torch.randn(12, 2))

    def forward(self, x: Tensor) -> Tensor:
        h = self.inp(x).tanh()
        left = (self.v @ h.t()).t()
        return torch.cat([h @ self.w.view(3, 12).t(), left, torch.einsum("bh,ho->bo", h, self.u)], -1)


class Fused(nn.Module):
    """One parameter holds two layers' weights, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.w = nn.Linear(4, 8), nn.Parameter(torch.randn(5, 8))

    def forward(self, x: Tensor) -> Tensor:
        h, (first, second) = self.a(x), self.w.split([2, 3])
        return torch.cat([F.linear(h.tanh(), first), F.linear(h.sin(), second)], -1)


SINGLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), (5, 4)),
    "flattened channels": (Flat, (5, 2, 4, 4)),
    "grouped": (lambda: Grouped(nn.Conv2d), (3, 2, 4, 4)),
    "grouped, transposed": (lambda: Grouped(nn.ConvTranspose2d), (3, 2, 4, 4)),
    "concatenation": (Joined, (5, 4)),
    "by hand": (ByHand, (5, 4)),
    "fused": (Fused, (5, 4)),
    "attention": (lambda: FusedAttention(24, 8), (2, 5, 24)),
}


def evaluated(model: nn.Module, factors: Mapping[str, Tensor], *args: Tensor) -> Tensor:
    with scaled(model, factors), torch.no_grad():
        return model(*args)


def outputs(model: nn.Module, coupling: Coupling, partition: object, *args: Tensor) -> list[Tensor]:
    workers = range(partition.workers)  # type: ignore[attr-defined]
    with torch.no_grad():
        return [isthmus.cut(model, coupling, partition, worker).module(*args) for worker in workers]  # type: ignore[arg-type]


@cache
def single(name: str) -> tuple[nn.Module, Coupling, Tensor]:
    torch.manual_seed(0)
    build, shape = SINGLE[name]
    model, x = build().double().eval(), torch.randn(shape, dtype=torch.float64)
    return model, isthmus.trace(model, (x,)), x


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize(("law", "core"), PIECE_LAWS)
def test_one_cut_layer_gives_the_mean_of_the_pieces(name: str, law: str, core: float) -> None:
    """mean over workers of (core + piece) = core + (1/n) all pieces, exactly."""
    model, coupling, x = single(name)
    assert coupling.cut_axes
    partition = coupling.partition(3, seed=1, round=2, law=law, core=core)
    found = scaling(coupling, partition)
    mean = torch.stack(outputs(model, coupling, partition, x)).mean(0)
    torch.testing.assert_close(evaluated(model, found.evaluation, x), mean, rtol=0, atol=1e-12)
    assert all(reason.startswith("eval: no norm follows") for reason in found.why.values())
    assert set(found.open) == set(found.evaluation)


def deep() -> nn.Module:
    widths = [5, 8, 9, 8, 3]
    layers = [layer for a, b in zip(widths, widths[1:], strict=False) for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1]).double()


def test_a_block_network_is_the_mean_of_its_pieces_at_any_depth() -> None:
    torch.manual_seed(0)
    model, x = deep(), torch.randn(7, 5, dtype=torch.float64)
    coupling = isthmus.trace(model, (x,))
    partition = coupling.partition(3, seed=1, law="block")
    zero_cross_blocks(model, coupling, partition)
    found = scaling(coupling, partition)
    assert set(found.evaluation) == {"6.weight"}
    mean = torch.stack(outputs(model, coupling, partition, x)).mean(0)
    torch.testing.assert_close(evaluated(model, found.evaluation, x), mean, rtol=0, atol=1e-12)


def test_a_core_units_input_under_block_is_the_mean_over_the_workers_that_hold_it() -> None:
    torch.manual_seed(0)
    model, x = deep(), torch.randn(7, 5, dtype=torch.float64)
    coupling = isthmus.trace(model, (x,))
    partition = coupling.partition(3, seed=1, law="block", core=0.25)
    zero_cross_blocks(model, coupling, partition)
    factor = scaling(coupling, partition).evaluation["2.weight"]
    merged = evaluated(model[:3], {"2.weight": factor}, x)
    total, count = torch.zeros_like(merged), torch.zeros(9, dtype=torch.float64)
    for worker, held in enumerate(partition.held["2"]):
        part = isthmus.cut(model, coupling, partition, worker).state()
        hidden = torch.tanh(F.linear(x, part["0.weight"], part["0.bias"]))
        total[:, held] += F.linear(hidden, part["2.weight"], part["2.bias"])
        count[held] += 1
    assert count.max() == 3
    assert count.min() == 1
    torch.testing.assert_close(merged, total / count, rtol=0, atol=1e-12)


@pytest.mark.parametrize("law", ["uniform", "weighted", "rolling", "overlapping"])
def test_the_scale_is_how_often_a_column_is_held_where_its_row_is(law: str) -> None:
    """Counted over the rounds, for a weight between two cut layers, within 4.5 standard deviations."""
    model = nn.Sequential(nn.Linear(2, 7), nn.ReLU(), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 1))
    coupling = isthmus.trace(model, (torch.randn(3, 2),))
    capacities = (1.0, 3.0) if law == "weighted" else None
    minimum = 3 if law == "overlapping" else 1
    rounds, rows, both = 1500, np.zeros((5, 1)), np.zeros((5, 7))
    for number in range(rounds):
        partition = coupling.partition(2, 0, number, law, capacities, core=0.3, minimum=minimum)
        for worker in range(2):
            columns, held = (np.isin(np.arange(d), partition.held[a][worker]) for a, d in (("0", 7), ("2", 5)))
            rows += held[:, None]
            both += np.outer(held, columns)
    expected = np.broadcast_to(scaling(coupling, partition).evaluation["2.weight"].numpy(), (5, 7))
    sigma = np.sqrt(expected * (1 - expected) / rows)
    assert np.all(np.abs(both / rows - expected) < 4.5 * sigma + 1e-6)
    if law == "weighted":  # the fast worker holds most rows, and most columns too
        assert expected[0, 0] > np.mean([len(held) / 7 for held in partition.held["0"]]) + 0.02


@pytest.mark.parametrize("network", [n for n in NETWORKS if n.kinds], ids=lambda n: n.name)
def test_folding_equals_multiplying_what_the_units_contribute(network: Network) -> None:
    """The same factors, on the parameters here, in the graph there."""
    torch.manual_seed(0)
    model, args = network.build().double().eval(), network.inputs(2)
    args = tuple(a.double() if a.is_floating_point() else a for a in args)
    coupling = isthmus.trace(model, args, network.kwargs)
    for chosen in (coupling, coupling.select([a for a in coupling.axes if a.kind != "block"])):
        partition = chosen.partition(2, seed=0, law="overlapping")
        whole = [a.name for a in chosen.cut_axes if "1" in scaling(chosen, partition).why[a.name]]
        found = scaling(chosen, partition, dict.fromkeys(whole, "none"))
        share = {a.name: sum(map(len, partition.held[a.name])) / (2 * a.size) for a in chosen.cut_axes}
        factors = {name: value for name, value in share.items() if name not in whole}
        assert factors
        one = chosen.partition(1, seed=0)
        multiplied = isthmus.cut(model, chosen, one, 0, factors).module.eval()
        with torch.no_grad(), scaled(model, found.evaluation):
            pairs = zip(tree_leaves(multiplied(*args)), tree_leaves(model(*args)), strict=True)
        for a, b in pairs:
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)  # the factors in the graph are float32
