"""What follows from sizes that are open: what has to hold of them, and when there is so much that they are closed.

With windows over an image, say, whose sides are rounded up to whole ones at every level, every comparison of sizes
leaves a condition, each next one is held against all before it, and sizes become long expressions of those of the
image: minutes, after which they are closed anyway. The limits are counts, and so the same on every machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from isthmus.nets.graph.sizes import size_of

_CONDITIONS = 100  # ResNet, ConvNeXt, ViT and Segformer leave 10 to 64; Swin passes 150 in its first layers
_OPERATIONS = 30  # in one size: CoAtNet, attention after five convolutions, has 23; the first layer of DaViT 38


_REMAINDERS = ("Mod", "PythonMod")  # as torch calls them

Place = tuple[int, int]


@dataclass(frozen=True)
class Remainder:
    """A condition on sizes of inputs.

    Attributes:
        condition: an expression.
        places: for each of its symbols the input and the dimension whose size it is.
    """

    condition: Any
    places: tuple[tuple[Any, int, int], ...]

    def holds(self, inputs: Sequence[Tensor]) -> bool:
        """Whether inputs are of such sizes."""
        return _holds(self.condition, tuple((symbol, inputs[i].shape[d]) for symbol, i, d in self.places))


@lru_cache(maxsize=4096)
def _holds(condition: Any, sizes: tuple[tuple[Any, int], ...]) -> bool:
    return bool(condition.subs(dict(sizes)) != sympy.false)


class TooMuchFollows(Exception):
    """What torch would have to show of open sizes grows without bound."""


@contextlib.contextmanager
def few_conditions(wanted: bool) -> Iterator[None]:
    """Have an export raise :class:`TooMuchFollows` after the call that passes a limit."""
    with _Counting() if wanted else contextlib.nullcontext():
        yield


class _Counting(TorchFunctionMode):
    def __init__(self) -> None:
        super().__init__()
        self._short: set[Any] = set()  # the expressions that were found to be

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(tensor, Tensor):
                for size in tensor.shape:
                    if isinstance(size, torch.SymInt):
                        self._check(size)
        return result

    def _check(self, size: torch.SymInt) -> None:
        expression = size_of(size)
        if len(size.node.shape_env.guards) > _CONDITIONS:
            raise TooMuchFollows
        if not isinstance(expression, int) and expression not in self._short:
            if expression.count_ops() > _OPERATIONS:
                raise TooMuchFollows
            self._short.add(expression)


def remainders(sizes: Mapping[Place, Any]) -> tuple[Remainder, ...]:
    """Return what has to hold of remainders of open sizes: a forward that asked for one may do otherwise elsewhere.

    Those by a number alone: by other sizes torch itself asks for many, which say nothing about the results.

    Args:
        sizes: of inputs, by place, as they were traced.
    """
    places = {size.node.expr: place for place, size in sizes.items() if isinstance(size, torch.SymInt)}
    envs = {id(size.node.shape_env): size.node.shape_env for size in sizes.values() if isinstance(size, torch.SymInt)}
    found = {guard.expr: None for env in envs.values() for guard in env.guards}
    asked = {each: [part for part in each.atoms(sympy.Function) if type(part).__name__ in _REMAINDERS]
             for each in found if each.free_symbols <= places.keys()}  # fmt: skip
    return tuple(
        Remainder(each, tuple((symbol, *places[symbol]) for symbol in sorted(each.free_symbols, key=str)))
        for each, divided in asked.items() if divided and all(mod.args[1].is_Integer for mod in divided)
    )  # fmt: skip
