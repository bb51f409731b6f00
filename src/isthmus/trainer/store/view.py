"""Showing the merged network to use: on worker 0 in its place, on the others as a copy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from isthmus.nets import recalibrate
from isthmus.nets.subnetwork import named_state
from isthmus.trainer.local.recent import Recent, call_with
from isthmus.trainer.store.whole import ready
from isthmus.trainer.strategies import Part, State, Worker
from isthmus.trainer.wire.exchange import Exchange, Program, broadcast


@dataclass
class View:
    """One worker's view of the merged network.

    Attributes:
        worker, part: whose.
        drive: runs a program over the worker's link.
        recent: the latest batches, on worker 0, where the network has statistics to measure.
        batches: what to measure them on instead.
    """

    worker: Worker
    part: Part
    drive: Callable[[Program[None]], None]
    recent: Recent | None = None
    batches: list[Any] | None = None

    @contextmanager
    def show(self, state: State, everywhere: bool, factor: float = 1.0) -> Iterator[nn.Module | None]:
        """Yield the network to use on worker 0; on the others a copy of it if it is shown everywhere, or None.

        All workers enter. After the block everything is as before.

        Args:
            state: of this worker, between rounds.
            everywhere: whether the others are sent what they do not have.
            factor: for weights whose sums no norm follows.
        """
        first = self.worker.link.index == 0
        if self.part.store is not None:
            self.drive(self.part.settle(state))
            shell = self.worker.network.shell()
            self.drive(self._gather(shell, state))
            if not (first or everywhere):
                yield None
                return
            merged = replace(self.part.merged(state), model=shell)
            with ready(merged, self._measure if first else self._receive, factor) as model:
                if first and everywhere:
                    self.drive(self._share(model))
                yield model
            return
        if not first and not everywhere:
            yield None
        else:
            with ready(self.part.merged(state), self._measure if first else self._receive, factor) as model:
                if first and everywhere:
                    self.drive(self._share(model))
                yield model

    def _gather(self, shell: nn.Module, state: State) -> Program[None]:
        store, link, tensors = self.part.store, self.worker.link, dict(named_state(shell))
        assert store is not None
        for name, tensor in tensors.items():
            if name in store._fixed:
                tensor.data.copy_(store._fixed[name])
        for name in store.homes.shapes:
            tensor = tensors[name].detach()
            send = state.tensors.get(name, tensor.new_empty(0)).reshape(-1)
            rows = [store.homes.rows(name, worker) for worker in range(link.workers)]
            sizes = [math.prod(tensor.shape[1:]) * (stop - start) for start, stop in rows]
            got = yield Exchange((send,) * link.workers, tuple(sizes), counted=False)
            tensor.copy_(torch.cat(got).view(tensor.shape))

    def scale(self, state: State) -> float:
        """Return the mean factor on weights that no norm follows, on worker 0."""
        merged = self.part.merged(state)
        if not merged.open:
            return 1.0
        return math.fsum(float(merged.scales[name].double().mean()) for name in merged.open) / len(merged.open)

    def _receive(self, model: nn.Module) -> None:
        self.drive(self._share(model))

    def _share(self, model: nn.Module) -> Program[None]:
        """Send what the others do not have of the network to use, a tensor at a time, tied ones once."""
        link, tensors = self.worker.link, dict(named_state(model))
        if self.part.store is None:  # all but what was measured just now
            names = [name for name, _ in model.named_buffers()]
        else:
            names = [name for name, *_ in self.worker.network.outline]
        with torch.no_grad():
            for name in names:
                flat = tensors[name].detach().reshape(-1)
                got = yield from broadcast(flat, 0, link, range(1, link.workers))
                if link.index != 0:
                    tensors[name].copy_(got.view(tensors[name].shape))

    def _measure(self, model: nn.Module) -> None:
        """Measure the statistics of norms, leaving the user's generators as they are."""
        device = self.worker.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(0)  # a network may draw numbers in evaluation too
            if self.batches is not None:
                recalibrate(model, self.batches, lambda batch: call_with(model, batch))
            elif self.recent is not None and (calls := self.recent.calls()):
                recalibrate(model, calls, lambda call: call.repeat(model))
