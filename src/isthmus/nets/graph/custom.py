"""Custom autograd functions: which a forward calls, and whether autograd finds the gradients that they state.

A traced graph has the operators of a function's forward, and so their derivatives, not the backward that it states.
Where both are the same (a GELU that keeps less for its backward) the graph is right; where they are not (a straight
estimator, a reversed gradient) it would be another network.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

_Function: Any = torch.autograd.Function
_Call = tuple[tuple[Any, ...], dict[str, Any]]
_ENTRIES = 1 << 22  # of the largest operand: a comparison takes a few operators on it in float64
_WIDTH = 3.0  # of the values tried: wide enough to pass the usual bounds (1 of a straight estimator, 6 of ReLU6)
_EXACT = 1e-5  # constants written out in eight digits


class CustomFunctions:
    """Watches a forward, while it is entered: every custom autograd function, with the operands of its calls."""

    def __init__(self) -> None:
        self.calls: dict[type, list[_Call]] = {}

    def __enter__(self) -> CustomFunctions:
        self._apply = _Function.__dict__["apply"]
        original, calls = self._apply.__func__, self.calls

        def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
            calls.setdefault(cls, []).append((args, kwargs))
            return original(cls, *args, **kwargs)

        _Function.apply = classmethod(apply)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        _Function.apply = self._apply

    def stated(self, function: type) -> bool:
        """Whether the backward of a function is the derivative of its forward, as far as every call of it shows."""
        calls = self.calls.get(function, [])
        return bool(calls) and all(_agree(function, *call) for call in calls)


class _Context:
    """Stands for the context of a function whose forward is run by itself."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep nothing."""

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Keep nothing: a result without a derivative has none here."""

    def set_materialize_grads(self, value: bool) -> None:
        """Keep nothing."""


def _agree(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Compare results and gradients of one call on values drawn for it, both ways."""
    if kwargs or any(not _can_draw(each) for each in args):
        return False
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(0)
        drawn = [_drawn(each) for each in args]
        try:
            stated, found = _results(function.apply(*drawn)), _results(_by_itself(function, drawn))
            mine, theirs = (_gradients(each, drawn) for each in (stated, found))
        except Exception:  # whatever it does, it does not do it here
            return False
    return len(stated) == len(found) and all(map(_close, (*stated, *mine), (*found, *theirs)))


def _by_itself(function: Any, args: Sequence[Any]) -> Any:
    if function.setup_context is not _Function.setup_context:
        return function.forward(*args)
    return function.forward(_Context(tuple(isinstance(each, Tensor) for each in args)), *args)


def _results(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _gradients(results: Sequence[Any], args: Sequence[Any]) -> list[Tensor]:
    """Return the gradients of a sum of results, with weights that are the same every time."""
    inputs = [each for each in args if isinstance(each, Tensor) and each.requires_grad]
    outputs = [each for each in results if isinstance(each, Tensor) and each.requires_grad]
    weights = [torch.linspace(1, 2, each.numel(), dtype=each.dtype).reshape(each.shape).cos() for each in outputs]
    if not outputs or not inputs:
        return [torch.zeros_like(each) for each in inputs]
    return list(torch.autograd.grad(outputs, inputs, weights, allow_unused=True, materialize_grads=True))


def _close(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return bool(a == b)
    return a.shape == b.shape and torch.allclose(a, b, rtol=_EXACT, atol=_EXACT)


def _can_draw(value: Any) -> bool:
    if isinstance(value, Tensor):
        entries = 1
        for size in value.shape:
            entries *= _hint(size)
        return (value.is_floating_point() or value.dtype is torch.bool) and entries <= _ENTRIES
    return value is None or isinstance(value, (bool, int, float, str, torch.dtype))


def _drawn(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    values = _WIDTH * torch.randn([_hint(size) for size in value.shape], dtype=torch.float64)
    return values.requires_grad_() if value.is_floating_point() else values > 0


def _hint(size: int | torch.SymInt) -> int:
    return int(size.node.hint) if isinstance(size, torch.SymInt) else size
