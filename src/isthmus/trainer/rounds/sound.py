"""Whether a worker's block can be merged: all of it numbers, and no larger than a round can have made it.

One norm a tensor, and no copy of it, when a round is opened and when it is closed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

MOST = 1e4  # a block is refused whose norm is more than this times (1 + what it was when the round was opened)


def norm(block: Mapping[str, Tensor]) -> float:
    """Return the Euclidean norm of all numbers of a block, not finite where one of them is not."""
    return math.hypot(*_norms(block).values())


def fault(block: Mapping[str, Tensor], began: float) -> str | None:
    """Return why a block is not to be merged, or None.

    Args:
        block: tensors by name; those that are not of floating-point numbers are not looked at.
        began: its norm when the round was opened.

    >>> fault({"weight": torch.ones(3), "bias": torch.tensor([0.0, float("nan")])}, 1.7)
    'a NaN in bias'
    >>> fault({"weight": torch.full((4,), 1e5)}, 2.0)
    'its norm is 2e+05, from 2 when the round was opened, most of it in weight'
    """
    norms = _norms(block)
    whole = math.hypot(*norms.values())
    if math.isfinite(whole) and whole <= MOST * (1 + began):
        return None
    for what, has in (("a NaN", torch.isnan), ("an infinity", torch.isinf)):
        for name, value in norms.items():
            if not math.isfinite(value) and bool(has(block[name]).any()):
                return f"{what} in {name}"
    largest = max(norms, key=norms.__getitem__)
    return f"its norm is {whole:.3g}, from {began:.3g} when the round was opened, most of it in {largest}"


def _norms(block: Mapping[str, Tensor]) -> dict[str, float]:
    found = {}
    for name, tensor in block.items():
        if tensor.is_floating_point() or tensor.is_complex():
            short = tensor.is_floating_point() and tensor.element_size() < 4
            found[name] = torch.linalg.vector_norm(tensor, dtype=torch.float32 if short else None)
    return dict(zip(found, torch.stack([n.double() for n in found.values()]).tolist(), strict=True)) if found else {}
