"""Data parallel: every worker holds the dense network; gradients are averaged in every backward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from isthmus.trainer.strategies.interface import Commit, State
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, trained_parameters
from isthmus.trainer.wire.exchange import Program
from isthmus.trainer.wire.meter import Traffic
from isthmus.trainer.wire.tensors import mean_over_workers, send_tensors, together


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
            if here and own[name].is_contiguous():
                parameters[name].grad = mean  # a view of what came: no copy of it
            elif here:
                parameters[name].grad = own[name].copy_(mean)

        yield from mean_over_workers(own, link, active, take, self._worker.wire)
        state.stale |= frozenset(range(link.workers)) - frozenset(active)

    def step_traffic(self, module: nn.Module) -> Traffic:
        """Return that of a mean over all workers: its share of every worker's gradients, and the shares' means.

        A reduce-scatter and an all-gather of all gradients, some of them at a time, and a meeting before.
        """
        workers, trained = self._worker.link.workers, trained_parameters(module)
        if workers == 1 or not trained:
            return Traffic()
        wire, index = self._worker.wire, self._worker.link.index
        sent = received = 0
        groups = together(trained)
        for names in groups:
            first = trained[names[0]]
            size = first.element_size() if wire is None or not first.is_floating_point() else wire.itemsize
            whole = sum(trained[name].numel() for name in names)
            own = whole // workers + (index < whole % workers)  # as tensor_split deals it
            others = whole - own
            sent += size * (others + (workers - 1) * own)
            received += size * ((workers - 1) * own + others)
        return Traffic(sent, received, 1 + 2 * len(groups))

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
