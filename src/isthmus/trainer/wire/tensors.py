"""Programs over named tensors that every worker has: which differ, their mean, overwriting."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from isthmus.trainer.wire.exchange import PAUSE, Link, Mean, Pending, Program, all_gather, all_mean, broadcast
from isthmus.trainer.wire.layout import Layout, layout_of

AT_ONCE = 8 << 20  # bytes
DEALT = 2  # groups of tensors that are on their way to be added up while the next ones are computed


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
        mean = yield from all_mean(flat, link, active, wire if first.is_floating_point() else None)
        for name, value in layout.unpack(mean).items():
            take(name, value)


def mean_as_they_come(
    groups: Sequence[Sequence[str]],
    tensors: Callable[[Sequence[str]], Mapping[str, Tensor]],
    link: Link,
    dealers: Sequence[int],
    active: Callable[[], Program[Sequence[int]]],
    take: Callable[[str, Tensor], None],
    wire: torch.dtype | None = None,
) -> Program[None]:
    """Take the mean of tensors of which the first groups travel while the worker computes the others: the same bits.

    It pauses before each group until that is there, and before it waits for the last ones.

    Args:
        groups: the names of those that travel together, of one type, in the order in which they are there.
        tensors: returns those of a group when it is there.
        dealers: workers that send theirs, of which all know before they know who is active.
        active: returns whose tensors count, of the dealers; entered before the first are added up.
        link, take, wire: as above.
    """
    dealt, told = deque[tuple[Layout, Mean, Pending]](), deque[tuple[Layout, Mean, Pending]]()
    counted: Sequence[int] = ()

    def add_up(last: bool) -> Program[None]:
        nonlocal counted
        counted = counted or (yield from active())
        layout, mean, pending = dealt.popleft()
        received = yield pending
        told.append((layout, mean, Pending(hop=last)))
        yield mean.tell(received, counted, told[-1][2])

    for number, names in enumerate(groups, 1):
        yield PAUSE
        own = tensors(names)
        layout, first = layout_of(own), own[names[0]]
        mean = Mean(
            layout.pack(own, first.dtype, first.device), link, wire if first.is_floating_point() else None
        )
        del own, first
        dealt.append((layout, mean, Pending(hop=number == len(groups))))
        yield mean.deal(dealers, dealt[-1][2])
        if len(dealt) > DEALT:
            yield from add_up(last=False)
    yield PAUSE
    while dealt:
        yield from add_up(last=len(dealt) == 1)
    for layout, mean, pending in told:
        yield pending
        for name, value in layout.unpack(mean.whole).items():
            take(name, value)


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
