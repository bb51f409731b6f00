"""Evaluation scales: the merged network's sums match those of its pieces, by factors folded into plain parameters."""

import copy
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import isthmus
from cases.networks import NETWORKS, Basic, FusedAttention, Network, image, mlp, resnet
from isthmus.errors import InvalidInput
from isthmus.nets.coupling.coupling import Coupling
from isthmus.nets.pieces.laws import given
from isthmus.nets.pieces.merge import zero_cross_blocks
from isthmus.nets.scale.norms import recalibrate
from isthmus.nets.scale.scaling import CHOICES, Scaling, scaled, scaling, search_readout

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


class Bilinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.pair = nn.Linear(4, 8), nn.Linear(4, 12), nn.Bilinear(8, 12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.pair(self.a(x).tanh(), self.b(x).tanh())


SINGLE: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)), (5, 4)),
    "flattened channels": (Flat, (5, 2, 4, 4)),
    "grouped": (lambda: Grouped(nn.Conv2d), (3, 2, 4, 4)),
    "grouped, transposed": (lambda: Grouped(nn.ConvTranspose2d), (3, 2, 4, 4)),
    "concatenation": (Joined, (5, 4)),
    "by hand": (ByHand, (5, 4)),
    "fused": (Fused, (5, 4)),
    "bilinear": (Bilinear, (5, 4)),
    "attention": (lambda: FusedAttention(24, 8), (2, 5, 24)),
}


def depthwise(convolution: Callable[..., nn.Module]) -> nn.Module:
    """Each channel is a group: the convolution in the middle sums over nothing that is cut."""
    middle = convolution(12, 12, 1, groups=12)
    return nn.Sequential(nn.Conv2d(2, 12, 1), nn.Tanh(), middle, nn.Tanh(), nn.Conv2d(12, 3, 1))


SINGLE["depthwise"] = (lambda: depthwise(nn.Conv2d), (3, 2, 4, 4))
SINGLE["depthwise, transposed"] = (lambda: depthwise(nn.ConvTranspose2d), (3, 2, 4, 4))


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
    if law == "block":
        model = zero_cross_blocks(copy.deepcopy(model), coupling, partition)
    found = scaling(coupling, partition)
    mean = torch.stack(outputs(model, coupling, partition, x)).mean(0)
    torch.testing.assert_close(evaluated(model, found.evaluation, x), mean, rtol=0, atol=1e-12)
    assert all(reason.startswith("eval: no norm follows") for reason in found.why.values())
    assert set(found.open) == set(found.evaluation)


def deep() -> nn.Module:
    widths = [5, 8, 9, 8, 3]
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1]).double()


def grouped() -> nn.Module:
    """Groups and the channels within them can both be cut; a sum runs over the latter."""
    middle = nn.ConvTranspose2d(12, 4, 1, groups=4)
    return nn.Sequential(nn.Conv2d(3, 12, 1), nn.Tanh(), middle, nn.Tanh(), nn.Conv2d(4, 3, 1))


@pytest.mark.parametrize(("build", "shape", "last"), [(deep, (7, 5), "6"), (grouped, (2, 3, 4, 4), "4")])
def test_a_block_network_is_the_mean_of_its_pieces_at_any_depth(
    build: Callable[[], nn.Module], shape: tuple[int, ...], last: str
) -> None:
    torch.manual_seed(0)
    model, x = build().double(), torch.randn(shape, dtype=torch.float64)
    coupling = isthmus.trace(model, (x,), cut=["*"])
    partition = coupling.partition(2, seed=1, law="block")
    zero_cross_blocks(model, coupling, partition)
    found = scaling(coupling, partition)
    assert set(found.evaluation) == {f"{last}.weight"}
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
    minimum = 3 if law == "overlapping" else None
    rounds, rows, both = 1500, np.zeros((5, 1)), np.zeros((5, 7))
    for number in range(rounds):
        partition = coupling.partition(2, 0, number, law, capacities, core=0.3, minimum=minimum)
        for worker in range(2):
            columns, held = (np.isin(np.arange(d), partition.held[a][worker]) for a, d in (("0", 7), ("2", 5)))
            rows += held[:, None]
            both += np.outer(held, columns)
    expected = np.broadcast_to(scaling(coupling, partition).evaluation["2.weight"].tensor().numpy(), (5, 7))
    sigma = np.sqrt(expected * (1 - expected) / rows)
    assert np.all(np.abs(both / rows - expected) < 4.5 * sigma + 1e-6)
    if law == "weighted":  # the fast worker holds most rows, and most columns too
        dealt = [np.setxor1d(*partition.held[axis])[0] for axis in ("2", "0")]  # not of the core
        assert expected[tuple(dealt)] > 0.5 + 0.02


DIFFERENT = ("lenet", "resnext", "densenet", "unet", "convnext", "channel shuffle", "gpt, tied", "encoder", "llama")
DIFFERENT += ("t5", "squeeze and excitation", "mixture of experts", "gat", "mlp-mixer", "lstm", "gru cell, unrolled")


COMPARED = [n for n in NETWORKS if n.name in DIFFERENT] + [Network("grouped", grouped, image(), kinds=("channel",))]


@pytest.mark.parametrize("network", COMPARED, ids=lambda n: n.name)
def test_folding_equals_multiplying_what_the_units_contribute(network: Network) -> None:
    """The same factors, on the parameters here, in the graph there."""
    torch.manual_seed(0)
    model, args = network.build().double().eval(), network.inputs(2)
    args = tuple(a.double() if a.is_floating_point() else a for a in args)
    coupling = isthmus.trace(model, args, network.kwargs)
    for chosen in (coupling, coupling.select([a for a in coupling.axes if a.kind != "block"])):
        if {axis.kind for axis in chosen.cut_axes} == {"expert"}:  # no factors, as the router weighs anew
            continue
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


class Steps(nn.Module):
    """Residual branches that add to one coordinate each, read from one that none adds to: their sum is exact."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 5, bias)) for _ in range(4))
        with torch.no_grad():
            for number, block in enumerate(self.blocks, start=1):
                block[0].weight[:, 1:] = 0.0
                for parameter in block[2].parameters():
                    kept = parameter[number].clone()
                    parameter.zero_()
                    parameter[number] = kept

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + F.dropout(block(x), 0.1, self.training)
        return x


@pytest.mark.parametrize(("law", "core"), PIECE_LAWS)
@pytest.mark.parametrize("cut", [["block"], ["block", "ffn"]])
def test_a_branch_counts_as_often_as_a_worker_holds_it(law: str, core: float, cut: list[str]) -> None:
    if law != "block":
        cut = ["block"]  # depth and width are exact together only where cross-blocks are zero
    torch.manual_seed(0)
    model, x = Steps().double().eval(), torch.randn(3, 5, dtype=torch.float64)
    coupling = isthmus.trace(model, (x,), cut=cut)
    partition = coupling.partition(2, seed=0, law=law, core=core)
    if law == "block":
        zero_cross_blocks(model, coupling, partition)
    found = scaling(coupling, partition)
    assert found.why["blocks"] == "eval: the branch counts as often as a worker holds it"
    ends = {name for name in found.evaluation if name.endswith("2.bias")}
    assert ends
    assert ends <= set(found.open)  # no norm undoes it: an exponent can be searched
    mean = torch.stack(outputs(model, coupling, partition, x)).mean(0)
    torch.testing.assert_close(evaluated(model, found.evaluation, x), mean, rtol=0, atol=1e-12)


def test_a_drawn_branch_counts_as_often_as_it_is_drawn() -> None:
    """The mean over 100 rounds, within 4.5 standard deviations."""
    torch.manual_seed(0)
    model, x = Steps().double().eval(), torch.randn(3, 5, dtype=torch.float64)
    coupling = isthmus.trace(model, (x,), cut=["block"])
    drawn = [coupling.partition(2, 0, number, "overlapping", minimum=3) for number in range(100)]
    found = scaling(coupling, drawn[0])
    assert found.evaluation["blocks.0.2.bias"].tensor().tolist() == [0.75]  # 3 of 4 blocks
    parts = torch.stack([part for partition in drawn for part in outputs(model, coupling, partition, x)])
    spread = parts.std(0) / len(parts) ** 0.5
    assert torch.all((parts.mean(0) - evaluated(model, found.evaluation, x)).abs() < 4.5 * spread + 1e-12)


def test_a_norm_at_the_end_of_a_branch_takes_its_factor() -> None:
    torch.manual_seed(0)
    model, x = resnet(Basic(8, 8), Basic(8, 8)).eval(), torch.randn(2, 3, 8, 8)
    coupling = isthmus.trace(model, (x,), cut=["block"])
    found = scaling(coupling, coupling.partition(4, seed=0, law="overlapping"))
    assert set(found.evaluation) == {f"{block}.bn2.{name}" for block in (3, 4) for name in ("weight", "bias")}
    share = found.evaluation["3.bn2.weight"].tensor().item()
    merged = evaluated(model, found.evaluation, x)
    for block in (model[3], model[4]):
        block.bn2.register_forward_hook(lambda module, args, result: share * result)
    assert share == 0.5
    torch.testing.assert_close(merged, model(x))


@pytest.mark.parametrize("convolution", [nn.Conv2d, nn.ConvTranspose2d])
def test_a_convolution_at_the_end_of_a_branch_takes_its_factor(convolution: Callable[..., nn.Module]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), convolution(6, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return x + self.c(self.b(x).relu())

    model, x = Net(), torch.randn(2, 3, 4, 4)
    coupling = isthmus.trace(model, (x,), cut=["block"])
    held = coupling.partition(1, seed=0).held["blocks"]
    half = given({"blocks": (held[0], held[0][:0])})
    found = scaling(coupling, half)
    without = isthmus.cut(model, coupling, half, 1).module(x)
    torch.testing.assert_close(evaluated(model, found.evaluation, x), (model(x) + without) / 2)


def test_a_branch_that_is_used_twice_is_left_alone() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(4, 6), nn.Linear(6, 6), nn.LayerNorm(6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            y = self.b(x)
            return x + (y + self.norm(y))

    coupling = isthmus.trace(Net(), (torch.randn(3, 4),), cut=["block"])
    found = scaling(coupling, coupling.partition(2, seed=0, law="overlapping"))
    assert found.why["blocks"].endswith("the branch is used elsewhere too")


class Branch(nn.Module):
    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.inp = nn.Linear(4, 6)
        self.branches = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), copy.deepcopy(end)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.inp(x)
        for branch in self.branches:
            x = x + branch(x)
        return x


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (nn.Tanh(), "1: branches.0.0: tanh lies between the last weight of the branch and the addition"),
        (nn.LayerNorm(6, elementwise_affine=False), "1: branches.0.0: the last operator of the branch (layer_norm)"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), "is computed, or used twice"),
        (nn.Dropout(0.1), "eval: the branch counts as often"),
        (nn.LayerNorm(6), "eval: the branch counts as often"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_branch_that_cannot_be_scaled_says_why(end: nn.Module, reason: str) -> None:
    coupling = isthmus.trace(Branch(end), (torch.randn(3, 4),), cut=["block"])
    found = scaling(coupling, coupling.partition(2, seed=0))
    assert reason in found.why["blocks"]
    assert bool(found.evaluation) == reason.startswith("eval")


class TiedAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.out = nn.Parameter(torch.randn(8, 5)), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(F.linear(F.linear(x, self.w).relu(), self.w.t()))


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inp, self.w, self.out = nn.Linear(4, 8), nn.Parameter(torch.randn(8, 8)), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.inp(x).relu() @ (self.w @ self.w))


class SharedLayer(nn.Module):
    """The same layer twice, between the same units: both uses want the same factor."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.layer, self.out = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(self.layer(self.inp(x).relu()).relu()).relu())


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            h = self.b(self.a(x).relu())
        return self.c(h.float().relu())


def test_weights_used_more_than_once() -> None:
    tied = isthmus.trace(TiedAutoencoder(), (torch.randn(3, 5),))
    found = scaling(tied, tied.partition(2, seed=0))
    assert found.why == {"w": "1: w: the weight is used more than once and needs different factors (tied)"}
    assert found.evaluation == {}
    squared = isthmus.trace(Squared(), (torch.randn(3, 4),))
    found = scaling(squared, squared.partition(2, seed=0))
    (why,) = found.why.values()
    assert "w: the weight is multiplied by itself" in why
    assert "w" not in found.evaluation
    shared = isthmus.trace(SharedLayer(), (torch.randn(3, 4),))
    found = scaling(shared, shared.partition(4, seed=0))
    assert {name: factor.tensor().item() for name, factor in found.evaluation.items()} == {
        "layer.weight": 0.25,
        "out.weight": 0.25,
    }


class Repeated(nn.Module):
    """One row stands for all of a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.row = nn.Linear(4, 8), nn.Parameter(torch.randn(1, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.inp(x).relu() @ self.row.expand(8, 3)


def test_an_entry_that_meets_several_units_takes_a_factor_only_if_they_agree() -> None:
    coupling = isthmus.trace(Repeated(), (torch.randn(3, 4),))
    found = scaling(coupling, coupling.partition(2, seed=0))
    assert found.evaluation["row"].tensor().tolist() == [[0.5]]
    found = scaling(coupling, coupling.partition(2, seed=0, law="fixed", core=0.5))
    assert found.evaluation == {}
    assert found.why["inp"].startswith("1: row: ")


def test_weights_inside_a_region() -> None:
    coupling = isthmus.trace(Autocast(), (torch.randn(3, 4),))
    found = scaling(coupling, coupling.partition(2, seed=0))
    factors = {name: factor.tensor().item() for name, factor in found.evaluation.items()}
    assert factors == {"b.weight": 0.5, "c.weight": 0.5}


def test_computed_weights_and_plain_sums_keep_one() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 6), nn.utils.parametrizations.weight_norm(nn.Linear(6, 8))

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu()).relu().sum(-1)

    coupling = isthmus.trace(Net(), (torch.randn(3, 4),), cut=["hidden"])
    found = scaling(coupling, coupling.partition(2, seed=0))
    assert sorted(found.why.values()) == ["1: a sum without weights", "1: the weight is computed from parameters"]
    assert not found.evaluation


def test_why_says_what_follows() -> None:
    coupling = isthmus.trace(mlp(nn.BatchNorm1d), (torch.randn(4, 6),))
    partition = coupling.partition(4, seed=0)
    found = scaling(coupling, partition)
    assert found.why == {"0": "eval: a norm follows, which absorbs a common factor", "4": "eval: no norm follows"}
    assert {name: factor.tensor().tolist() for name, factor in found.evaluation.items()} == {
        "4.weight": [[0.25]],
        "8.weight": [[0.25]],
    }
    assert found.open == ("8.weight",)
    train = scaling(coupling, partition, "train")
    assert (train.train, train.evaluation) == ({"0": 4.0, "4": 4.0}, {})
    none = scaling(coupling, partition, {"0": "none", "4": "readout"})
    assert none.why == {"0": "none: as asked", "4": "readout: no norm follows"}
    assert list(none.evaluation) == ["8.weight"]
    with pytest.raises(InvalidInput, match="`choice` must be one of"):
        scaling(coupling, partition, "half")
    layers = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.LayerNorm(5))
    biased = isthmus.trace(layers, (torch.ones(2, 4),))
    assert scaling(biased, biased.partition(2, seed=0)).open == ("2.weight",)  # the bias is not scaled with the sum


def test_a_norm_absorbs_a_factor_common_to_all_units() -> None:
    torch.manual_seed(0)
    model, data = resnet(Basic(8, 8)), [torch.randn(16, 3, 8, 8) for _ in range(2)]
    coupling = isthmus.trace(model, (data[0],))
    found = scaling(coupling, coupling.partition(2, seed=0))
    assert list(found.evaluation) == ["3.conv2.weight"]
    assert not found.open
    recalibrate(model, data)
    before = model.eval()(data[0])
    with scaled(model, found.evaluation):
        recalibrate(model, data)
        torch.testing.assert_close(model(data[0]), before, rtol=1e-3, atol=1e-4)  # epsilon is not scaled


@pytest.mark.parametrize("law", ["uniform", "fixed", "block", "rolling", "overlapping"])
def test_one_worker_and_a_whole_core_need_no_factor(law: str) -> None:
    for model, shape in ((deep().float(), (3, 5)), (Steps(), (3, 5)), (Flat(), (2, 2, 4, 4))):
        coupling = isthmus.trace(model, (torch.randn(shape),))
        coupling = coupling.select([axis for axis in coupling.axes if axis.kind != "stream"])
        for partition in (coupling.partition(1, seed=0, law=law), coupling.partition(3, seed=0, law=law, core=1.0)):
            for choice in CHOICES:
                found = scaling(coupling, partition, choice)
                assert found.evaluation == {}
                assert not any(found.by_axis.values())
                assert set(found.train.values()) <= {1.0}


def test_scaled_gives_back_the_very_bits() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    model[0].weight.data[0] = torch.tensor([-0.0, float("nan"), 1e-40])
    model.add_module("again", model[0])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    untouched = model[1].bias.data_ptr()

    def fail(inside: nn.Module) -> None:
        assert inside is model
        assert torch.equal(model.again.weight[1:], before["0.weight"][1:] * (1 / 3))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), scaled(model, {"0.weight": torch.full((1, 3), 1 / 3)}) as inside:
        fail(inside)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor.view(torch.int32), before[name].view(torch.int32))
    assert model[1].bias.data_ptr() == untouched
    for name, message in [("2.weight", "no parameter"), ("0.weight", "must fit")]:
        with pytest.raises(InvalidInput, match=message), scaled(model, {name: torch.ones(3)}):
            pass


def readout(powers: tuple[float, float]) -> tuple[nn.Module, Coupling, Scaling, Callable[[nn.Module], float]]:
    torch.manual_seed(0)
    model = Joined()
    x = torch.randn(64, 4)
    coupling = isthmus.trace(model, (x,))
    found = scaling(coupling, coupling.partition(4, seed=0), "readout")
    shares = torch.cat([torch.full((12,), 0.25 ** powers[0]), torch.ones(4), torch.full((8,), 0.25 ** powers[1])])
    wanted = evaluated(model, {"c.weight": shares[None]}, x)
    return model, coupling, found, lambda net: float((net(x) - wanted).square().mean())


def test_readout_search_finds_an_exponent_for_each_axis() -> None:
    model, coupling, found, loss = readout((0.7, 1.0))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chosen = search_readout(model, coupling, found, loss)
    factors = chosen.evaluation["c.weight"].tensor()[0]
    assert factors[0].item() == pytest.approx(0.25**0.7, abs=0.02)
    assert torch.all(factors[12:16] == 1.0)
    assert factors[-1].item() == pytest.approx(0.25, abs=0.02)
    assert chosen.why["a"] == "readout: exponent 0.70 found on held-out data"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_readout_search_keeps_the_rule_where_nothing_is_better() -> None:
    model, coupling, found, _ = readout((1.0, 1.0))
    for loss in (lambda net: float("nan"), lambda net: 1.0):
        chosen = search_readout(model, coupling, found, loss)
        assert torch.equal(chosen.evaluation["c.weight"].tensor(), found.evaluation["c.weight"].tensor())
    absorbed = isthmus.trace(resnet(Basic(8, 8)), (torch.randn(2, 3, 8, 8),))
    all_absorbed = scaling(absorbed, absorbed.partition(2, seed=0))
    search_readout(model, absorbed, all_absorbed, lambda net: pytest.fail("no axis is open"))


def test_readout_search_goes_no_further_than_its_ends() -> None:
    for target, end in ((3.0, 1.5), (-1.0, 0.0)):
        model, coupling, found, loss = readout((target, 1.0))
        factors = search_readout(model, coupling, found, loss).evaluation["c.weight"].tensor()[0]
        assert factors[0].item() == pytest.approx(0.25**end, rel=0.05)


def test_readout_search_changes_nothing_for_a_tie() -> None:
    model, coupling, found, _ = readout((1.0, 1.0))
    chosen = search_readout(model, coupling, found, lambda net: 2.0)
    assert {chosen.why[axis] for axis in ("a", "b")} == {"readout: exponent 1.00 found on held-out data"}


def test_readout_search_of_one_axis() -> None:
    model = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).eval()
    coupling = isthmus.trace(model, (torch.randn(3, 2),))
    found = scaling(coupling, coupling.partition(2, seed=0))
    before = model[2].weight.clone()
    chosen = search_readout(model, coupling, found, lambda net: float((net[2].weight / before).mean() - 0.25) ** 2)
    assert chosen.evaluation["2.weight"].tensor().item() == pytest.approx(0.5**1.5, rel=0.05)  # the nearest to 1/4


def test_factors_of_one_are_left_out_and_no_others() -> None:
    coupling = isthmus.trace(nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), (torch.randn(3, 2),))
    assert scaling(coupling, coupling.partition(1, seed=0)).by_axis == {"0": {}}
    halves = scaling(coupling, coupling.partition(2, seed=0)).by_axis["0"]
    assert {name: factor.tensor().tolist() for name, factor in halves.items()} == {"2.weight": [[0.5]]}


class Constant(nn.Module):
    """Sums over its cut layer against numbers that nobody trains."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.register_buffer("last", torch.ones(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.inner(x).tanh(), self.last)


def test_a_sum_against_a_constant_keeps_one() -> None:
    coupling = isthmus.trace(Constant(), (torch.randn(2, 3),))
    found = scaling(coupling, coupling.partition(2, seed=0))
    assert found.why == {"inner": "1: last: it is summed against a constant, not a parameter"}
    assert found.evaluation == {}


@pytest.mark.parametrize("choice", ["none", "train", "readout", "eval", "auto"])
def test_units_that_a_router_weighs_need_no_factor_by_themselves(choice: str) -> None:
    (network,) = [one for one in NETWORKS if one.name == "mixture of experts"]
    coupling = isthmus.trace(network.build(), network.inputs(2), network.kwargs)
    coupling = coupling.select([axis for axis in coupling.axes if axis.kind == "expert"])
    found = scaling(coupling, coupling.partition(2, seed=0), choice)
    said = {"none": "none: as asked", "train": "train: as asked"}.get(choice, "1: ")
    assert all(why.startswith(said) for why in found.why.values())
    weighed = {"1: the router weighs those that are held anew"}
    assert (set(found.why.values()) == weighed) is (choice in ("auto", "eval"))


@pytest.mark.parametrize("shape", [(3,), (1, 2), (2, 3), (1, 1, 3), (3, 2)])
def test_factors_must_fit_in_every_dimension(shape: tuple[int, ...]) -> None:
    model = nn.Linear(3, 4)
    with pytest.raises(InvalidInput, match=r"must fit shape \(4, 3\)"), scaled(model, {"weight": torch.ones(shape)}):
        pass
    for fits in ((1, 1), (4, 1), (1, 3), (4, 3)):
        before = model.weight.clone()
        with scaled(model, {"weight": torch.full(fits, 2.0)}):
            assert torch.equal(model.weight, 2 * before)


def test_choices_are_made_by_axis_and_said() -> None:
    model = Joined()
    coupling = isthmus.trace(model, (torch.randn(5, 4),))
    partition = coupling.partition(4, seed=0)
    mixed = scaling(coupling, partition, {"a": "train"})
    assert mixed.train == {"a": pytest.approx(4.0)}
    assert mixed.why == {"a": "train: as asked", "b": "eval: no norm follows"}
    columns = mixed.evaluation["c.weight"].tensor()[0]
    assert torch.equal(columns, torch.cat([torch.ones(16), torch.full((8,), 0.25)]))
    assert mixed.open == ("c.weight",)
    none = scaling(coupling, partition, "none")
    assert (none.train, dict(none.evaluation), none.open) == ({}, {}, ())
    assert set(none.why.values()) == {"none: as asked"}
    assert scaling(coupling, partition, "readout").why["a"] == "readout: no norm follows"
    assert "by_axis" not in repr(mixed)
    with pytest.raises(InvalidInput, match="`choice` must be one of"):
        scaling(coupling, partition, "half")


def test_two_axes_of_one_weight_multiply() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
    coupling = isthmus.trace(model, (torch.randn(5, 4),))
    found = scaling(coupling, coupling.partition(2, seed=0))
    halved = {name: factor.tensor() for name, factor in found.evaluation.items()}
    assert set(halved) == {"2.weight", "4.weight"}
    for name, factor in halved.items():
        parts = [by[name].tensor() for by in found.by_axis.values() if name in by]
        expected = torch.ones(1)
        for part in parts:
            expected = expected * part
        assert torch.equal(factor.expand(2, 8) if name == "4.weight" else factor.expand(8, 8),
                           expected.expand(2, 8) if name == "4.weight" else expected.expand(8, 8))  # fmt: skip
