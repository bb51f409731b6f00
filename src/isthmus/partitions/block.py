"""Rotated pieces of a network without connections between them."""

from __future__ import annotations

from dataclasses import dataclass

from isthmus.partitions.rotated import Rotated


@dataclass(frozen=True)
class Block(Rotated):
    """As :class:`Rotated`, with the cross-blocks, which no worker ever holds, at zero from the start."""

    name = "block"
    label = "blocks"
    meaning = "rotated pieces without connections between them: the joined network averages their answers"
    zero_cross_blocks = True
    by_row = True
