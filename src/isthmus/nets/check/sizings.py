"""Calls of other sizes than the traced one: batch, sequence and image sides, where a network leaves them open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isthmus.nets.axes.structure import Structure
from isthmus.nets.graph.sizes import size_of

Place = tuple[int, int]  # an input and a dimension of it


@dataclass(frozen=True)
class _Open:
    """Sizes of inputs that one number decides.

    Attributes:
        sizes: by place, the size in each mode's graph, as an expression of that mode's symbol.
        symbols: of the modes.
    """

    sizes: Mapping[Place, tuple[Any, ...]]
    symbols: tuple[Any, ...]

    def leads(self, place: Place) -> bool:
        """Whether a size is the number itself."""
        return self.sizes[place] == self.symbols

    def at(self, number: int) -> dict[Place, int] | None:
        """Return all sizes if the number is another; None if they would not be whole, or not the same in all modes."""
        found = {}
        for place, sizes in self.sizes.items():
            values = {size.subs(symbol, number) for size, symbol in zip(sizes, self.symbols, strict=True)}
            value = values.pop()
            if values or not value.is_Integer or value < 1:
                return None
            found[place] = int(value)
        return found


def with_batch(coupling: Structure, inputs: Sequence[Tensor], size: int) -> list[Tensor] | None:
    """Return the inputs with so many samples; None where the batch is not open.

    A mask that is only indexed with positions has a size of its own: its first dimension counts as the batch too.
    """
    return _resized(coupling, inputs, lambda group, number: size if _is_batch(group, inputs) else None)


def with_sides(coupling: Structure, inputs: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield the inputs with other sizes of everything but the batch, smaller and larger; nothing if none is open."""
    for other in (_smaller, lambda number: 2 * number):
        found = _resized(coupling, inputs, lambda g, number: None if _is_batch(g, inputs) else other(number))  # noqa: B023
        if found is not None:
            yield found


def _resized(
    coupling: Structure, inputs: Sequence[Tensor], choose: Callable[[_Open, int], int | None]
) -> list[Tensor] | None:
    """Return the inputs with other sizes, given what each number becomes (None: what it is)."""
    result, changed = list(inputs), False
    for group in _open(coupling):
        lead = next((place for place in group.sizes if group.leads(place)), None)
        number = None if lead is None else choose(group, inputs[lead[0]].shape[lead[1]])
        for (i, d), size in ((number is not None and group.at(number)) or {}).items():
            changed |= size != result[i].shape[d]
            result[i] = _fitted(result[i], d, size)
    return result if changed else None


def _open(coupling: Structure) -> list[_Open]:
    """Return the sizes that are open in all modes, those together that are decided together."""
    by_mode = []
    for exported in coupling.exports.values():
        shapes = [node.meta["val"].shape for node in exported.input_nodes]
        by_mode.append({(i, d): size_of(size) for i, shape in enumerate(shapes) for d, size in enumerate(shape)})
    groups: list[tuple[set[Any], set[Place]]] = []
    for place in by_mode[0]:
        symbols = {(m, s) for m, sizes in enumerate(by_mode) for s in getattr(sizes[place], "free_symbols", ())}
        places = {place} if symbols else set()
        for group in [group for group in groups if group[0] & symbols]:
            groups.remove(group)
            symbols, places = symbols | group[0], places | group[1]
        groups += [(symbols, places)] if places else []
    found = []
    for symbols, places in groups:
        if sorted(mode for mode, _ in symbols) != list(range(len(by_mode))):
            continue  # closed in one mode, or made of several numbers
        ordered = tuple(symbol for _, symbol in sorted(symbols, key=lambda each: each[0]))
        sizes = {place: tuple(sizes[place] for sizes in by_mode) for place in sorted(places)}
        if not any(isinstance(size, int) for each in sizes.values() for size in each):
            found.append(_Open(sizes, ordered))
    return found


def _is_batch(group: _Open, inputs: Sequence[Tensor]) -> bool:
    first = inputs[0].shape[:1]
    return any(d == 0 and inputs[i].shape[:1] == first and group.leads((i, d)) for i, d in group.sizes)


def _smaller(number: int) -> int:
    """Return about half of a size, with the powers of two in it: 224 (7 * 32) becomes 96, 5 becomes 2."""
    power = number & -number
    odd = number // power
    return max(2, power * (odd // 2) if odd > 1 else number // 2)


def _fitted(tensor: Tensor, dim: int, size: int) -> Tensor:
    """Return a tensor of another size, with values of the same kind."""
    while tensor.shape[dim] < size:
        tensor = torch.cat([tensor, tensor.flip(dim)], dim)
    return tensor.narrow(dim, 0, size)
