"""Tensors as flat messages: what travels between two workers, one message per type of number."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Names, shapes and types of the tensors of one message, in order."""

    entries: tuple[tuple[str, tuple[int, ...], torch.dtype], ...]

    @cached_property
    def sizes(self) -> dict[torch.dtype, int]:
        """How many numbers of each type."""
        found: dict[torch.dtype, int] = {}
        for _, shape, dtype in self.entries:
            found[dtype] = found.get(dtype, 0) + math.prod(shape)
        return found

    def pack(self, tensors: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the tensors of one type as one flat tensor; empty if there are none."""
        parts = [tensors[name].detach().reshape(-1) for name, _, kind in self.entries if kind == dtype]
        return torch.cat(parts) if parts else torch.empty(0, dtype=dtype, device=device)

    def unpack(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the tensors of the flat tensor's type, as views of it."""
        mine = [(name, shape) for name, shape, dtype in self.entries if dtype == flat.dtype]
        pieces = flat.split([math.prod(shape) for _, shape in mine])
        return {name: piece.view(shape) for (name, shape), piece in zip(mine, pieces, strict=True)}


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """Return the layout of whole tensors."""
    return Layout(tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()))


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of the tensors' names and bits: equal digests, equal weights."""
    return digest_of_parts(tensors, lambda name: (tensors[name],))


def digest_of_parts(names: Iterable[str], parts: Callable[[str], Iterable[Tensor]]) -> str:
    """Return the :func:`digest` of tensors that had better not be held whole.

    Args:
        names: of the tensors.
        parts: returns the parts of one, which follow each other.
    """
    content = hashlib.sha256()
    for name in sorted(names):
        content.update(name.encode())
        for part in parts(name):
            content.update(part.detach().reshape(-1).cpu().view(torch.uint8).numpy().data)
    return content.hexdigest()
