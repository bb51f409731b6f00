"""What a run costs one worker: memory that is planned, memory that is measured, floating-point operations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

Result = TypeVar("Result")
_COPIES = {"sgd": 1, "adamw": 2}  # numbers the optimizer keeps for every parameter


def planned_bytes(network: nn.Module, optimizer: str, momentum: float) -> int:
    """Return the bytes of parameters, gradients, optimizer state and buffers while a worker trains the network.

    Not in it: activations, the library itself, and the whole model that the root of IST keeps beside its piece.
    """
    kept = 0 if optimizer == "sgd" and momentum == 0 else _COPIES[optimizer]
    total = 0
    for parameter in network.parameters():
        copies = 2 + kept if parameter.requires_grad else 1
        total += copies * parameter.numel() * parameter.element_size()
    return total + sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())


def flops(work: Callable[[], Result]) -> tuple[Result, int]:
    """Do some work and return its result and the operations (2 a multiply-add) of its matrix products.

    Products, convolutions and attention are counted as they are executed, forward and backward; norms, activations and
    the optimizer are not.

    >>> network, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.zeros(1, 3)
    >>> flops(lambda: network(x).sum().backward())[1]  # 2 * (2 * 12 + 3 * 8): the input needs no gradient
    96
    """
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter:
        result = work()
    return result, int(counter.get_total_flops())


def resident_bytes(peak: bool = False) -> int | None:
    """Return this process's resident set now, or its peak; None where the system does not tell."""
    field = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)


def _attention(query: Any, key: Any, value: Any, *rest: Any, **others: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(gradient: Any, query: Any, key: Any, value: Any, *rest: Any, **others: Any) -> int:
    return int(sdpa_backward_flop_count(gradient, query, key, value))


# PyTorch's counter knows the attention kernels of GPUs, not that of CPUs.
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
