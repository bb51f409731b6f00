"""Rounds of IST as one process makes them that holds everything: what workers must equal, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import nn
from torch.nn import functional

from cases.loops import batch, perceptron
from isthmus import trace
from isthmus.nets import Coupling, NetPartition, Subnetwork
from isthmus.nets.pieces.subnetwork import cut


def plain(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.1)


def network() -> nn.Module:
    torch.manual_seed(7)
    return perceptron()


@cache
def traced() -> Coupling:
    return trace(network(), (torch.zeros(2, 6),))


def trained(
    whole: nn.Module,
    partition: NetPartition,
    seats: Sequence[int],
    steps: range,
) -> list[Subnetwork]:
    """Return the pieces of a round, each trained on the batches of its seat."""
    pieces = []
    for index, seat in enumerate(seats):
        piece = cut(whole, traced(), partition, index)
        optimizer = plain(piece.module)
        for step in steps:
            x, y = batch(seat, step)
            functional.cross_entropy(piece.module(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        pieces.append(piece)
    return pieces
