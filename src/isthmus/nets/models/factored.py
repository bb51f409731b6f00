"""A network whose last layer is the product of two thin ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.nets.coupling.tracing import trace
from isthmus.nets.models.block_softmax import body_of, read_tensors, scores_of

_KEY = "isthmus.factored"  # in a file's metadata


class FactoredSoftmax(nn.Module):
    """A body whose last layer has r rows, and a layer of r columns on it: together a last layer of rank r.

    Args:
        body: returns [..., r].
        head: from r numbers to a score for each class.
    """

    def __init__(self, body: nn.Module, head: nn.Linear) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return scores [..., classes]."""
        scores: Tensor = self.head(scores_of(self.body(*args, **kwargs)))
        return scores

    def metadata(self) -> dict[str, str]:
        """Return what :func:`load_factored` knows such a file by."""
        return {_KEY: json.dumps({"rank": self.head.in_features, "classes": self.head.out_features})}


def load_factored(
    path: str | Path, network: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None = None
) -> FactoredSoftmax:
    """Return the network that ``Training.export`` or ``isthmus train`` has written with strategy factored.

    Args:
        path: of the safetensors file.
        network: the whole one, of the class that was trained; only its computation is looked at, so that it may be on
            the meta device.
        args, kwargs: an example call of it.

    Raises:
        DataError: a file that is missing or damaged, or that holds no such network.
        InvalidInput: one of another network.
    """
    _, tensors = read_tensors(path, _KEY, "factored")
    weight, bias = tensors["head.weight"], tensors.get("head.bias")
    head = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta", dtype=weight.dtype)
    head.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}), assign=True)
    return FactoredSoftmax(body_of(trace(network, args, kwargs), tensors), head).eval()


def thin(rank: int, classes: int, bias: bool, dtype: torch.dtype, device: torch.device) -> nn.Linear:
    """Return the layer of r columns, its values still to be filled in."""
    head = nn.Linear(rank, classes, bias, dtype=dtype, device="meta")
    head.weight = nn.Parameter(torch.empty(classes, rank, dtype=dtype, device=device))
    if bias:
        head.bias = nn.Parameter(torch.empty(classes, dtype=dtype, device=device))
    return head
