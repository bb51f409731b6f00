"""What a call of a network gives, results, gradients and buffers, and how far two of them are apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from isthmus.nets.check.verdict import Check, judged, magnitude, relative_error

_LEAST = 1e-6  # of the largest gradient: smaller ones may come of rounding alone
_NUDGE = 32  # units in the last place


@dataclass(frozen=True)
class Outcome:
    """What a call gives.

    Attributes:
        outputs: the tensors of the result.
        gradients: of :func:`loss`, by parameter; where one is missing it is zero.
        buffers: afterwards, by name.
    """

    outputs: Sequence[Tensor]
    gradients: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]

    def errors(self, reference: Outcome) -> dict[str, float]:
        """Return how far this is from a reference: in outputs, gradients, buffers."""
        pairs = list(zip(self.outputs, reference.outputs, strict=True))
        outputs = max((relative_error(a.detach(), b.detach()) for a, b in pairs), default=0.0)
        least = _LEAST * max(map(magnitude, reference.gradients.values()), default=0.0)
        gradients = 0.0
        for name in {**self.gradients, **reference.gradients}:
            a, b = self.gradients.get(name), reference.gradients.get(name)
            gradients = max(gradients, relative_error(*_both(a, b), least))
        pairs = [(self.buffers[name], buffer) for name, buffer in reference.buffers.items()]
        buffers = max((relative_error(a.detach(), b.detach()) for a, b in pairs), default=0.0)
        return {"outputs": outputs, "gradients": gradients, "buffers": buffers}


def compared(
    found: Outcome,
    reference: Outcome,
    tolerances: Mapping[str, float],
    what: Callable[[str], str],
    again: Callable[[], Outcome],
) -> list[Check]:
    """Return the comparisons of two outcomes.

    Args:
        found, reference: the two.
        tolerances: of "outputs", "gradients", "buffers".
        what: returns how to call one of these in a message.
        again: returns the reference computed again, of numbers that are :func:`nudged`.
    """
    errors = found.errors(reference)
    changes: dict[str, float] = {}

    def change(part: str) -> float:
        if not changes:
            changes.update(again().errors(reference))
        return changes[part]

    return [judged(what(part), errors[part], limit, lambda p=part: change(p)) for part, limit in tolerances.items()]  # type: ignore[misc]


def loss(outputs: Sequence[Tensor]) -> Tensor | None:
    """Return a scalar in which every finite entry of the outputs counts with a weight of its own; None without any."""
    total: Tensor | None = None
    for output in outputs:
        real = torch.view_as_real(output) if output.is_complex() else output
        if real.requires_grad and real.is_floating_point() and real.numel():
            weights = torch.linspace(0.5, 1.5, real.numel(), dtype=real.dtype, device=real.device).reshape(real.shape)
            finite = torch.where(real.isfinite(), real, torch.zeros_like(real))
            total = (finite * weights).sum() if total is None else total + (finite * weights).sum()
    return total


def gradients(outputs: Sequence[Tensor], parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the gradients of :func:`loss` by name, without touching those the parameters have."""
    total, named = loss(outputs), {name: p for name, p in parameters.items() if p.requires_grad}
    if total is None or not named:
        return {}
    found = torch.autograd.grad(total, list(named.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(named, found, strict=True) if gradient is not None}


def nudged(tensors: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Return real and complex tensors with all numbers changed in their last digits; others as they are."""
    return [_nudged(tensor.detach(), generator) for tensor in tensors]


def _nudged(tensor: Tensor, generator: torch.Generator) -> Tensor:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return tensor
    noise = torch.randn(tensor.shape, generator=generator).to(tensor.device)
    return (tensor * (1 + _NUDGE * torch.finfo(tensor.dtype).eps * noise.double())).to(tensor.dtype)


def _both(a: Tensor | None, b: Tensor | None) -> tuple[Tensor, Tensor]:
    if a is None:
        assert b is not None
        return torch.zeros_like(b), b
    return a, torch.zeros_like(a) if b is None else b
