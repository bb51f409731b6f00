"""A network that is trained on a few classes at a time: those that are right, and some that are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from isthmus.errors import InvalidInput
from isthmus.nets.models.block_softmax import scores_of


class Sampled(nn.Module):
    """What a worker trains: in training it scores the right class, and m classes that are drawn for the step.

    Each class v is among the drawn with probability pi_v, and none twice. With S the drawn classes and y the right one,
    the scores are z_y, and z_v - log pi_v for v in S without y: exp of them sums, in expectation over S, to the sum
    over all classes. With m = V it is the softmax itself. Draws are torch's own, as dropout's are. In evaluation it is
    the body, with all classes.

    Args:
        body: returns scores [..., V].
        rows: names of its parameters and buffers that have a row a class.
        chances: [V] pi, whose sum is m.
        drawn: m.

    Reference:
        Bengio, Senécal, "Adaptive importance sampling to accelerate training of a neural probabilistic language model"
        (IEEE TNN 2008); Madow, "On the theory of systematic sampling, II" (1949), for the draws.
    """

    def __init__(self, body: nn.Module, rows: Sequence[str], chances: Tensor, drawn: int) -> None:
        super().__init__()
        self.body, self.rows = body, tuple(rows)
        self.chances: Tensor
        self.register_buffer("chances", chances, persistent=False)
        self.drawn = drawn
        self._right: Tensor | None = None

    def tell(self, right: Tensor) -> Tensor:
        """Take the right classes [...] of the next call in training; return what is right of its scores: the first.

        Negative numbers, which a loss passes over, stay.
        """
        self._right = right
        return torch.where(right < 0, right, 0)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return scores [..., 1 + m] in training, first those of the right classes; else what the body returns.

        Raises:
            InvalidInput: the right classes have not been told, or are not as many as the scores.
        """
        if not self.training:
            return self.body(*args, **kwargs)
        right, self._right = self._right, None
        if right is None:
            raise InvalidInput(
                "strategy 'sampled-softmax' must know what is right before the network is called: "
                "y = training.targets(y) first, then training.module(x), once for every call"
            )
        wanted = right.reshape(-1).clamp(min=0)
        drawn = self._draw()
        some = torch.cat([wanted, drawn])
        tensors = dict(self.body.named_parameters()) | dict(self.body.named_buffers())
        scores = scores_of(functional_call(self.body, {name: tensors[name][some] for name in self.rows}, args, kwargs))
        wanted_shape = (*right.shape, len(some))
        if scores.shape != wanted_shape:
            raise InvalidInput(
                "strategy 'sampled-softmax' needs scores of what the targets are of, and of nothing else: got shape "
                f"{tuple(scores.shape)} where {wanted_shape} is needed, {len(some)} classes a target"
            )
        flat = scores.reshape(len(wanted), -1)
        own, others = flat[:, : len(wanted)].diagonal(), flat[:, len(wanted) :]
        corrected = others - self.chances[drawn].log().to(others)
        masked = corrected.masked_fill(drawn == wanted[:, None], -math.inf)
        return torch.cat([own[:, None], masked], 1).reshape(*right.shape, -1)

    def _draw(self) -> Tensor:
        """Return m classes: marks at distance 1 on their chances in a drawn order, the first drawn too."""
        device = self.chances.device
        order = torch.randperm(len(self.chances), device=device)
        ends = self.chances[order].cumsum(0)
        marks = torch.rand((), dtype=ends.dtype, device=device) + torch.arange(self.drawn, device=device)
        return order[torch.searchsorted(ends, marks, right=True).clamp(max=len(order) - 1)]


def chances_of(frequencies: np.ndarray, count: int) -> np.ndarray:
    """Return [V] chances, proportional to frequencies but at most 1, that sum to ``count``.

    >>> chances_of(np.array([8.0, 1.0, 1.0]), 2).tolist()
    [1.0, 0.5, 0.5]
    """
    sure = np.zeros(len(frequencies), bool)
    while True:
        rest = np.where(sure, 0.0, frequencies)
        found = np.where(sure, 1.0, (count - sure.sum()) * rest / max(rest.sum(), np.finfo(float).tiny))
        above = found > 1
        if not above.any():
            return found
        sure |= above
