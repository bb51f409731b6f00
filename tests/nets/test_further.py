"""Networks that once were refused, crashed or stayed whole: cut as they should be, and right."""

import pytest
import torch

import isthmus
from cases.networks_further import FURTHER
from isthmus.nets.subnetwork import named_state
from isthmus.nets.verify import verify
from nets.zeroed import check_zeroed, doubled

ALL = {network.name: network for network in FURTHER}


@pytest.mark.parametrize("name", ALL)
def test_is_cut_by_default_and_right(name: str) -> None:
    """In float64 against the network itself with zeros; at the traced and at another batch size; and merged again."""
    network = ALL[name]
    torch.manual_seed(3)
    model, args = network.build().double(), doubled(network.inputs(3))
    coupling = isthmus.trace(model, args, network.kwargs)
    assert {axis.kind for axis in coupling.cut_axes} >= set(network.kinds), coupling
    assert not network.open_batch or not any("input 0, dimension 0" in line for line in coupling.fixed_inputs)
    everything = coupling.select(["*"])
    verdict = verify(everything, model, args, network.kwargs, seeds=(1,))
    assert verdict.passed, verdict.summary()
    before = {entry: tensor.detach().clone() for entry, tensor in named_state(model)}
    for chosen, law in ((coupling, "uniform"), (everything, "overlapping")):
        partition = chosen.partition(2, seed=2, law=law)
        parts = [isthmus.cut(model, chosen, partition, worker) for worker in range(2)]
        if network.zeroable:
            for batch in (3, 2) if network.open_batch else (3,):
                check_zeroed(network, model, parts[batch % 2], batch)
        for entry, tensor in named_state(isthmus.merge(model, parts)):
            assert torch.equal(tensor.to_dense(), before[entry].to_dense()), entry
