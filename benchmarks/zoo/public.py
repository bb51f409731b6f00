"""What is known of a public network before it is traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Call = tuple[tuple[Any, ...], dict[str, Any]]
Experts = Callable[[str], Sequence[int]]  # those that are held in the layer of a parameter, by its name
Twin = Callable[[nn.Module, Experts], tuple[nn.Module, Mapping[str, str]]]


@dataclass(frozen=True)
class Public:
    """A public network and how it is called.

    Attributes:
        name: of the network.
        source: the package it is of, or "written out".
        build: makes it; the caller seeds torch.
        call: makes positional and keyword arguments for a batch and a size (of images, sequences, graphs).
        sizes: that of the example, and another.
        batch: of the example.
        twin: for a mixture of experts, the network with some of the experts, as many in each layer, and the rest as it
            is, and what its parameters are called in the whole.
        single: whether it computes in float32 alone.
        judged: whether to compare it; not where that is done elsewhere.
    """

    name: str
    source: str
    build: Callable[[], nn.Module]
    call: Callable[[int, int], Call]
    sizes: tuple[int, int]
    batch: int = 4
    twin: Twin | None = field(default=None, repr=False)
    single: bool = False
    judged: bool = True


def images(channels: int = 3) -> Callable[[int, int], Call]:
    """Return what makes square images."""
    return lambda batch, size: ((torch.randn(batch, channels, size, size),), {})


def clips(channels: int = 3, frames: int = 8) -> Callable[[int, int], Call]:
    """Return what makes clips of square frames."""
    return lambda batch, size: ((torch.randn(batch, channels, frames, size, size),), {})


def tokens(vocabulary: int = 99, **kwargs: Any) -> Callable[[int, int], Call]:
    """Return what makes token numbers."""
    return lambda batch, size: ((torch.randint(2, vocabulary, (batch, size)),), dict(kwargs))


def vectors(width: int) -> Callable[[int, int], Call]:
    """Return what makes vectors; the size says nothing."""
    return lambda batch, size: ((torch.randn(batch, width),), {})


def sequences(width: int) -> Callable[[int, int], Call]:
    """Return what makes sequences of vectors."""
    return lambda batch, size: ((torch.randn(batch, size, width),), {})


def signals(channels: int) -> Callable[[int, int], Call]:
    """Return what makes channels over time."""
    return lambda batch, size: ((torch.randn(batch, channels, size),), {})


def graph(width: int, *more: Callable[[int], Tensor]) -> Callable[[int, int], Call]:
    """Return what makes node features and edges; the batch counts nodes by eights."""

    def make(batch: int, size: int) -> Call:
        nodes = 8 * batch
        edges = torch.stack([torch.randint(0, nodes, (size,)), torch.randint(0, nodes, (size,))])
        return (torch.randn(nodes, width), edges, *(each(size) for each in more)), {}

    return make
