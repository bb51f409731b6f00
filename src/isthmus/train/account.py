"""What a run costs one worker: memory that is planned, memory that is measured, floating-point operations."""

from __future__ import annotations

from pathlib import Path

from torch import nn


def planned_bytes(network: nn.Module, momentum: float) -> int:
    """Return the bytes of parameters, gradients, optimizer state and buffers while a worker trains the network.

    Not in it: activations, the library itself, and the whole model that the root of IST keeps beside its piece.
    """
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
    return parameters * (3 if momentum > 0 else 2) + buffers


def flops_per_sample(network: nn.Module) -> int:
    """Return the operations (2 a multiply-add) of one sample's forward and backward pass through the linear layers.

    A weight is used three times: forward, for its own gradient, and for that of its input, which the first layer does
    not need. Norms, activations and the optimizer are not counted.

    >>> flops_per_sample(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))  # 2 * (2 * 12 + 3 * 8)
    96
    """
    weights = [module.weight.numel() for module in network.modules() if isinstance(module, nn.Linear)]
    return 2 * (3 * sum(weights) - weights[0])


def resident_bytes(peak: bool = False) -> int | None:
    """Return this process's resident set now, or its peak; None where the system does not tell."""
    field = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)
