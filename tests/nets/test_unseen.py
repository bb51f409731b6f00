"""Generality: networks written in other styles than those the rules were made on."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import isthmus
from cases.networks import Network
from cases.networks_more import UNSEEN, SameNames
from cases.networks_more_transformers import UNSEEN_TRANSFORMERS
from isthmus.errors import InvalidInput
from isthmus.nets.check.verify import verify
from isthmus.nets.coupling.coupling import Coupling
from isthmus.nets.pieces.subnetwork import named_state

ALL = {network.name: network for network in [*UNSEEN, *UNSEEN_TRANSFORMERS]}


def outputs(module: nn.Module, network: Network, args: tuple[Tensor, ...]) -> list[Tensor]:
    torch.manual_seed(7)  # for networks that draw in forward
    return [leaf for leaf in tree_leaves(module.eval()(*args, **network.kwargs)) if isinstance(leaf, Tensor)]


@pytest.mark.parametrize("name", ALL)
def test_is_cut_right(name: str) -> None:
    """Cut by default what it should; all cut at once equals the masked whole, merges bit by bit, is whole for one."""
    network = ALL[name]
    torch.manual_seed(3)
    model, args = network.build(), network.inputs(3)
    coupling = isthmus.trace(model, args, network.kwargs)
    assert {axis.kind for axis in coupling.cut_axes} >= set(network.kinds)
    assert not network.open_batch or not any("input 0, dimension 0" in line for line in coupling.fixed_inputs)
    assert coupling.axes
    everything = coupling.select(["*"])
    verdict = verify(everything, model, args, network.kwargs, seeds=(1,))
    assert verdict.passed, verdict.summary()
    for workers in (2, 3):
        merges_back(everything, model, workers)
    whole = isthmus.cut(model, everything, everything.partition(1, seed=0), 0).module
    for batch in (3, 2) if network.open_batch else (3,):
        args = network.inputs(batch)
        for mine, theirs in zip(outputs(whole, network, args), outputs(model, network, args), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def merges_back(coupling: Coupling, model: nn.Module, workers: int) -> None:
    partition = coupling.partition(workers, seed=workers, law="overlapping")
    parts = [isthmus.cut(model, coupling, partition, worker) for worker in range(workers)]
    merged = isthmus.merge(copy.deepcopy(model), parts)
    for (entry, tensor), (_, before) in zip(named_state(merged), named_state(model), strict=True):
        assert torch.equal(tensor, before), entry


def test_blocks_of_one_name_are_told_apart() -> None:
    """The graphs of subnetworks are shared between equal sizes, not between different blocks."""
    model, x = SameNames(), torch.randn(3, 6)
    coupling = isthmus.trace(model, (x,), cut=["block"])
    partition = coupling.partition(2, seed=0)
    lacking = [set(model.state_dict()) - set(isthmus.cut(model, coupling, partition, w).indices) for w in (0, 1)]
    assert {frozenset(name.split(".")[1] for name in names) for names in lacking} == {frozenset("ab"), frozenset("cd")}
    for worker, names in enumerate(lacking):
        expected = copy.deepcopy(model)
        for name in names:
            expected.get_parameter(name).data.zero_()
        torch.testing.assert_close(isthmus.cut(model, coupling, partition, worker).module(x), expected(x))


def test_statistics_updated_in_a_region_follow_their_units() -> None:
    model, x = ALL["averaging"].build(), torch.randn(4, 6)
    coupling = isthmus.trace(model, (x,), cut=["*"])
    sub = isthmus.cut(model, coupling, coupling.partition(2, seed=0), 1)
    sub.module.train()(x)
    units = torch.as_tensor(sub.indices["mean"][0])
    assert len(units) == 4
    torch.testing.assert_close(sub.module.state_dict()["mean"], 0.1 * model.a(x).mean(0)[units].detach())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.utils.parametrizations.orthogonal(nn.Linear(6, 8)), "(aten.linalg_householder_product"),
    ],
)
def test_what_is_out_of_reach_is_whole_and_says_so(make, message: str) -> None:
    model = nn.Sequential(make(), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 2))
    coupling = isthmus.trace(model, (torch.randn(3, 6),), verify=True)
    assert "2" in {axis.name for axis in coupling.cut_axes}
    assert any(message in line for line in coupling.problems)


def test_shapes_that_depend_on_values_are_refused_in_one_line() -> None:
    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            rows = x.sum(-1).gt(0).nonzero().flatten()
            y = self.a(x)
            for row in rows.tolist():
                y[row] = y[row].relu()
            return self.b(y)

    with pytest.raises(InvalidInput, match="cannot be traced") as caught:
        isthmus.trace(Chosen(), (torch.randn(3, 6),))
    assert "\n" not in str(caught.value)
