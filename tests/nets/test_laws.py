"""Partition laws of a network, coverage and merging."""

import numpy as np
import pytest
import torch
from torch import nn

import isthmus
from cases.networks import mlp
from isthmus.errors import InvalidInput
from isthmus.nets.pieces.merge import coverage, holders, zero_cross_blocks
from isthmus.partitions import Block, Core, Law, Rotated, Uniform


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


def test_a_law_may_be_a_name_or_an_object() -> None:
    coupling = isthmus.trace(chain(), (torch.randn(3, 6),))
    by_name = coupling.partition(3, 1, 2, "rotated", core=0.25)
    by_object = coupling.partition(3, 1, 2, Core(Rotated(), 0.25))
    assert by_name.law == by_object.law == Core(Rotated(), 0.25)
    for name, sets in by_name.held.items():
        assert all(map(np.array_equal, sets, by_object.held[name]))
    with pytest.raises(InvalidInput, match="`minimum` has no effect with law 'uniform'"):
        coupling.partition(3, 1, law=Uniform(), minimum=2)
    with pytest.raises(InvalidInput, match="axis '0' has 12 units, too few for 13 workers, and no other"):
        coupling.partition(13, 1)


@pytest.mark.parametrize("law", [Block(), Core(Block(), 0.25), Uniform()])
def test_zeros_are_written_where_nobody_holds_an_entry(law: Law) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    model[2].weight.data[0, 0, 0, 0] = float("nan")  # zero it is all the same, where nobody holds it
    coupling = isthmus.trace(model, (torch.randn(2, 3, 5, 5),))
    partition = coupling.partition(3, seed=0, law=law)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    zero_cross_blocks(model, coupling, partition)
    counts = holders(coupling, partition)
    for name, tensor in model.state_dict().items():
        maps = [coupling.index_map(partition.of(worker))[name] for worker in range(3)]
        held = sum(np.broadcast_to(mask(tensor.shape, index_set), tensor.shape).astype(int) for index_set in maps)
        assert np.array_equal(counts[name], held)
        parameter = name in dict(model.named_parameters())
        expected = torch.where(torch.as_tensor(held == 0), 0.0, before[name]) if parameter else before[name]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0, equal_nan=True)
    assert any((count == 0).any() for count in counts.values())


def mask(shape: torch.Size, index_set: tuple[np.ndarray | None, ...]) -> np.ndarray:
    """Whether all indices of an entry are in the sets."""
    result = np.ones((1,) * len(shape), bool)
    for dim, (size, indices) in enumerate(zip(shape, index_set, strict=True)):
        inside = np.ones(size, bool) if indices is None else np.isin(np.arange(size), indices)
        result = result & inside.reshape([-1 if d == dim else 1 for d in range(len(shape))])
    return result
