"""Networks that once were refused, crashed or stayed whole: cut as they should be, and right."""

import pytest
import torch

import isthmus
from cases.networks_further import FURTHER, TWINS
from isthmus.nets.check.verify import verify
from isthmus.nets.pieces.subnetwork import named_state
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
        if network.zeroable and chosen is coupling:
            for batch in (3, 2) if network.open_batch else (3,):
                check_zeroed(network, model, parts[batch % 2], batch)
        for entry, tensor in named_state(isthmus.merge(model, parts)):
            assert torch.equal(tensor.to_dense(), before[entry].to_dense()), entry


@pytest.mark.parametrize("name", TWINS)
def test_a_piece_with_normed_weights_is_the_network_of_its_widths(name: str) -> None:
    """A norm of weights is one of the piece's own: as in the same network, built small, with its state."""
    torch.manual_seed(3)
    model, x = TWINS[name]().double(), torch.randn(4, 3, 9).double()
    model.train()(x)
    coupling = isthmus.trace(model, (x,))
    a, b = (axis.name for axis in coupling.cut_axes)
    piece = isthmus.cut(model, coupling, coupling.partition(2, seed=2), 1).module
    held = coupling.partition(2, seed=2).of(1)
    twin = TWINS[name](a=len(held[a]), b=len(held[b])).double()
    twin.load_state_dict(piece.state_dict())
    for training in (True, False):
        for batch in (4, 2):
            results = [module.train(training)(x[:batch]) for module in (piece, twin)]
            torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
            for result in results:
                result.square().sum().backward()
    others = dict(named_state(twin))
    for entry, tensor in named_state(piece):
        torch.testing.assert_close(tensor, others[entry], rtol=1e-12, atol=1e-12)
        if tensor.grad is not None:
            torch.testing.assert_close(tensor.grad, others[entry].grad, rtol=1e-11, atol=1e-11)
