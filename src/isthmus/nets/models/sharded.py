"""A body that scores some of the classes, and what it is told of the others' scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from isthmus.nets.models.block_softmax import scores_of

Meet = Callable[[Tensor], Tensor]  # from one's own log-sum-exps to those of all others together


class Sharded(nn.Module):
    """What a worker trains: scores of its own classes, and one more that stands for all others.

    In training that one is log sum over the others' classes of exp(score), as they have told it, and has no gradient.
    So the gradients of a cross-entropy are those of the softmax over all classes: p_v for every class v, less 1 for the
    right one.

    Args:
        body: returns scores [..., k].

    Attributes:
        meet: tells and is told; None: nobody is there.
        scored: log-sum-exps of the last call.
        taken: a checksum of what it was called with, if somebody is there.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.scored, self.taken = body, 0, 0
        self.meet: Meet | None = None

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return scores [..., k + 1] in training, else [..., k]."""
        scores = scores_of(self.body(*args, **kwargs))
        if not (self.training and torch.is_grad_enabled()):
            return scores
        own = scores.detach().logsumexp(-1)
        self.scored = own.numel()
        if self.meet is None:
            return torch.cat([scores, torch.zeros_like(own).unsqueeze(-1)], -1)
        self.taken = _checksum((args, kwargs))
        others = self.meet(own)
        return torch.cat([scores, others.unsqueeze(-1)], -1)


def _checksum(call: Any) -> int:
    """Return a number that two calls with other tensors hardly share."""
    found = 0
    for leaf in pytree.tree_leaves(call):
        if isinstance(leaf, Tensor) and not leaf.is_meta:
            held = leaf.detach().cpu().contiguous()
            found = crc32(held.reshape(-1).view(torch.uint8).numpy().tobytes(), crc32(str(held.shape).encode(), found))
    return found
