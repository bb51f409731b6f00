"""What a strategy must offer, and what it hands to the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from isthmus.nets.mlp import MLP, MLPSpec
from isthmus.train.exchange import Program


@dataclass(frozen=True, eq=False)
class Whole:
    """The whole model as the root holds it between rounds.

    Attributes:
        spec: of the network.
        state: its parameters and buffers.
        scales: what the weights named here are multiplied by for evaluation (empty where nothing was cut).
    """

    spec: MLPSpec
    state: dict[str, Tensor]
    scales: dict[str, Tensor] = field(default_factory=dict)


class Strategy(Protocol):
    """One worker's part in a strategy."""

    @property
    def trained(self) -> MLP:
        """The network this worker trains."""
        ...

    def round(self, number: int, steps: range) -> Program[float]:
        """Do one round (0, 1, ...) of the given global steps; return the sum of this worker's losses."""
        ...

    def whole(self) -> Whole:
        """Return the whole model; only worker 0 is asked."""
        ...


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """Return all tensors, in order, as one flat tensor."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def unpack(flat: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Return the tensors of these shapes that were packed into ``flat``, as views of it."""
    pieces = flat.split([shape.numel() for shape in shapes])
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def load_flat(network: nn.Module, flat: Tensor) -> None:
    """Copy a packed state into the network's parameters."""
    parameters = list(network.parameters())
    with torch.no_grad():
        for parameter, values in zip(parameters, unpack(flat, [p.shape for p in parameters]), strict=True):
            parameter.copy_(values)
