"""Data parallel: every worker holds the dense network; gradients are averaged in every backward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isthmus.trainer.strategies.interface import Commit, State
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, trained_parameters
from isthmus.trainer.wire.exchange import Program
from isthmus.trainer.wire.tensors import mean_over_workers, send_tensors


class DataParallelPart(LocalSGDPart):
    """One worker of synchronous data-parallel training.

    All take the same steps from the same weights. A worker whose loop has ended before the others' takes none: it is
    behind, and is sent the weights when the round is closed. As gradients are averaged, and not blocks, no worker has
    a block of its own that could be refused: what is wrong with one is wrong with all.
    """

    averages = True

    def average(self, state: State, module: nn.Module, active: Sequence[int]) -> Program[None]:
        """Replace the gradients of the active workers by their mean; a parameter without one counts as zero."""
        link, parameters = self._worker.link, trained_parameters(module)
        if link.workers == 1:
            return
        own = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters.items()}
        here = link.index in active

        def take(name: str, mean: Tensor) -> None:
            if here:
                own[name].copy_(mean)
                parameters[name].grad = own[name]

        yield from mean_over_workers(own, link, active, take, self._worker.wire)
        state.stale |= frozenset(range(link.workers)) - frozenset(active)

    def block(self) -> dict[str, Tensor]:
        """Return nothing."""
        return {}

    def close(self, state: State, module: nn.Module, refused: Sequence[int]) -> Program[Commit]:
        """Send the weights to those that are behind."""
        round = state.round
        assert round is not None
        fresh = min(set(range(self._worker.link.workers)) - state.stale)
        link, device = self._worker.link, self._worker.device
        yield from send_tensors(state.tensors, fresh, link, device, sorted(state.stale))

        def commit() -> None:
            state.number, state.round, state.made, state.stale = round.number + 1, None, 0, frozenset()

        return commit
