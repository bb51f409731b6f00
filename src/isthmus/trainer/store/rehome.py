"""From the homes of some workers to those of others: when one is lost, and when one comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isthmus.trainer.store.homes import Homes
from isthmus.trainer.store.routes import in_groups
from isthmus.trainer.wire.exchange import Exchange, Link, Program

Rows = Callable[[str, int, int], Tensor]  # of a tensor's name, the first row and the one after the last
Saved = Callable[[], Program[Rows]]  # entered by all workers


@dataclass(frozen=True)
class Move:
    """How workers before and after a change are the same; the numbers of workers are their indices then.

    Attributes:
        before: number of workers before.
        was: of every worker now, its number before; None of a newcomer.
    """

    before: int
    was: tuple[int | None, ...]

    @property
    def newcomers(self) -> list[int]:
        """Workers that have nothing yet."""
        return [now for now, then in enumerate(self.was) if then is None]

    def now(self, then: int) -> int | None:
        """Return the number that a worker before has now; None if it is gone."""
        return self.was.index(then) if then in self.was else None

    def keeper(self, then: int) -> int | None:
        """Return who kept a copy of a worker's rows, by its number now; None if that is gone too."""
        return None if self.before == 1 else self.now((then + 1) % self.before)


def rehome(
    move: Move,
    homes: tuple[Homes, Homes],
    types: Mapping[str, torch.dtype],
    rows_of: Mapping[int, Mapping[str, Tensor]],
    sources: Sequence[int | None],
    saved: Saved,
    link: Link,
    device: torch.device,
) -> Program[dict[str, Tensor]]:
    """Return this worker's rows by the homes that are to be.

    Args:
        move: from whom to whom.
        homes: before, and now.
        types: of the tensors.
        rows_of: what this worker has, by the home before.
        sources: who sends the rows of each home before, by its number now; None where nobody has them.
        saved: returns what reads rows that nobody has; entered by all, and only where there are such rows.
        link, device: to the others, and where the rows are to be.
    """
    before, now = homes
    here, found = link.index, {}
    for name in now.shapes:
        shape = now.shard(name, here)
        if shape is not None:
            found[name] = torch.empty(shape, dtype=types[name], device=device)
    gone = [then for then, source in enumerate(sources) if source is None]
    needed = any(len(set(before.rows(name, then))) == 2 for name in now.shapes for then in gone)
    read = (yield from saved()) if needed else None
    sizes = {name: now.most_numbers(name) * types[name].itemsize for name in now.shapes}
    for kind, names in in_groups(sizes, types):
        send: list[list[Tensor]] = [[] for _ in move.was]
        expect: list[list[Tensor]] = [[] for _ in move.was]
        for name in names:
            for then, source in enumerate(sources):
                first, last = before.rows(name, then)
                for worker in range(link.workers):
                    start, stop = now.rows(name, worker)
                    begin, end = max(start, first), min(stop, last)
                    if begin >= end:
                        continue
                    if source == here:
                        send[worker].append(_part(rows_of[then][name], begin - first, end - first).reshape(-1))
                    if worker == here:
                        into = _part(found[name], begin - start, end - start)
                        if source is None:
                            assert read is not None
                            into.copy_(read(name, begin, end))
                        else:
                            expect[source].append(into)
        empty = torch.empty(0, dtype=kind, device=device)
        counts = tuple(sum(part.numel() for part in parts) for parts in expect)
        reply = yield Exchange(tuple(torch.cat([*parts, empty]) for parts in send), counts, copying=True)
        for parts, flat in zip(expect, reply, strict=True):
            for part, values in zip(parts, flat.split([part.numel() for part in parts]) if parts else (), strict=True):
                part.copy_(values.view(part.shape))
    return found


def _part(tensor: Tensor, start: int, stop: int) -> Tensor:
    return tensor[start:stop] if tensor.dim() else tensor
