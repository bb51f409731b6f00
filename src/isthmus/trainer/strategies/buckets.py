"""Gradients that travel together, and the memory in which they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from isthmus.trainer.wire.layout import Layout
from isthmus.trainer.wire.tensors import DEALT, room_for

BUCKET = 1 << 19  # bytes of gradients that travel together, at least


class Buckets:
    """The memory in which gradients travel. It is kept, and they lie in it from their mean on.

    Memory that is fetched and freed in every step, for each bucket at another time, leaves the heap in pieces that fit
    nothing: a process whose network has 23 MB came to hold 875 MB (docs/design.md). As in torch's
    DistributedDataParallel with ``gradient_as_bucket_view``, whoever wants to keep a gradient beyond the next backward
    pass has to copy it.

    Args:
        device: of the gradients.

    Attributes:
        rooms: memory for what comes of other workers' gradients.
    """

    def __init__(self, device: torch.device) -> None:
        self.rooms: list[Tensor] = []
        self._device = device
        self._kept: dict[Layout, Tensor] = {}
        self._scattered: dict[str, Tensor] = {}  # gradients of another order in memory than that of their numbers

    def arrange(self, buckets: Sequence[Layout], room: int) -> None:
        """Have memory for some buckets, and of so many bytes for each part of them that comes at a time; give up that
        of others."""
        self._kept = {bucket: self._kept[bucket] if bucket in self._kept else self._flat(bucket) for bucket in buckets}
        if [each.numel() for each in self.rooms] != [room] * (DEALT + 1):
            self.rooms = [torch.empty(room, dtype=torch.uint8, device=self._device) for _ in range(DEALT + 1)]

    @torch.no_grad()  # a backward pass that keeps its graph has it on
    def collect(self, bucket: Layout, parameters: Mapping[str, nn.Parameter]) -> Tensor:
        """Return the gradients of a bucket, flat, and take them away from their parameters; zero where there is none.

        A parameter may get another one before the mean of these has come.
        """
        flat = self._kept[bucket]
        for name, place in bucket.unpack(flat).items():
            parameter = parameters[name]
            grad, parameter.grad = parameter.grad, None
            if grad is None:
                place.zero_()
            elif not grad.is_contiguous():
                self._scattered[name] = grad
                place.copy_(grad)
            elif grad.data_ptr() != place.data_ptr():
                place.copy_(grad)
        return flat

    @torch.no_grad()
    def give(self, bucket: Layout, parameters: Mapping[str, nn.Parameter]) -> None:
        """Give what lies in a bucket back to the parameters, and add what they have got meanwhile."""
        for name, place in bucket.unpack(self._kept[bucket]).items():
            parameter = parameters[name]
            grad = self._scattered.pop(name).copy_(place) if name in self._scattered else place
            parameter.grad = grad if parameter.grad is None else grad.add_(parameter.grad)

    def nothing(self, bucket: Layout) -> Tensor:
        """Return what is sent where there was no backward pass: zeros, beside the gradients of the last one."""
        return self._flat(bucket).zero_()

    def _flat(self, bucket: Layout) -> Tensor:
        ((dtype, numbers),) = bucket.sizes.items()
        return torch.empty(numbers, dtype=dtype, device=self._device)


def buckets_of(parameters: Mapping[str, nn.Parameter]) -> list[Layout]:
    """Return which gradients travel together, in about the order in which a backward pass computes them: of one type,
    of at least ``BUCKET`` bytes but for the last."""
    found: dict[torch.dtype, list[list[tuple[str, tuple[int, ...], torch.dtype]]]] = {}
    sizes: dict[torch.dtype, int] = {}
    for name, parameter in reversed(list(parameters.items())):
        kind = parameter.dtype
        if sizes.get(kind, BUCKET) >= BUCKET:
            found.setdefault(kind, []).append([])
            sizes[kind] = 0
        found[kind][-1].append((name, tuple(parameter.shape), kind))
        sizes[kind] += parameter.numel() * parameter.element_size()
    return [Layout(tuple(entries)) for buckets in found.values() for entries in buckets]


def room_of(buckets: Sequence[Layout], workers: int, wire: torch.dtype | None) -> int:
    """Return the bytes of other workers' gradients that come at a time, at most."""
    sizes = (bucket.sizes.items() for bucket in buckets)
    return max((room_for(numbers, dtype, workers, wire) for ((dtype, numbers),) in sizes), default=0)
