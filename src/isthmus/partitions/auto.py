"""The law that is chosen by what a network looks like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isthmus.partitions.block import Block
from isthmus.partitions.fixed import Fixed
from isthmus.partitions.law import Law, Traits
from isthmus.partitions.mixed import Mixed
from isthmus.partitions.overlapping import Overlapping
from isthmus.partitions.uniform import Uniform


@dataclass(frozen=True)
class Auto(Block):
    """The law that was measured best for networks of this structure; where nobody knows the network, :class:`Block`.

    Pieces that share nothing are networks of their own: zeros between them (``block``) let the joined network average
    their answers. Where several cut axes add to one residual stream that all pieces share, pieces come to rely on a
    stream that their own branches feed. There new pieces every round (``uniform``) are better where batch norms take
    statistics, and pieces that stay with a worker (``fixed``), which cost the least bytes, where none do. Residual
    blocks are dealt by ``overlapping``, at least half of each stage to a worker.
    """

    name = "auto"
    label = "by structure"
    meaning = "the law that was measured best for networks of this structure"

    @property
    def chooses(self) -> bool:
        """Return True."""
        return True

    def chosen(self, traits: Traits) -> tuple[Law, str]:
        """Return the law for a network, and why in one line."""
        law, why = self._of_width(traits)
        stages = [count for count in traits.blocks.values() if count > 1]  # of a single one nothing can be left out
        if not stages:
            return law, why
        least = min(-(-count // 2) for count in stages)
        depth, half = Overlapping(least), f"whole residual blocks are dealt, at least {least} of each stage to a worker"
        if len(traits.blocks) == len(traits.kinds):
            return depth, half
        return Mixed((("block", depth), (Mixed.REST, law))), f"{half}; {why}"

    def _of_width(self, traits: Traits) -> tuple[Law, str]:
        if not traits.joined:
            return Block(), "no weight joins two cut axes through a stream that pieces share"
        through = f"{_few(traits.joined)} meet in a residual stream that pieces share"
        if traits.statistics:
            return Uniform(), f"{through}, and batch norms take statistics of what is cut"
        return Fixed(), f"{through}, and no batch norm takes statistics of what is cut"


def _few(names: Sequence[str]) -> str:
    shown = " and ".join(names[:2])
    return shown if len(names) <= 2 else f"{', '.join(names[:2])} and {len(names) - 2} more axes"
