"""Showing the merged network to use: in its place where every worker holds it, else read from where it lives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from isthmus.errors import WorkerError
from isthmus.nets.pieces.pattern import Pattern
from isthmus.nets.scale.norms import measure
from isthmus.trainer.local.heap import apart
from isthmus.trainer.local.recent import Recent, call_with
from isthmus.trainer.rounds.members import Members
from isthmus.trainer.store.away import Away
from isthmus.trainer.store.reader import Reader, Span
from isthmus.trainer.store.serve import Housed, Service
from isthmus.trainer.store.whole import ready
from isthmus.trainer.strategies import State, Worker
from isthmus.trainer.task.initial import copied, whole
from isthmus.trainer.wire.exchange import Exchange, Program, all_gather


@dataclass
class View:
    """One worker's view of the merged network.

    Attributes:
        worker, members: whose.
        drive: runs a program over the worker's link.
        recent: the latest batches, where the network has statistics to measure.
        batches: what to measure them on instead.
        shown: whether it is shown now.
    """

    worker: Worker
    members: Members
    drive: Callable[[Program[Any]], Any]
    recent: Recent | None = None
    batches: Sequence[Any] | None = None
    shown: bool = field(default=False, init=False)

    @contextmanager
    def show(self, state: State, everywhere: bool, factor: float = 1.0) -> Iterator[nn.Module | None]:
        """Yield the network to use on worker 0 and, if it is shown everywhere, on the others; else None.

        All workers enter, and have settled. Inside the block they serve each other; it ends when all are done, and
        everything is as before.

        Args:
            state: of this worker, between rounds.
            everywhere: whether the others look too.
            factor: for weights whose sums no norm follows.
        """
        part = self.members.part
        merged = part.merged(state)
        scales = {name: scale * factor if name in merged.open else scale for name, scale in merged.scales.items()}
        if merged.model is not None:
            shown = ready(merged.model, scales, self._measure)
        else:
            assert part.store is not None
            shown = self._afar(part.store, state, scales, merged.skeleton or self.worker.network.skeleton)
        with apart(), shown as model:
            self.shown = True
            try:
                yield model if everywhere or self.worker.link.index == 0 else None
            finally:
                self.shown = False

    def scale(self, state: State) -> float:
        """Return the mean factor on weights that no norm follows."""
        merged = self.members.part.merged(state)
        if not merged.open:
            return 1.0
        return math.fsum(float(merged.scales[name].double().mean()) for name in merged.open) / len(merged.open)

    @contextmanager
    def _afar(
        self, store: Housed, state: State, scales: Mapping[str, Pattern], skeleton: Callable[[], nn.Module]
    ) -> Iterator[nn.Module]:
        """Yield the network with parameters that are away; buffers are here."""
        link, device = self.worker.link, self.worker.device
        service, members = Service(store, state.tensors, link, device), self.members

        def fetch(span: Span) -> dict[str, Tensor]:
            found: dict[str, Tensor] = self.drive(members.again(lambda: service.fetch(span)))
            return found

        def serve() -> None:
            self.drive(members.until(service.serve))

        reader = Reader(store.homes, store.types, fetch, scales, link.index)
        network = self.worker.network

        def stand_in(name: str, tensor: Tensor) -> Tensor:
            if name in store.fixed:
                return store.fixed[name].clone()
            if name not in store.homes.shapes:  # an attribute that is no buffer
                return (whole(network.initial, name, tensor) if tensor.is_meta else tensor.detach().clone()).to(device)
            away = isinstance(tensor, nn.Parameter)
            return Away.standing_for(tensor, name, reader, device) if away else reader.value(name).clone()

        model = copied(skeleton(), stand_in).eval()
        if store.statistics:
            counts = self._measured(model)
            serve()
            self._together(model, counts)
        try:
            yield model
        except WorkerError:
            raise
        except Exception:
            serve()
            raise
        else:
            serve()
        finally:
            reader.close()

    def _measure(self, model: nn.Module) -> None:
        """Measure the statistics of norms, each worker on its own batches."""
        if any(True for _ in model.buffers()):
            self._together(model, self._measured(model))

    def _measured(self, model: nn.Module) -> dict[str, int]:
        """Measure statistics on this worker's batches, leaving the user's generators as they are.

        Returns by the name of a buffer how many calls of its norm are in it.
        """
        device = self.worker.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            torch.manual_seed(0)  # a network may draw numbers in evaluation too
            if self.batches is not None:
                return measure(model, self.batches, lambda batch: call_with(model, batch))
            if self.recent is not None and (calls := self.recent.calls()):
                return measure(model, calls, lambda call: call.repeat(model))
        return {}

    def _together(self, model: nn.Module, counts: Mapping[str, int]) -> None:
        """Make of what each worker has measured the mean over all calls, in the workers' order."""
        self.drive(self.members.act(lambda: self._meaned(dict(model.named_buffers()), counts)))

    def _meaned(
        self, buffers: Mapping[str, Tensor], counts: Mapping[str, int]
    ) -> Program[tuple[Callable[[], None], None]]:
        link, means = self.worker.link, dict[str, Tensor]()
        if link.workers > 1:
            own = torch.tensor([counts.get(n, 0) for n in buffers], dtype=torch.int64, device=self.worker.device)
            found = yield from all_gather(own, link, counted=False)
            for (name, buffer), calls in zip(buffers.items(), torch.stack(found, 1).tolist(), strict=True):
                if any(calls):
                    sent = buffer.detach().reshape(-1)
                    values = yield Exchange((sent,) * link.workers, (sent.numel(),) * link.workers, viewing=True)
                    means[name] = _mean(values, calls).view(buffer.shape)

        def commit() -> None:
            with torch.no_grad():
                for name, mean in means.items():
                    buffers[name].copy_(mean)

        return commit, None


def _mean(values: list[Tensor], weights: list[int]) -> Tensor:
    """Return the weighted mean as first + sum of drifts: of one alone, and of equal ones, the very bits."""
    (first, _), *others = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight]
    drift = torch.zeros_like(first)
    for value, weight in others:
        drift += (value - first) * (weight / sum(weights))
    return first + drift
