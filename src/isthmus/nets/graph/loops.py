"""Loops over the experts that were hit are traced as loops over all experts.

A network may ask which experts any token was sent to (``nonzero`` of a vector of fixed length), and go through these
alone. How many there are depends on the values, which no graph can follow. Going through all of them gives the same: an
expert without tokens adds nothing. ``Coupling.verify`` compares the traced network with the network itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.overrides import TorchFunctionMode

_GOES_THROUGH = {"__iter__", "unbind"}
_NUMBERS = {"item", "tolist", "__int__", "__index__", "__float__", "__bool__"}
_COMPARES: Mapping[str, Callable[[int, int], bool]] = {
    "eq": lambda a, b: a == b, "__eq__": lambda a, b: a == b, "ne": lambda a, b: a != b, "__ne__": lambda a, b: a != b,
    "__ge__": lambda a, b: a >= b, "__gt__": lambda a, b: a > b, "__le__": lambda a, b: a <= b,
    "__lt__": lambda a, b: a < b,
}  # fmt: skip


class AllFound(TorchFunctionMode):
    """Has a loop over the places that ``nonzero`` finds in a vector go through all places; their numbers are known.

    What is found is looked for only when it is used otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self._vectors: dict[int, tuple[Tensor, Tensor]] = {}  # by what stands for what is found in it
        self._known: dict[int, tuple[Tensor, int]] = {}  # the number that a tensor holds

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if name == "nonzero" and not kwargs and first is not None and first.dim() == 1 and type(first.shape[0]) is int:
            found = first.new_empty((1, 1), dtype=torch.int64)
            self._vectors[id(found)] = found, first
            return found
        if first is not None and id(first) in self._vectors and name in _GOES_THROUGH and args[1:] in ((), (0,)):
            rows = [first.new_full((1,), place) for place in range(len(self._vectors[id(first)][1]))]
            rows = [self._number(row, place) for place, row in enumerate(rows)]
            return iter(rows) if name == "__iter__" else tuple(rows)
        if first is not None and id(first) in self._known:
            known = self._of_number(func, name, args, kwargs or {})
            if known is not NotImplemented:
                return known
        if name == "__getitem__" and first is not None and isinstance(args[1], Tensor) and id(args[1]) in self._known:
            chosen = first[self._known[id(args[1])][1]]
            return chosen if args[1].dim() == 0 else chosen.unsqueeze(0)
        if self._vectors and name != "dim":
            args, kwargs = pytree.tree_map(self._looked_for, (tuple(args), dict(kwargs or {})))
        return func(*args, **(kwargs or {}))

    def _of_number(self, func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Return the result of a call on a tensor whose number is known."""
        tensor, place = self._known[id(args[0])]
        if name == "__format__":
            return format(place, args[1])
        if name in _NUMBERS:
            return place if name != "tolist" or tensor.dim() == 0 else [place]
        if name in _COMPARES and isinstance(args[1], int):
            return _COMPARES[name](place, args[1])
        if name in ("__getitem__", "squeeze", "select") and tensor.dim() == 1:
            return self._number(func(*args, **kwargs), place)
        return NotImplemented

    def _number(self, tensor: Tensor, place: int) -> Tensor:
        self._known[id(tensor)] = tensor, place
        return tensor

    def _looked_for(self, value: Any) -> Any:
        return self._vectors[id(value)][1].nonzero() if id(value) in self._vectors else value
