"""Programs over named tensors that every worker has: which differ, their mean, overwriting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TypeVar

import torch
from torch import Tensor

from isthmus.trainer.wire.exchange import PAUSE, Link, Mean, Pending, Program, all_gather, all_mean, broadcast
from isthmus.trainer.wire.layout import layout_of

Group = TypeVar("Group")
AT_ONCE = 8 << 20  # bytes
PART = 4 << 20  # bytes of a group of tensors that are added up at a time, about: more costs memory, less costs time
DEALT = 2  # of these that are on their way to be added up while the next one is computed


def differing(mark: str, link: Link, device: torch.device) -> Program[list[int]]:
    """Return the workers whose mark, a hexadecimal digest, is not worker 0's; the same on every worker."""
    own = int(f"0{mark[:12]}", 16)  # 48 bits: exact in float64
    told = torch.tensor([own], dtype=torch.float64, device=device)
    found = yield from all_gather(told, link, counted=False)
    return [number for number, value in enumerate(found) if value.item() != found[0].item()]


def mean_over_workers(
    tensors: Mapping[str, Tensor],
    link: Link,
    active: Sequence[int],
    take: Callable[[str, Tensor], None],
    wire: torch.dtype | None = None,
) -> Program[None]:
    """Take the mean of every tensor over the active workers, the same bits on all, a few tensors at a time.

    Args:
        tensors: of this worker.
        link: to the others.
        active: whose tensors count.
        take: is given the name and the mean of each.
        wire: the type in which numbers travel; None for their own.
    """
    for names in together(tensors):
        layout = layout_of({name: tensors[name] for name in names})
        first = tensors[names[0]]
        flat = layout.pack(tensors, first.dtype, first.device)
        mean = yield from all_mean(flat, link, active, wire_of(first.dtype, wire))
        for name, value in layout.unpack(mean).items():
            take(name, value)


def mean_as_they_come(
    groups: Sequence[Group],
    flat: Callable[[Group], Tensor],
    link: Link,
    dealers: Sequence[int],
    active: Callable[[], Program[Sequence[int]]],
    take: Callable[[Group], None],
    rooms: Sequence[Tensor],
    wire: torch.dtype | None = None,
) -> Program[None]:
    """Take the mean of tensors of which the first groups travel while the worker computes the others: the same bits.

    It pauses before each group until that is there, and before it waits for the last ones.

    Args:
        groups: what is there at one time, in that order.
        flat: returns a group as one flat tensor when it is there; the mean comes in its memory.
        dealers: workers that send theirs, of which all know before they know who is active.
        active: returns whose tensors count, of the dealers; entered before the first are added up.
        take: is given each group whose mean has come.
        rooms: memory for what comes of the dealers, ``DEALT + 1`` times that of :func:`room_for` the largest group.
        link, wire: as above.
    """
    dealt, told = deque[tuple[Mean, Pending, list[Group]]](), deque[tuple[Mean, Pending, list[Group]]]()
    counted: Sequence[int] = ()
    turns = cycle(rooms)

    def add_up(last: bool) -> Program[None]:
        nonlocal counted
        counted = counted or (yield from active())
        mean, pending, ended = dealt.popleft()
        received = yield pending
        told.append((mean, Pending(hop=last), ended))
        yield mean.tell(received, counted, told[-1][1])

    for group in groups:
        yield PAUSE
        values = flat(group)
        parts = values.split(parts_of(values.numel(), values.dtype))
        for part in parts:
            mean, ended = Mean(part, link, wire_of(values.dtype, wire)), [group] * (part is parts[-1])
            dealt.append((mean, Pending(hop=bool(ended) and group is groups[-1]), ended))
            yield mean.deal(dealers, dealt[-1][1], next(turns))
            if len(dealt) > DEALT:
                yield from add_up(last=False)
    yield PAUSE
    while dealt:
        yield from add_up(last=len(dealt) == 1)
    for mean, pending, ended in told:
        yield pending
        mean.settle()
        for group in ended:
            take(group)


def parts_of(numbers: int, dtype: torch.dtype) -> list[int]:
    """Return how many numbers are added up at a time, of the flat tensor of a group: even parts of about ``PART``."""
    parts = max(1, round(numbers * dtype.itemsize / PART))
    return [numbers // parts + (part < numbers % parts) for part in range(parts)]


def room_for(numbers: int, dtype: torch.dtype, workers: int, wire: torch.dtype | None) -> int:
    """Return the bytes that come to one worker at a time, at most: its share of every other's part of a group."""
    return (workers - 1) * -(-parts_of(numbers, dtype)[0] // workers) * (wire_of(dtype, wire) or dtype).itemsize


def wire_of(dtype: torch.dtype, wire: torch.dtype | None) -> torch.dtype | None:
    """Return the type in which numbers of a type travel, if it is another: whole numbers keep their own."""
    return wire if dtype.is_floating_point else None


def together(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Return which tensors travel together: of one type, of at most ``AT_ONCE`` bytes, or one that alone is more."""
    found: list[list[str]] = []
    for dtype in dict.fromkeys(tensor.dtype for tensor in tensors.values()):
        full = AT_ONCE + 1
        for name, tensor in tensors.items():
            if tensor.dtype == dtype:
                size = tensor.numel() * tensor.element_size()
                if full + size > AT_ONCE:
                    found.append([])
                    full = 0
                found[-1].append(name)
                full += size
    return found


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
