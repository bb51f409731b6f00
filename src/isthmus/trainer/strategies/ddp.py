"""torch's DistributedDataParallel: its reducer, its hooks; around it, what it moves and how long that is waited for."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch.distributed as dist
import torch.futures
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook, fp16_compress_hook
from torch.distributed.algorithms.ddp_comm_hooks.powerSGD_hook import PowerSGDState, _should_compress, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

from isthmus.errors import InvalidInput
from isthmus.nets.pieces.ownership import Held
from isthmus.strategies import DDP
from isthmus.trainer.strategies.interface import Commit, Needs, State, Worker, closed
from isthmus.trainer.strategies.layers import leaves_out
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, trained_parameters
from isthmus.trainer.task.initial import copied, like
from isthmus.trainer.wire.exchange import Program
from isthmus.trainer.wire.meter import Traffic
from isthmus.trainer.wire.native import Native, all_reduce

Hook = Callable[[Any, dist.GradBucket], torch.futures.Future[Tensor]]
_FIRST, _BUCKET = 1 << 20, 25 << 20  # bytes from which on torch closes a bucket: the first, and the others


class DDPPart(LocalSGDPart):
    """One worker of torch's data parallel. All must make the same number of steps.

    The wrapper is what the loop calls, and all else (optimizer, checkpoint, the network to use) sees the network in it
    under its own names. Buffers are not sent at every step, as torch does by default: statistics of norms are measured
    anew before the network is used. One worker alone trains the network as it is.
    """

    def __init__(self, strategy: DDP, worker: Worker) -> None:
        super().__init__(strategy, worker)
        self._choice = strategy
        self._powersgd: PowerSGDState | None = None
        self._wrapper: DistributedDataParallel | None = None
        self._steps = 0  # whose gradients have begun to travel
        self._on_the_way = _Pending()
        self._in_turn: torch.futures.Future[Tensor] | None = None  # the bucket before, where one has to wait for it

    @property
    def called(self) -> nn.Module:
        """The wrapper."""
        return self._wrapper or self.module

    def accumulating(self) -> AbstractContextManager[None]:
        """Return torch's own ``no_sync``."""
        return nullcontext() if self._wrapper is None else self._wrapper.no_sync()

    def needs(self, skeleton: nn.Module) -> Needs:
        """Return what it will hold: the whole network; its gradients are the buckets."""
        module = copied(skeleton, lambda name, tensor: like(tensor, self._worker.device))
        return Needs(module, *self._beside(module))

    def beside(self) -> Sequence[Tensor]:
        """Return what PowerSGD remembers."""
        kept = self._powersgd
        if kept is None:
            return ()
        return [each for one in (kept.error_dict, kept.p_memory_dict, kept.q_memory_dict) for each in one.values()]

    def _beside(self, module: nn.Module) -> tuple[int, int]:
        trained, workers = list(trained_parameters(module).values()), self._worker.link.workers
        if workers == 1:
            return 0, 0
        whole = sum(each.numel() * each.element_size() for each in trained)
        if self._choice.hook == "powersgd":
            thin = sum(sum(self._factors(each)) * each.element_size() for each in trained)
            return whole + thin, whole + thin  # the error; of every bucket a copy, to know the next error
        return 0, (whole // 2 if self._choice.hook == "fp16" else 0) + min(whole, _BUCKET) // workers

    def start(self) -> Program[State]:
        """Make the network, the same on all workers, and wrap it."""
        state = yield from super().start()
        if not trained_parameters(self.module):
            raise InvalidInput("`network` must have parameters that are trained, for torch's DistributedDataParallel")
        worker = self._worker
        if worker.link.workers > 1:
            self.native = worker.link.native()
            with warnings.catch_warnings():  # in newer releases the flag that says the same has another name
                warnings.simplefilter("ignore", FutureWarning)
                self._wrapper = DistributedDataParallel(
                    self.module,
                    process_group=self.native.group,
                    init_sync=False,
                    broadcast_buffers=False,
                    gradient_as_bucket_view=True,
                    find_unused_parameters=leaves_out(worker.network.skeleton(), worker.network.example),
                )
            self._wrapper.register_comm_hook(self._hooked(), lambda state, bucket: self._travel(state, bucket))
        return state

    def close(self, state: State, module: nn.Module, refused: Sequence[int]) -> Program[Commit]:
        """Do nothing: all workers have made the same steps."""
        yield from ()
        return closed(state)

    def block(self) -> dict[str, Tensor]:
        """Return nothing: gradients are averaged, and no worker has a block of its own."""
        return {}

    def restore(self, state: State, piece: Callable[[str, Held], Tensor]) -> None:
        """Know how many steps were made."""
        self._steps = state.steps
        if self._powersgd is not None:  # torch orders gradients anew after the first step of a process
            self._powersgd.iter = min(state.steps, self._powersgd.start_powerSGD_iter - 2)

    def step_traffic(self, module: nn.Module) -> Traffic:
        """Return that of the all-reduces of all buckets."""
        found = before = Traffic()
        for bucket in buckets(list(trained_parameters(module).values())) if self._worker.link.workers > 1 else ():
            before = found
            found += self._bucket_traffic(bucket)
        return replace(found, beside=max(before.sent, before.received))

    def _hooked(self) -> tuple[Hook, Any]:
        native, choice = self.native, self._choice
        assert native is not None
        if choice.hook == "powersgd":
            assert choice.powersgd_rank is not None
            assert choice.powersgd_start is not None
            self._powersgd = PowerSGDState(native.group, choice.powersgd_rank, choice.powersgd_start)
            return powerSGD_hook, self._powersgd
        return fp16_compress_hook if choice.hook == "fp16" else allreduce_hook, native.group

    def _travels(self) -> bool:
        """Whether gradients travel in the present step."""
        return True

    def _bucket_traffic(self, bucket: Sequence[Tensor]) -> Traffic:
        """Return what a worker moves to average the gradients of some parameters."""
        if self._choice.hook == "fp16":
            return self._reduced(2 * sum(each.numel() for each in bucket))
        warm = self._powersgd is not None and self._powersgd.iter < self._powersgd.start_powerSGD_iter
        if self._choice.hook != "powersgd" or warm:
            return self._reduced(sum(each.numel() * each.element_size() for each in bucket))
        plain, first, second = 0, 0, 0
        for each in bucket:
            rows, columns = self._factors(each)
            size = each.element_size()
            first, second = first + rows * size, second + columns * size
            plain += 0 if rows else each.numel() * size
        found = Traffic()
        for size in (plain, first, second):
            found += self._reduced(size)
        return found

    def _factors(self, parameter: Tensor) -> tuple[int, int]:
        """Return how many numbers the two factors of a gradient have; none where torch does not shorten it."""
        rank = self._choice.powersgd_rank
        assert rank is not None
        rows = parameter.shape[0] if parameter.dim() else 1
        columns = parameter.numel() // max(1, rows)
        rank = min(rows, columns, rank)
        return (rows * rank, columns * rank) if _should_compress(rows, columns, rank, 2)[0] else (0, 0)

    def _reduced(self, size: float) -> Traffic:
        return all_reduce(size, self._worker.link.workers, self._worker.device.type == "cpu")

    def _travel(self, hook: tuple[Hook, Any], bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """Have torch's hook average a bucket, and note what that moves, and how long the backward pass waits for it."""
        native, pending = self.native, self._on_the_way
        assert native is not None
        if not self._travels():
            return self._call(hook, bucket)
        native.expect(self._bucket_traffic(bucket.parameters()))
        pending.add()
        if self._powersgd is not None and self._in_turn is not None:
            # Its second all-reduce is begun when the first has come: with several buckets on the way workers would
            # begin theirs in different orders, and torch would mix them up.
            with native.waiting():
                self._in_turn.wait()
        self._in_turn = found = self._call(hook, bucket)
        if bucket.is_last():
            pending.last(native)

        def arrived(future: torch.futures.Future[Tensor]) -> Tensor:
            pending.remove(native)
            return future.value()

        return found.then(arrived)

    def _call(self, hook: tuple[Hook, Any], bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        self._steps += bucket.is_last()
        return hook[0](hook[1], bucket)


class _Pending:
    """Buckets on the way: what comes after the last has been sent is waited for."""

    def __init__(self) -> None:
        self._lock, self._number = threading.Lock(), 0

    def add(self) -> None:
        """Note that one is sent."""
        with self._lock:
            self._number += 1

    def last(self, native: Native) -> None:
        """Note that all are."""
        with self._lock:
            if self._number:
                native.begin()

    def remove(self, native: Native) -> None:
        """Note that one has come."""
        with self._lock:
            self._number -= 1
            if not self._number:
                native.end()


def buckets(parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return which gradients torch averages together, from the second step on: the last parameter's come first."""
    found: list[list[Tensor]] = []
    size, most = _FIRST, _FIRST
    for parameter in reversed(parameters):
        if size >= most:
            most = _BUCKET if found else _FIRST
            found.append([])
            size = 0
        found[-1].append(parameter)
        size += parameter.numel() * parameter.element_size()
    return found
