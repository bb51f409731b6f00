"""Data parallel: every worker holds the dense network; gradients are averaged in every backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from isthmus.errors import WorkerError
from isthmus.trainer.strategies.interface import Commit, State
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, trained_parameters
from isthmus.trainer.wire.exchange import Driving, Program
from isthmus.trainer.wire.meter import Traffic
from isthmus.trainer.wire.tensors import DEALT, mean_as_they_come, send_tensors

BUCKET = 1 << 19  # bytes of gradients that travel together, at least


class DataParallelPart(LocalSGDPart):
    """One worker of synchronous data-parallel training.

    All take the same steps from the same weights. A worker whose loop has ended before the others' takes none: it is
    behind, and is sent the weights when the round is closed. As gradients are averaged, and not blocks, no worker has
    a block of its own that could be refused: what is wrong with one is wrong with all.

    Gradients travel in buckets while others are still computed, the last layers' first. Until a backward pass has come
    to its end ``grad`` of what is on its way is None.
    """

    averages = True
    _synchronized = True
    _passing: _Pass | None = None

    def _beside(self, module: nn.Module) -> tuple[int, int]:
        """Return the bytes that are on the way at a time: gradients lie in their buckets."""
        trained, worker = trained_parameters(module), self._worker
        if worker.link.workers == 1 or not trained:
            return 0, 0
        sizes = {name: p.numel() * p.element_size() for name, p in trained.items()}
        most = max(sum(sizes[name] for name in names) for names in _buckets(module))
        short = 0 if worker.wire is None else sum(p.numel() * worker.wire.itemsize for p in trained.values())
        return 0, short + (DEALT + 2) * most  # packed beside the gradients, and received of one's own shares

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
            self._passing = _Pass(_buckets(self.module), meet)
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
        scattered: dict[str, Tensor] = {}  # gradients of another layout in memory than that of their numbers

        def own(names: Sequence[str]) -> Mapping[str, Tensor]:
            if not here:
                return {name: torch.zeros_like(parameters[name]) for name in names}
            found = {}
            for name in names:
                parameter = parameters[name]
                found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = None  # it may get another before the mean has come
                if not found[name].is_contiguous():
                    scattered[name] = found[name]
            return found

        def take(name: str, mean: Tensor) -> None:
            if here:
                found = scattered[name].copy_(mean) if name in scattered else mean  # a view of what came: no copy of it
                more = parameters[name].grad
                parameters[name].grad = found if more is None else more + found

        def whose() -> Program[Sequence[int]]:
            nonlocal averaging
            averaging = yield from active()
            return averaging

        yield from mean_as_they_come(_buckets(module), own, link, round.active, whose, take, self._worker.wire)
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
        for names in _buckets(module):
            before, first = found, trained[names[0]]
            size = first.element_size() if wire is None or not first.is_floating_point() else wire.itemsize
            whole = sum(trained[name].numel() for name in names)
            own = whole // workers + (index < whole % workers)  # as tensor_split deals it
            others = whole - own
            moved = size * (others + (workers - 1) * own)
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

    def __init__(self, buckets: Sequence[Sequence[str]], meet: Callable[[], Driving[None]]) -> None:
        self._missing = [set(names) for names in buckets]
        self._bucket = {name: number for number, names in enumerate(buckets) for name in names}
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


def _buckets(module: nn.Module) -> list[list[str]]:
    """Return which gradients travel together, in about the order in which a backward pass computes them: of one type,
    of at least ``BUCKET`` bytes but for the last."""
    found: dict[torch.dtype, list[list[str]]] = {}
    sizes: dict[torch.dtype, int] = {}
    for name, parameter in reversed(trained_parameters(module).items()):
        kind = parameter.dtype
        if sizes.get(kind, BUCKET) >= BUCKET:
            found.setdefault(kind, []).append([])
            sizes[kind] = 0
        found[kind][-1].append(name)
        sizes[kind] += parameter.numel() * parameter.element_size()
    return [names for buckets in found.values() for names in buckets]
