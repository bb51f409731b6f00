"""A reference that knows nothing of graphs: the network itself, with the weights zero that read what a worker lacks."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from cases.networks import Network
from isthmus.nets.pieces.subnetwork import Subnetwork, named_state


def doubled(args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(arg.double() if arg.is_floating_point() else arg for arg in args)


def zeroed(model: nn.Module, sub: Subnetwork) -> nn.Module:
    """Return a copy whose weights are zero in every column (any dimension but the first) that the worker lacks."""
    reference = copy.deepcopy(model)
    tensors = dict(reference.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name in set(sub.indices) & set(tensors):
            for dim, held in enumerate(sub.indices[name]):
                if dim and held is not None:
                    lacking = torch.ones(tensors[name].shape[dim], dtype=torch.bool)
                    lacking[torch.as_tensor(held)] = False
                    tensors[name].index_fill_(dim, lacking.nonzero()[:, 0], 0.0)
    return reference


def check_zeroed(network: Network, model: nn.Module, sub: Subnetwork, batch: int, error: float = 1e-11) -> None:
    """Outputs, gradients and buffers of a piece are those of the zeroed network, in both modes, in float64."""
    for training in (True, False):
        args = doubled(network.inputs(batch))
        reference, piece = zeroed(model, sub).train(training), copy.deepcopy(sub.module).train(training)
        results = []
        for module in (reference, piece):
            torch.manual_seed(batch)
            results.append([r for r in tree_leaves(module(*args, **network.kwargs)) if isinstance(r, Tensor)])
            sum((r * r.detach().cos()).sum() for r in results[-1] if r.is_floating_point()).backward()
        for ours, theirs in zip(results[1], results[0], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=error, atol=error)
        check_state(piece, reference, sub, error)


def check_state(piece: nn.Module, reference: nn.Module, sub: Subnetwork, error: float) -> None:
    expected = dict(named_state(reference))
    largest = max((t.grad.abs().max().item() for t in expected.values() if t.grad is not None), default=0.0)
    for name, tensor in named_state(piece):
        if name not in expected:  # a constant
            continue
        mine = sub.indices.get(name)
        if mine is None or tensor.layout != torch.strided:  # another name of a tied weight
            continue
        if not isinstance(tensor, nn.Parameter):
            torch.testing.assert_close(tensor, sub.slice(name, expected[name]), rtol=error, atol=error, equal_nan=True)
        elif tensor.grad is not None:
            wanted = sub.slice(name, expected[name].grad)
            torch.testing.assert_close(tensor.grad, wanted, rtol=error, atol=error * (1 + largest), msg=name)
