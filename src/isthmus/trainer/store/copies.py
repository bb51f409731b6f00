"""A copy of the rows of the worker before: what one worker holds and nobody else is not lost with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from isthmus.nets.pieces.ownership import Held, view_slice, write_slice
from isthmus.trainer.store.draft import Draft
from isthmus.trainer.store.homes import Homes
from isthmus.trainer.store.routes import Box, Routes, in_groups, rows_of
from isthmus.trainer.wire.exchange import Exchange, Link, Program


@dataclass(eq=False)
class Copies:
    """One worker's side: it keeps what the worker before it keeps, and is kept by the one after it.

    Copies are brought up to date by what came home in a round, not sent whole; and of that a worker is not sent what it
    has sent home itself.

    Attributes:
        link: to the others.
        device: where the copies are.
        shards: of the worker before.
        kept: what that worker has kept for itself, and not brought home.
    """

    link: Link
    device: torch.device
    shards: dict[str, Tensor] = field(default_factory=dict)
    kept: Sequence[Tensor] = ()

    @property
    def needed(self) -> bool:
        """Whether there is another worker."""
        return self.link.workers > 1

    def whole(
        self, shards: Mapping[str, Tensor], homes: Homes, types: Mapping[str, torch.dtype]
    ) -> Program[dict[str, Tensor]]:
        """Return a copy of all rows of the worker before.

        Args:
            shards: of this worker.
            homes, types: of the tensors.
        """
        before = self.before
        found = {}
        for name in homes.shapes:
            shape = homes.shard(name, before)
            if shape is not None:
                found[name] = torch.empty(shape, dtype=types[name], device=self.device)
        for kind, names in in_groups(
            {name: homes.most_numbers(name) * types[name].itemsize for name in homes.shapes}, types
        ):
            theirs = [found[name] for name in names if name in found]
            parts = [shards[name].reshape(-1) for name in names if name in shards]
            reply = yield from self._pass(parts, sum(each.numel() for each in theirs), kind)
            for each, part in zip(theirs, reply.split([each.numel() for each in theirs]), strict=True):
                each.copy_(part.view(each.shape))
        return found

    def follow(
        self, draft: Mapping[str, Tensor], copy: Draft, routes: Routes, values: Sequence[Tensor] | None
    ) -> Program[None]:
        """Have the copy become what the rows of the worker before become when boxes have come home.

        Args:
            draft: this worker's own rows as they will be.
            copy: of those of the worker before.
            routes: of the boxes.
            values: of this worker's boxes, which it need not be sent back; None where homes have made others of them.
        """
        here, workers = self.link.index, self.link.workers
        mine = routes.changes(here, None if values is None else (here + 1) % workers)
        theirs = routes.changes(self.before, None if values is None else here)
        for sent, came in zip(mine, theirs, strict=True):
            parts = [view_slice(draft[leg.name], leg.held).reshape(-1) for leg in sent.told]
            reply = yield from self._pass(parts, sum(leg.size for leg in came.told), sent.dtype)
            sizes = [leg.size for leg in came.told]
            for leg, part in zip(came.told, reply.split(sizes) if sizes else (), strict=True):
                _put(copy.writable(leg.name), leg.held, part.view(leg.shape))
            for leg in came.known:
                assert values is not None
                _put(copy.writable(leg.name), leg.held, rows_of(values[leg.box], leg))

    def keep(
        self, values: Sequence[Tensor], theirs: Sequence[Box], types: Mapping[str, torch.dtype]
    ) -> Program[Sequence[Tensor]]:
        """Return a copy of what the worker before has kept for itself.

        Args:
            values: what this one has.
            theirs: boxes of that worker.
            types: of the tensors.
        """
        found: dict[int, Tensor] = {}
        for kind in dict.fromkeys(types.values()):
            parts = [value.reshape(-1) for value in values if value.dtype == kind]
            numbers = [number for number, box in enumerate(theirs) if types[box.name] == kind]
            sizes = [theirs[number].size for number in numbers]
            reply = yield from self._pass(parts, sum(sizes), kind)
            for number, part in zip(numbers, reply.split(sizes) if sizes else (), strict=True):
                found[number] = part.view(theirs[number].shape)
        return [found[number] for number in range(len(theirs))]

    @property
    def before(self) -> int:
        """The worker whose rows are kept here."""
        return (self.link.index - 1) % self.link.workers

    def _pass(self, parts: Sequence[Tensor], expected: int, kind: torch.dtype) -> Program[Tensor]:
        """Send numbers to the worker after this one; return those of the one before."""
        link, empty = self.link, torch.empty(0, dtype=kind, device=self.device)
        own = torch.cat([*parts, empty])
        send = tuple(own if w == (link.index + 1) % link.workers else empty for w in range(link.workers))
        expect = tuple(expected if w == self.before else 0 for w in range(link.workers))
        reply = yield Exchange(send, expect, copying=True)
        return reply[self.before]


def _put(whole: Tensor, held: Held, part: Tensor) -> None:
    if all(indices is None for indices in held):
        whole.copy_(part)
    else:
        write_slice(whole, held, part)
