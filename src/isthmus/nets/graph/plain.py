"""Norms and recurrent layers are traced by the shapes of their results alone.

Tracing runs every operator on tensors without values. Torch takes these apart for it, a batch norm into some forty
operators and an LSTM into all its steps, to find shapes that are plain: most of the cost of many a trace. So they are
traced as operators of this module, which know the shapes of their results, and have their own names afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten

_OWN_NAMES: dict[Any, Any] = {}  # what an operator of this module stands for


def _standing_for(operator: Any, shapes: Callable[..., Any]) -> Any:
    """Return an operator with the call of another, and shapes of its results as a function of its operands."""
    name, call = str(operator).split(".")[1], str(operator._schema)
    own = torch.library.custom_op(f"isthmus::{name}", operator, mutates_args=(), schema=call[call.index("(") :])
    own.register_fake(shapes)
    own.register_autograd(_backward)
    stands = getattr(torch.ops.isthmus, name).default
    _OWN_NAMES[stands] = operator
    return stands


def _backward(context: Any, *gradients: Any) -> Any:
    """Make the results depend on what they are computed from; nothing is differentiated while a network is traced."""
    raise NotImplementedError


def _like(source: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(source)


def _contiguous(source: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(source, memory_format=torch.contiguous_format)


def _recurrent(
    source: Tensor, states: Any, weights: Any, biases: bool, layers: int, drop: float, train: bool, both: bool,
    *batch_first: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    kept = list(states) if isinstance(states, (list, tuple)) else [states]
    width = kept[0].shape[-1] * (2 if both else 1)
    if any(batch_first):  # it goes by steps in memory all the same
        output = source.new_empty((source.shape[1], source.shape[0], width)).transpose(0, 1)
    else:
        output = source.new_empty((*source.shape[:2], width))
    return output, *map(torch.empty_like, kept)


_BATCH_NORM = _standing_for(aten.batch_norm.default, _like)
_LAYER_NORM = _standing_for(aten.layer_norm.default, _contiguous)
_RECURRENT = {
    getattr(torch, name): _standing_for(getattr(aten, name).input, _recurrent)
    for name in ("lstm", "gru", "rnn_tanh", "rnn_relu")
}


class ByShapes(TorchFunctionMode):
    """Has calls whose results have plain shapes traced by these; what torch would refuse, or cast, is torch's own."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if first is not None and not _is_cast(first.device.type):
            if func is F.batch_norm and _every_channel(*args[:5], **given):
                return _batch_norm(*args, **given)
            if func is F.layer_norm and _every_place(*args[:4], **given):
                return _layer_norm(*args, **given)
            if func in _RECURRENT and not given and isinstance(args[3], bool) and _every_step(*args):
                return _RECURRENT[func](*args)
        return func(*args, **given)


def _is_cast(device: str) -> bool:
    """Whether a region of autocast may change types."""
    return torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)


def _batch_norm(
    source: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    return _BATCH_NORM(source, weight, bias, mean, var, training, momentum, eps, torch.backends.cudnn.enabled)


def _every_channel(source: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, **_: Any) -> bool:
    """Whether a batch norm has as many statistics and weights as channels, and more than one value of each."""
    if source.dim() < 2 or type(source.shape[1]) is not int:
        return False
    fits = all(each is None or each.shape == source.shape[1:2] for each in (mean, var, weight, bias))
    return fits and any(type(size) is not int or size > 1 for size in (source.shape[0], *source.shape[2:]))


def _layer_norm(source: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    return _LAYER_NORM(source, list(normalized_shape), weight, bias, eps, torch.backends.cudnn.enabled)


def _every_place(source: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, **_: Any) -> bool:
    """Whether a layer norm is over the last dimensions of its operand, none of them open."""
    shape = tuple(normalized_shape)
    last = tuple(source.shape)[-len(shape) :] if shape else ()
    sizes = all(type(size) is int for size in (*last, *shape)) and last == shape
    return sizes and bool(shape) and all(each is None or tuple(each.shape) == shape for each in (weight, bias))


def _every_step(source: Tensor, states: Any, weights: Sequence[Tensor], *_: Any) -> bool:
    """Whether the first weights of a recurrent layer are as wide as what it reads."""
    return source.dim() == 3 and bool(weights) and weights[0].shape[1:] == source.shape[2:]


def own_names(module: fx.GraphModule) -> None:
    """Give the operators of a traced graph, and of its regions, their own names again."""
    for child in module.children():
        if isinstance(child, fx.GraphModule):
            own_names(child)
    for node in module.graph.nodes:
        if node.op == "call_function":
            node.target = _OWN_NAMES.get(node.target, node.target)
