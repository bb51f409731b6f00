"""The laws of cutting and merging, on every network of the registry."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

import isthmus
from cases.laws import DISJOINT
from isthmus.nets.check.verify import verify
from isthmus.nets.coupling.coupling import Coupling
from isthmus.nets.pieces import subnetwork
from isthmus.nets.pieces.merge import holders
from isthmus.nets.pieces.optimizer import cut_optimizer, merge_optimizer
from isthmus.nets.pieces.subnetwork import Subnetwork, named_state
from isthmus.partitions import LAWS
from nets.traced import ALL, CUTTABLE, fresh, outputs, state_of


def law_for(coupling: Coupling, law: str, workers: int) -> str:
    return law if min(axis.size for axis in coupling.cut_axes) >= workers else "overlapping"


@pytest.mark.parametrize("name", ALL)
def test_cuts_what_it_should(name: str) -> None:
    network, _, coupling = fresh(name)
    assert {axis.kind for axis in coupling.cut_axes} >= set(network.kinds)
    assert bool(coupling.cut_axes) == bool(network.kinds)
    assert all(axis.kind != "stream" and axis.kind != "block" for axis in coupling.cut_axes)
    assert not coupling.problems


@pytest.mark.parametrize("name", ALL)
def test_every_cut_equals_the_masked_whole(name: str) -> None:
    """Default cut, then everything that can be cut at once: streams, head widths, blocks, embeddings."""
    network, model, coupling = fresh(name)
    for chosen in (coupling, coupling.select(["*"])):
        verdict = verify(chosen, model, network.inputs(3), network.kwargs, seeds=(1,))
        assert verdict.passed, verdict.summary()


@pytest.mark.parametrize("name", CUTTABLE)
@pytest.mark.parametrize("law", LAWS)
def test_index_sets_cover(name: str, law: str) -> None:
    _, _, coupling = fresh(name)
    for workers in (2, 3, 4):
        actual = law_for(coupling, law, workers)
        capacities = list(range(1, workers + 1)) if actual == "weighted" else None
        partition = coupling.partition(workers, seed=5, round=2, law=actual, capacities=capacities)
        for axis in coupling.serving(workers, partition.law).cut_axes:
            held = partition.held[axis.name]
            together = np.concatenate(held)
            if actual in DISJOINT:
                assert np.array_equal(np.sort(together), np.arange(axis.size))
            elif actual == "overlapping":
                assert np.array_equal(np.unique(together), np.arange(axis.size))
            assert all(np.all(np.diff(units) > 0) for units in held)


@pytest.mark.parametrize("name", CUTTABLE)
@pytest.mark.parametrize("workers", [2, 3, 4])
def test_merge_of_cut_is_identity(name: str, workers: int) -> None:
    _, model, coupling = fresh(name)
    before = state_of(model)
    law = law_for(coupling, list(LAWS)[(workers + len(name)) % len(LAWS)], workers)
    capacities = [1.0] * workers if law == "weighted" else None
    partition = coupling.partition(workers, seed=1, law=law, capacities=capacities, core=0.0)
    parts = [isthmus.cut(model, coupling, partition, worker) for worker in range(workers)]
    with torch.no_grad():
        for tensor in (t for _, t in named_state(model)):
            if tensor.is_floating_point():
                tensor.mul_(-3.0)  # what is merged must come from the parts
    isthmus.merge(model, parts)
    held = holders(coupling, partition)
    for entry, tensor in named_state(model):
        if entry in held:
            owned = torch.as_tensor(held[entry] > 0)
            assert torch.equal(tensor[owned], before[entry][owned])
            if tensor.is_floating_point():
                assert torch.equal(tensor[~owned], -3.0 * before[entry][~owned])


@pytest.mark.parametrize("name", CUTTABLE)
def test_one_worker_has_the_network(name: str) -> None:
    network, model, coupling = fresh(name)
    sub = isthmus.cut(model, coupling, coupling.partition(1, seed=0), 0)
    assert all(held is None or len(held) == size for n, maps in sub.indices.items()
               for held, size in zip(maps, coupling.entries[n].shape, strict=True))  # fmt: skip
    args = network.inputs(4)
    model.eval(), sub.module.eval()
    for a, b in zip(outputs(sub.module, network, args), outputs(model, network, args), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    names = {n for n, _ in sub.module.named_parameters(remove_duplicate=False)}
    assert names == {n for n, _ in model.named_parameters(remove_duplicate=False)}


@pytest.mark.parametrize("name", CUTTABLE)
def test_parameters_are_as_many_as_the_table_says(name: str) -> None:
    _, model, coupling = fresh(name)
    partition = coupling.partition(2, seed=4, law=law_for(coupling, "uniform", 2))
    for worker in range(2):
        sub = isthmus.cut(model, coupling, partition, worker)
        count = sum(parameter.numel() for parameter in sub.module.parameters())
        assert count == coupling.sizes(partition.of(worker))["parameters"]
        assert count < sum(parameter.numel() for parameter in model.parameters())
        assert all(tuple(part.shape) == np.empty(coupling.entries[entry].shape)[owned(sub, coupling, entry)].shape
                   for entry, part in sub.state().items())  # fmt: skip


OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.1),
}


@pytest.mark.parametrize("name", CUTTABLE)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_step_touches_exactly_what_is_held(name: str, optimizer: str) -> None:
    """Parameters, buffers, momentum and moments: what the worker lacks stays as it was, bit for bit."""
    network, model, coupling = fresh(name)
    whole = OPTIMIZERS[optimizer](model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    whole.step()
    before, moments = state_of(model), copy.deepcopy(whole.state_dict()["state"])
    partition = coupling.partition(2, seed=4, law=law_for(coupling, "uniform", 2))
    sub = isthmus.cut(model, coupling, partition, 1)
    mine = cut_optimizer(whole, model, sub, OPTIMIZERS[optimizer](sub.module.parameters()))
    sub.module.train()
    sum(leaf.square().sum() for leaf in outputs(sub.module, network, network.inputs(5))).backward()
    mine.step()
    isthmus.merge(model, [sub])
    merge_optimizer(whole, model, [(sub, mine)])
    trained = {entry for entry, part in sub.module.named_parameters() if part.grad is not None}
    for entry, tensor in named_state(model):
        check_touched(tensor, before[entry], sub, coupling, entry, trained)
    for number, (entry, parameter) in enumerate(model.named_parameters()):
        for key, value in whole.state[parameter].items():
            if value.shape == parameter.shape and value.dim():
                check_touched(value, moments[number][key], sub, coupling, entry, trained)


def check_touched(
    after: Tensor, before: Tensor, sub: Subnetwork, coupling: Coupling, entry: str, trained: set[str]
) -> None:
    """All held entries of what was trained moved (but for one that rounding may leave); no other did."""
    held = np.zeros(coupling.entries[entry].shape, bool) if entry in coupling.entries else None
    if held is None:  # another name of a tied weight
        return
    if entry in sub.indices:
        held[owned(sub, coupling, entry)] = True
    moved = (after != before).numpy()
    assert not (moved & ~held).any()
    if coupling.entries[entry].is_parameter:
        assert (held & ~moved).sum() <= 1 if entry in trained else not moved.any()


def owned(sub: Subnetwork, coupling: Coupling, entry: str) -> tuple[np.ndarray, ...]:
    """Return the index of what a worker holds of a tensor."""
    sizes = zip(sub.indices[entry], coupling.entries[entry].shape, strict=True)
    return np.ix_(*(np.arange(size) if units is None else units for units, size in sizes))


@pytest.mark.parametrize("name", CUTTABLE)
def test_equals_the_network_with_the_other_entries_zero(name: str) -> None:
    """Without the tracer's own graph: the module itself, everything the worker does not hold set to zero."""
    network, model, coupling = fresh(name)
    normed = [axis for axis in coupling.cut_axes if axis.atom is not None and "norm" in axis.atom.tags]
    if not network.zeroable or normed or any(axis.kind == "expert" for axis in coupling.cut_axes):
        pytest.skip("a sum or a norm over cut units without weights between, or a router that chooses anew")
    partition = coupling.partition(2, seed=6, law=law_for(coupling, "uniform", 2))
    sub = isthmus.cut(model, coupling, partition, 0)
    zeroed = copy.deepcopy(model).eval()
    with torch.no_grad():
        for entry, tensor in named_state(zeroed):
            if entry in sub.indices and coupling.entries[entry].is_parameter:
                keep = torch.zeros_like(tensor)
                index = [torch.arange(s) if i is None else torch.as_tensor(i)
                         for i, s in zip(sub.indices[entry], tensor.shape, strict=True)]  # fmt: skip
                keep[torch.meshgrid(*index, indexing="ij") if index else ()] = 1.0
                tensor.mul_(keep)
    args = network.inputs(3)
    for a, b in zip(outputs(sub.module.eval(), network, args), outputs(zeroed, network, args), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_few_graphs_are_kept_however_many_sizes_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Units that do not divide evenly come in a new combination almost every round; the last cuts stay right."""
    monkeypatch.setattr(subnetwork, "_GRAPHS", 4)
    model = torch.nn.Sequential(*(torch.nn.Linear(7, 7) for _ in range(6)))
    x = torch.ones(2, 7)
    coupling = isthmus.trace(model, (x,))
    partitions = [coupling.partition(3, 0, round, "uniform") for round in range(10)]
    parts = [isthmus.cut(model, coupling, partition, worker) for partition in partitions for worker in range(3)]
    sizes = [tuple((name, len(units)) for name, units in sorted(part.held.items())) for part in parts]
    assert len(set(sizes)) > 4
    assert [key[0] for key in subnetwork.built_graphs[coupling]] == list(dict.fromkeys(sizes[::-1]))[:4][::-1]
    assert torch.equal(parts[0].module(x), isthmus.cut(model, coupling, partitions[0], 0).module(x))
