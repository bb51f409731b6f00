"""Data parallel: every worker holds the dense network; gradients are averaged in every backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from isthmus.errors import WorkerError
from isthmus.strategies import Strategy
from isthmus.trainer.strategies.buckets import Buckets, buckets_of, room_of
from isthmus.trainer.strategies.interface import Commit, State, Worker
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, trained_parameters
from isthmus.trainer.wire.exchange import Driving, Program
from isthmus.trainer.wire.layout import Layout
from isthmus.trainer.wire.meter import Traffic
from isthmus.trainer.wire.tensors import DEALT, mean_as_they_come, parts_of, send_tensors, wire_of


class DataParallelPart(LocalSGDPart):
    """One worker of synchronous data-parallel training.

    All take the same steps from the same weights. A worker whose loop has ended before the others' takes none: it is
    behind, and is sent the weights when the round is closed. As gradients are averaged, and not blocks, no worker has
    a block of its own that could be refused: what is wrong with one is wrong with all.

    Gradients travel in buckets while others are still computed, the last layers' first. Until a backward pass has come
    to its end ``grad`` of what is on its way is None; after it, it lies in its bucket.
    """

    averages = True
    _synchronized = True
    _passing: _Pass | None = None

    def __init__(self, strategy: Strategy, worker: Worker) -> None:
        super().__init__(strategy, worker)
        self._buckets = Buckets(worker.device)

    def beside(self) -> Sequence[Tensor]:
        """Return the memory for what comes of others' gradients; its own lie in their buckets."""
        return self._buckets.rooms

    def _beside(self, module: nn.Module) -> tuple[int, int]:
        """Return the bytes of the above, and those that are on the way at a time."""
        trained, worker = trained_parameters(module), self._worker
        if worker.link.workers == 1 or not trained:
            return 0, 0
        buckets = buckets_of(trained)
        kept = (DEALT + 1) * room_of(buckets, worker.link.workers, worker.wire)
        short = 0 if worker.wire is None else sum(p.numel() * worker.wire.itemsize for p in trained.values())
        return kept, short + max(_bytes(bucket) for bucket in buckets)  # as they are computed, beside their bucket

    def attach(self, meet: Callable[[], Driving[None]]) -> None:
        """Have every backward pass meet the others with its first gradient, and average all."""
        for name, parameter in trained_parameters(self.module).items():
            parameter.register_post_accumulate_grad_hook(partial(self._grown, meet, name))

    @contextmanager
    def accumulating(self) -> Iterator[None]:
        """Leave gradients as they are in backward passes inside the block."""
        self._synchronized = False
        try:
            yield
        finally:
            self._synchronized = True

    def complete(self) -> None:
        """Refuse a step in the middle of a backward pass.

        Raises:
            WorkerError: the last one has not come to its end.
        """
        if self._passing is not None:
            raise WorkerError(
                f"worker {self._worker.link.seat}: a backward pass has not come to its end (has it failed?), and the "
                "others wait for its gradients: with strategy 'data-parallel' a step cannot be left out by one worker"
            )

    def _grown(self, meet: Callable[[], Driving[None]], name: str, _: Tensor) -> None:
        """After a gradient has got its value in a backward pass."""
        if not self._synchronized or self._worker.link.workers == 1:
            return
        if self._passing is None:
            self._passing = _Pass(buckets_of(trained_parameters(self.module)), meet)
            torch.autograd.Variable._execution_engine.queue_callback(partial(self._whole, meet))
            self._passing.driving.go()  # the meeting is begun
        self._passing.grown(name)

    def _whole(self, meet: Callable[[], Driving[None]]) -> None:
        """After a backward pass."""
        passing = self._passing
        assert passing is not None
        passing.driving.finish()
        if passing.again:
            meet().finish()
        self._passing = None

    def average(self, state: State, module: nn.Module, active: Callable[[], Program[Sequence[int]]]) -> Program[None]:
        """Replace the gradients of the active workers by their mean; a parameter without one counts as zero.

        All that train in the round send something, as who is active is known only when the first gradients are on
        their way.
        """
        link, parameters, round = self._worker.link, trained_parameters(module), state.round
        here = self._passing is not None
        assert round is not None
        averaging: Sequence[int] = ()
        memory, buckets, wire = self._buckets, buckets_of(parameters), self._worker.wire
        memory.arrange(buckets, room_of(buckets, link.workers, wire))

        def own(bucket: Layout) -> Tensor:
            return memory.collect(bucket, parameters) if here else memory.nothing(bucket)

        def take(bucket: Layout) -> None:
            if here:
                memory.give(bucket, parameters)

        def whose() -> Program[Sequence[int]]:
            nonlocal averaging
            averaging = yield from active()
            return averaging

        yield from mean_as_they_come(buckets, own, link, round.active, whose, take, memory.rooms, wire)
        state.stale |= frozenset(range(link.workers)) - frozenset(averaging)

    def step_traffic(self, module: nn.Module) -> Traffic:
        """Return that of a mean over all workers: its share of every worker's gradients, and the shares' means.

        A reduce-scatter and an all-gather of all buckets; for the last one's two hops it is waited. The meeting is on
        its way beside them.
        """
        workers, trained = self._worker.link.workers, trained_parameters(module)
        if workers == 1 or not trained:
            return Traffic()
        wire, index = self._worker.wire, self._worker.link.index
        found = Traffic()
        for bucket in buckets_of(trained):
            ((dtype, numbers),), before = bucket.sizes.items(), found
            size = (wire_of(dtype, wire) or dtype).itemsize
            for part in parts_of(numbers, dtype):
                own = part // workers + (index < part % workers)  # as tensor_split deals it
                moved = size * (part - own + (workers - 1) * own)
                found += Traffic(moved, moved)
        return replace(found, hops=2, beside=before.sent)  # all buckets but the last

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


class _Pass:
    """One backward pass: which gradients are there, and how far their mean is.

    Attributes:
        driving: the program that takes the mean; it waits for one bucket after the other.
        again: whether there was a second gradient of a parameter whose first was already on its way.
    """

    def __init__(self, buckets: Sequence[Layout], meet: Callable[[], Driving[None]]) -> None:
        self._missing = [{name for name, *_ in bucket.entries} for bucket in buckets]
        self._bucket = {name: number for number, names in enumerate(self._missing) for name in names}
        self._sent = 0
        self.again = False
        self.driving = meet()

    def grown(self, name: str) -> None:
        """Note a gradient, and send off the buckets that are full."""
        number = self._bucket[name]
        self.again |= number < self._sent
        self._missing[number].discard(name)
        while self._sent < len(self._missing) and not self._missing[self._sent]:
            self._sent += 1
            self.driving.go()


def _bytes(bucket: Layout) -> int:
    return sum(dtype.itemsize * size for dtype, size in bucket.sizes.items())
