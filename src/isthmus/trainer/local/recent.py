"""The batches a network was trained on last, to measure the statistics of norms on."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

_SAMPLES = 4096
_BATCHES = 64


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a network, to be made again.

    Attributes:
        args, kwargs: by reference.
        samples: in the batch.
        versions: of its tensors, which a write to them raises.
        autocast: device and type of number, where the call was under autocast: a library that converts the input to
            the lower precision (Lightning Fabric) leaves a call that fails without it.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    samples: int
    versions: tuple[tuple[Tensor, int], ...]
    autocast: tuple[str, torch.dtype] | None

    @property
    def unchanged(self) -> bool:
        """Whether nobody has written to the batch since."""
        return all(tensor._version == version for tensor, version in self.versions)

    def repeat(self, network: nn.Module) -> Any:
        """Call a network so."""
        if self.autocast is None:
            return network(*self.args, **self.kwargs)
        device, dtype = self.autocast
        with torch.autocast(device, dtype=dtype):
            return network(*self.args, **self.kwargs)


class Recent:
    """The latest calls: a worker's part of about 4,000 samples, 64 batches at most, and one at least.

    A batch that was written to after the call (a loader that fills one buffer again and again) is left out.
    """

    def __init__(self, device: torch.device, workers: int = 1) -> None:
        self._device = device.type
        self._most = _SAMPLES / workers
        self._calls: deque[Call] = deque()
        self._samples = 0

    def keep(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Keep one more call, and drop the oldest that are not needed."""
        plain = not kwargs and all(type(argument) is Tensor for argument in args)  # done every step, so the fast way
        leaves = args if plain else pytree.tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        size = max((len(tensor) for tensor in tensors[:1] if tensor.dim()), default=1)
        autocast = (self._device, torch.get_autocast_dtype(self._device))
        self._calls.append(
            Call(
                args,
                kwargs,
                size,
                tuple((tensor, tensor._version) for tensor in tensors),
                autocast if torch.is_autocast_enabled(self._device) else None,
            )
        )
        self._samples += size
        while len(self._calls) > _BATCHES or self._samples - self._calls[0].samples >= self._most:
            self._samples -= self._calls.popleft().samples

    def calls(self) -> list[Call]:
        """Return the calls, the oldest first."""
        return [call for call in self._calls if call.unchanged]


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
