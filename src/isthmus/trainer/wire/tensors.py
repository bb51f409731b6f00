"""Programs over named tensors that every worker has: which differ, their mean, overwriting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from isthmus.trainer.wire.exchange import Link, Program, all_gather, all_mean, broadcast
from isthmus.trainer.wire.layout import layout_of


def differing(mark: str, link: Link, device: torch.device) -> Program[list[int]]:
    """Return the workers whose mark, a hexadecimal digest, is not worker 0's; the same on every worker."""
    own = int(f"0{mark[:12]}", 16)  # 48 bits: exact in float64
    told = torch.tensor([own], dtype=torch.float64, device=device)
    found = yield from all_gather(told, link, counted=False)
    return [number for number, value in enumerate(found) if value.item() != found[0].item()]


def mean_over_workers(
    tensors: Mapping[str, Tensor],
    link: Link,
    device: torch.device,
    active: Sequence[int],
    wire: torch.dtype | None = None,
) -> Program[dict[str, Tensor]]:
    """Return the mean of every tensor over the active workers, the same bits on all.

    Args:
        tensors: of this worker.
        link, device: to the others, and where the tensors are.
        active: whose tensors count.
        wire: the type in which numbers travel; None for their own.
    """
    layout = layout_of(tensors)
    result: dict[str, Tensor] = {}
    for dtype in layout.sizes:
        flat = layout.pack(tensors, dtype, device)
        mean = yield from all_mean(flat, link, active, wire if dtype.is_floating_point else None)
        result |= layout.unpack(mean)
    return result


def send_tensors(
    tensors: Mapping[str, Tensor], source: int, link: Link, device: torch.device, to: Sequence[int]
) -> Program[None]:
    """Overwrite the tensors of the named workers by those of another; nothing moves if no worker is named."""
    layout = layout_of(tensors)
    for dtype in layout.sizes if to else ():
        flat = layout.pack(tensors, dtype, device)
        got = yield from broadcast(flat, source, link, to)
        if link.index in to:
            with torch.no_grad():
                for name, value in layout.unpack(got).items():
                    tensors[name].copy_(value)
