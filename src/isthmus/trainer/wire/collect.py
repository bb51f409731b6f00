"""Tensors of any shape from all workers to worker 0."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from isthmus.trainer.wire.exchange import Exchange, Link, Program
from isthmus.trainer.wire.tell import tell


def collect(tensors: Sequence[Tensor], link: Link, device: torch.device) -> Program[list[list[Tensor]]]:
    """Return, on worker 0, every worker's tensors, as many as each likes; elsewhere nothing."""
    own = [tensor.detach().to(device) for tensor in tensors]
    said = [[str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for tensor in own]
    told = yield from tell(said, link, device, root=True)
    outlines = [[(getattr(torch, kind), shape) for kind, shape in each] for each in told]
    flat = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in own]
    packed = torch.cat([*flat, torch.empty(0, dtype=torch.uint8, device=device)])
    sizes = [sum(_bytes(kind, shape) for kind, shape in each) for each in outlines] or [0] * link.workers
    reply = yield Exchange((packed, *[packed[:0]] * (link.workers - 1)), tuple(sizes), viewing=True)
    return [_unpacked(*pair) for pair in zip(reply, outlines, strict=False)]


def _bytes(kind: torch.dtype, shape: Sequence[int]) -> int:
    return torch.Size(shape).numel() * kind.itemsize


def _unpacked(packed: Tensor, outline: Sequence[tuple[torch.dtype, Sequence[int]]]) -> list[Tensor]:
    parts = packed.split([_bytes(kind, shape) for kind, shape in outline])
    return [part.clone().view(kind).view(tuple(shape)) for part, (kind, shape) in zip(parts, outline, strict=True)]
