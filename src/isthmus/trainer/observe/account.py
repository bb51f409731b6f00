"""What a training has cost every worker so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from isthmus.trainer.local.sharded import local


@dataclass(frozen=True)
class Account:
    """One number a worker.

    Attributes:
        sent_bytes, received_bytes: payload; not in it are the few numbers of meetings, ``viewing_bytes``, and
            ``copying_bytes``.
        computing_seconds, moving_seconds, waiting_seconds: in steps (from the first forward pass of each to its end),
            cutting and merging; in exchanges; in meetings, until the last worker comes.
        parameters: held at once at most.
        memory_bytes: at most, of parameters, gradients, optimizer state, buffers, and of what is kept between rounds;
            not in it are activations, what is on the way, and the library itself.
        steps: made.
        viewing_bytes: sent and received, together, to look at the merged network: evaluations, ``whole()``, export.
        copying_bytes: sent and received, together, for copies that outlive a worker.
        ahead_bytes: of those sent and received, together, what travelled beside the steps of the round before.
        hops: how often something had to arrive before the worker could go on, but to look at the network.
        seats: the numbers that the workers were started with.
    """

    sent_bytes: tuple[int, ...]
    received_bytes: tuple[int, ...]
    computing_seconds: tuple[float, ...]
    moving_seconds: tuple[float, ...]
    waiting_seconds: tuple[float, ...]
    parameters: tuple[int, ...]
    memory_bytes: tuple[int, ...]
    steps: tuple[int, ...]
    viewing_bytes: tuple[int, ...]
    copying_bytes: tuple[int, ...]
    ahead_bytes: tuple[int, ...]
    hops: tuple[int, ...]
    seats: tuple[int, ...]

    @classmethod
    def of(cls, numbers: Iterable[list[float]]) -> Account:
        """Return the account from a row of numbers a worker, in the order of the fields."""
        columns = zip(*numbers, strict=True)
        return cls(
            **{
                each.name: tuple(column if each.name.endswith("seconds") else map(int, column))
                for each, column in zip(fields(cls), columns, strict=True)
            }
        )


def held_bytes(module: nn.Module, optimizer: Optimizer | None, kept: Iterable[Tensor] = ()) -> int:
    """Return the bytes of a worker's parameters, gradients, optimizer state, buffers and of what it keeps beside them.

    Every trained parameter counts with a gradient, whether it has one at this moment or not.
    """
    seen: dict[int, Tensor] = {}
    total = 0
    for parameter in module.parameters():
        held = local(parameter)
        seen[held.data_ptr()] = held
        total += (2 if parameter.requires_grad else 1) * _size(held)
    for buffer in module.buffers():
        seen[buffer.data_ptr()] = buffer
        total += _size(buffer)
    for entries in () if optimizer is None else optimizer.state.values():
        total += sum(_size(local(value)) for value in entries.values() if isinstance(value, Tensor))
    return total + sum(_size(tensor) for tensor in kept if tensor.data_ptr() not in seen)


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def grown_bytes(start: int | None, device: torch.device) -> int | None:
    """Return by how much this process has grown at most: on a GPU what tensors took there, else its resident set, with
    what libraries have loaded; None where nobody knows.

    Args:
        start: its resident set before; None where it is not one worker's own.
        device: where it computes.
    """
    if start is None:
        return None
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resident_bytes(peak=True)
    return None if peak is None else max(0, peak - start)


def resident_bytes(peak: bool = False) -> int | None:
    """Return this process's resident set now, or its peak; None where the system does not tell."""
    field = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field)), None)
