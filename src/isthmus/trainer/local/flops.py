"""Floating-point operations, counted as they are executed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Result = TypeVar("Result")


def flops(work: Callable[[], Result]) -> tuple[Result, int]:
    """Do some work and return its result and the operations (2 a multiply-add) of its matrix products.

    Products, convolutions and attention are counted as they are executed, forward and backward, and embedding bags as
    the products with sparse inputs that they are; norms, activations and the optimizer are not.

    >>> from torch.nn import Linear, Sequential
    >>> network, x = Sequential(Linear(3, 4), Linear(4, 2)), torch.zeros(1, 3)
    >>> flops(lambda: network(x).sum().backward())[1]  # 2 * (2 * 12 + 3 * 8): the input needs no gradient
    96
    """
    with FlopCounterMode(display=False, custom_mapping=_MORE) as counter:
        result = work()
    return result, int(counter.get_total_flops())


def _attention(query: Any, key: Any, value: Any, *rest: Any, **others: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **others: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


def _bag(weight: Any, indices: Any, *rest: Any, **others: Any) -> int:
    return 2 * math.prod(indices) * int(weight[1])


def _bag_backward(gradient: Any, indices: Any, *rest: Any, **others: Any) -> int:
    return 2 * math.prod(indices) * int(gradient[1])


# PyTorch's counter knows the attention kernels of GPUs, not that of CPUs, and no bags.
_MORE = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    torch.ops.aten._embedding_bag: _bag,
    torch.ops.aten._embedding_bag_forward_only: _bag,
    torch.ops.aten._embedding_bag_backward: _bag_backward,
}
