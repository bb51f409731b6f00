"""Partition laws of a network, coverage and merging."""

import numpy as np
import pytest
import torch
from torch import nn

import isthmus
from cases.networks import mlp
from isthmus.errors import InvalidInput
from isthmus.nets.laws import Draw, draw, shares
from isthmus.nets.merge import coverage, zero_cross_blocks


def chain() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(),
                         nn.Linear(9, 3))  # fmt: skip


@pytest.mark.parametrize("workers", [2, 3])
def test_rolling_trains_every_entry_within_n_rounds(workers: int) -> None:
    coupling = isthmus.trace(chain(), (torch.randn(3, 6),))
    rounds = [coupling.partition(workers, seed=2, round=r, law="rolling") for r in range(workers)]
    assert coverage(coupling, rounds).least >= 1
    assert coverage(coupling, rounds[:-1]).never > 0
    fixed = [coupling.partition(workers, seed=2, round=r, law="fixed") for r in range(workers)]
    found = coverage(coupling, fixed)
    assert found.by_tensor["2.weight"][2] == pytest.approx(1 - 1 / workers)
    assert found.by_tensor["0.weight"] == (workers, float(workers), 0.0)


def test_a_partition_is_a_function_of_seed_and_round() -> None:
    coupling = isthmus.trace(chain(), (torch.randn(3, 6),))
    again = isthmus.trace(chain(), (torch.randn(2, 6),))
    for law in ("uniform", "fixed", "rotated", "block", "rolling", "overlapping"):
        a, b = (c.partition(3, seed=1, round=4, law=law) for c in (coupling, again))
        assert all(np.array_equal(x, y) for name in a.held for x, y in zip(a.held[name], b.held[name], strict=True))
    one, two = (coupling.partition(3, seed=1, round=r).held["0"][0] for r in (0, 1))
    assert not np.array_equal(one, two)


def test_core_is_held_by_all() -> None:
    coupling = isthmus.trace(chain(), (torch.randn(3, 6),))
    for law in ("uniform", "rolling", "overlapping"):
        held = coupling.partition(3, seed=0, law=law, core=0.25).held["0"]
        shared = set.intersection(*(set(units.tolist()) for units in held))
        assert len(shared) == 3
        assert set().union(*(units.tolist() for units in held)) == set(range(12))


def test_capacities_share_in_proportion() -> None:
    held = draw(Draw("weighted", 3, seed=0, capacities=(1.0, 1.0, 2.0)), "axis", 12)
    assert [len(units) for units in held] == [3, 3, 6]
    assert shares(5, [1e-9, 1.0]) == [1, 4]


def test_overlapping_fills_up_to_the_minimum() -> None:
    held = draw(Draw("overlapping", 4, seed=0, minimum=5), "axis", 8)
    assert [len(units) for units in held] == [5] * 4
    many = draw(Draw("overlapping", 6, seed=0, minimum=1), "axis", 4)
    assert min(len(units) for units in many) == 1
    assert set(np.concatenate(many).tolist()) == {0, 1, 2, 3}
    with pytest.raises(InvalidInput, match="`minimum` must be at most"):
        draw(Draw("overlapping", 2, seed=0, minimum=9), "axis", 8)


def test_merge_averages_over_holders_and_keeps_integers() -> None:
    model = mlp(nn.BatchNorm1d)
    coupling = isthmus.trace(model, (torch.randn(4, 6),))
    partition = coupling.partition(2, seed=0, core=0.5)
    parts = [isthmus.cut(model, coupling, partition, worker) for worker in range(2)]
    for value, part in zip((1.0, 4.0), parts, strict=True):
        with torch.no_grad():
            for parameter in part.module.parameters():
                parameter.fill_(value)
            part.module.state_dict()["1.num_batches_tracked"].fill_(7)
    isthmus.merge(model, parts)
    core = np.intersect1d(*partition.held["0"])
    mine = np.setdiff1d(partition.held["0"][1], core)
    assert torch.all(model[0].weight[core] == 2.5)
    assert torch.all(model[0].weight[mine] == 4.0)
    assert model[1].num_batches_tracked == 7
    assert model[1].num_batches_tracked.dtype == torch.int64


def test_block_law_with_zero_cross_blocks_is_a_sum_of_narrow_networks() -> None:
    torch.manual_seed(0)
    model, x = chain(), torch.randn(5, 6)
    coupling = isthmus.trace(model, (x,))
    partition = coupling.partition(3, seed=1, law="block")
    zero_cross_blocks(model, coupling, partition)
    parts = [isthmus.cut(model, coupling, partition, worker).module(x) for worker in range(3)]
    torch.testing.assert_close(model(x), sum(parts) - 2 * model[-1].bias)
