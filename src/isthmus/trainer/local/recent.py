"""The batches a network was trained on last, to measure the statistics of norms on."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

_SAMPLES = 4096
_BATCHES = 64


class Recent:
    """The arguments of the latest calls, by reference: about 4,000 samples, 64 batches at most.

    A batch that was written to after the call (a loader that fills one buffer again and again) is left out.
    """

    def __init__(self) -> None:
        self._calls: deque[tuple[tuple[Any, ...], dict[str, Any], int, list[tuple[Tensor, int]]]] = deque()
        self._samples = 0

    def keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep one more call, and drop the oldest that are not needed."""
        tensors = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        size = max((len(tensor) for tensor in tensors[:1] if tensor.dim()), default=1)
        self._calls.append((args, kwargs, size, [(tensor, tensor._version) for tensor in tensors]))
        self._samples += size
        while len(self._calls) > _BATCHES or self._samples - self._calls[0][2] >= _SAMPLES:
            self._samples -= self._calls.popleft()[2]

    def calls(self) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """Return (args, kwargs) of the calls, the oldest first."""
        return [
            (args, kwargs)
            for args, kwargs, _, tensors in self._calls
            if all(tensor._version == version for tensor, version in tensors)
        ]


def call_with(network: nn.Module, batch: Any) -> Any:
    """Pass a batch of a loader through a network.

    A dictionary is passed by name, (args, kwargs) as what they are, and of an (input, target) pair the input alone.
    """
    if isinstance(batch, Mapping):
        return network(**batch)
    if isinstance(batch, tuple) and len(batch) == 2 and isinstance(batch[0], tuple) and isinstance(batch[1], Mapping):
        return network(*batch[0], **batch[1])
    first = batch[0] if isinstance(batch, (tuple, list)) else batch
    return network(*first) if isinstance(first, (tuple, list)) else network(first)
