"""When sizes that are open are not worth it: what follows from them grows without bound.

With windows over an image, say, whose sides are rounded up to whole ones at every level, every comparison of sizes
leaves a condition, each next one is held against all before it, and sizes become long expressions of those of the
image: minutes, after which they are closed anyway. The limits are counts, and so the same on every machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from isthmus.nets.graph.sizes import size_of

_CONDITIONS = 100  # ResNet, ConvNeXt, ViT and Segformer leave 10 to 64; Swin passes 150 in its first layers
_OPERATIONS = 30  # in one size: CoAtNet, attention after five convolutions, has 23; the first layer of DaViT 38


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
