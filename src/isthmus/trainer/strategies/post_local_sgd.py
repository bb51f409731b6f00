"""torch's post-local SGD: its hook averages gradients for some steps, then its averager weights after each round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.post_localSGD_hook import PostLocalSGDState, post_localSGD_hook
from torch.distributed.algorithms.model_averaging.utils import average_parameters

from isthmus.nets.pieces.ownership import Held
from isthmus.strategies import DDP, PostLocalSGD
from isthmus.trainer.strategies.ddp import DDPPart, Hook
from isthmus.trainer.strategies.interface import Commit, State, Worker
from isthmus.trainer.strategies.local_sgd import tensors_of, trained_parameters
from isthmus.trainer.wire.exchange import Program
from isthmus.trainer.wire.meter import Traffic


class PostLocalSGDPart(DDPPart):
    """One worker of torch's post-local SGD, each on a node of its own.

    When weights are averaged is the rounds' affair, so it is torch's average without its counter of steps
    (``PeriodicModelAverager`` would skip a round that ends early).
    """

    def __init__(self, strategy: PostLocalSGD, worker: Worker) -> None:
        super().__init__(DDP(), worker)
        self._first = strategy.start
        self._torch: PostLocalSGDState | None = None

    def _beside(self, module: nn.Module) -> tuple[int, int]:
        whole = sum(each.numel() * each.element_size() for each in trained_parameters(module).values())
        return 0, 0 if self._worker.link.workers == 1 else whole + whole // self._worker.link.workers

    def close(self, state: State, module: nn.Module, refused: Sequence[int]) -> Program[Commit]:
        """Have torch average the weights, if workers went their own ways."""
        native, trained = self.native, list(trained_parameters(self.module).values())
        if native is not None and self._alone:
            native.expect(self.round_traffic(self.module))
            with native.waiting():
                average_parameters(iter(trained), native.group)
            state.tensors = tensors_of(self.module)  # torch has put others in their places
        return (yield from super().close(state, module, refused))

    def restore(self, state: State, piece: Callable[[str, Held], Tensor]) -> None:
        """Know how many steps were made, and have torch know it."""
        super().restore(state, piece)
        if self._torch is not None:
            self._torch.iter = min(state.steps, self._first)

    def step_traffic(self, module: nn.Module) -> Traffic:
        """Return that of the present step: nothing once workers are on their own."""
        return super().step_traffic(module) if self._travels() else Traffic()

    def round_traffic(self, module: nn.Module) -> Traffic:
        """Return that of an all-reduce of the weights."""
        if self._worker.link.workers == 1:
            return Traffic()
        return self._reduced(sum(each.numel() * each.element_size() for each in trained_parameters(module).values()))

    @property
    def _alone(self) -> bool:
        """Whether workers have made a step on their own."""
        return self._steps > self._first

    def _travels(self) -> bool:
        return self._steps < self._first

    def _hooked(self) -> tuple[Hook, Any]:
        native = self.native
        assert native is not None
        self._torch = PostLocalSGDState(native.group, None, self._first, False)
        return post_localSGD_hook, self._torch
