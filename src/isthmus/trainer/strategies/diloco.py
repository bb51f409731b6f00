"""DiLoCo: local training, and the mean change as the gradient of an outer step."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from isthmus.strategies import DiLoCo
from isthmus.trainer.store.rehome import Move, Saved
from isthmus.trainer.strategies.interface import Commit, Merged, Needs, Round, State, Worker
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, tensors_of, trained_parameters
from isthmus.trainer.task.initial import copied, like
from isthmus.trainer.wire.exchange import Program
from isthmus.trainer.wire.tensors import mean_over_workers, send_tensors, together

_MOMENTUM, _OWN = "outer momentum of ", "own "  # tensors of the state, before a parameter's name


class DiLoCoPart(LocalSGDPart):
    """One worker of DiLoCo. It has two networks: the one it trains, and the outer one, the same on all workers.

    In the state a parameter's name stands for the outer one. Where workers do not average all of the network after
    every round, they differ in between: each has its own beside it.
    """

    def __init__(self, strategy: DiLoCo, worker: Worker) -> None:
        super().__init__(strategy, worker)
        self._strategy = strategy
        self._outer = nn.Module()  # until the start

    def needs(self, skeleton: nn.Module) -> Needs:
        """Return what it will hold: the network, the outer one and its momentum, and what is averaged of it."""
        module = copied(skeleton, lambda name, tensor: like(tensor, self._worker.device))
        trained = trained_parameters(module)
        sizes = {name: parameter.numel() * parameter.element_size() for name, parameter in trained.items()}
        kept = sum(p.numel() * p.element_size() for p in module.parameters()) + sum(sizes.values())
        moved = 0
        for names in fragments(trained, self._strategy.fragments):
            part = {name: trained[name] for name in names}
            most = max((sum(sizes[name] for name in packed) for packed in together(part)), default=0)
            changes = 2 * sum(sizes[name] for name in names)  # and their means
            moved = max(moved, changes + 4 * most + most // self._worker.link.workers)
        return Needs(module, kept, moved)

    def start(self) -> Program[State]:
        """Make the network, on all workers the same."""
        yield from super().start()
        return self._state()

    def come(self) -> State:
        """Make the network; what it is now comes with the move."""
        super().come()
        return self._state()

    def _state(self) -> State:
        trained = trained_parameters(self.module)
        beginning = {name: nn.Parameter(parameter.detach().clone()) for name, parameter in trained.items()}
        self._outer = copied(self.module, lambda name, tensor: beginning.get(name, tensor))
        outer = trained_parameters(self._outer)
        self._step = torch.optim.SGD(
            outer.values(), self._strategy.outer_lr, self._strategy.outer_momentum,
            nesterov=self._strategy.outer_momentum > 0,
        )  # fmt: skip
        tensors = tensors_of(self._outer)
        if self._strategy.outer_momentum:
            for name, parameter in outer.items():
                tensors[_MOMENTUM + name] = momentum = torch.zeros_like(parameter)
                self._step.state[parameter]["momentum_buffer"] = momentum
        if self._strategy.fragments > 1:
            tensors |= {_OWN + name: parameter.detach() for name, parameter in trained.items()}
        return State(tensors)

    @property
    def common(self) -> Collection[str]:
        """The outer parameters and their momentum."""
        names = [name for name, _ in self.module.named_parameters()]
        return {*names, *(_MOMENTUM + name for name in names)}

    def open(self, state: State, round: Round) -> Program[Commit]:
        """Begin."""
        yield from ()

        def commit() -> None:
            state.round, state.made = round, 0

        return commit

    def close(self, state: State, module: nn.Module, refused: Sequence[int]) -> Program[Commit]:
        """Take the mean of what the workers that trained have changed as the gradient of an outer step.

        Those refused go on from the outer network, with the buffers of another.
        """
        worker, round = self._worker, state.round
        assert round is not None
        active = [number for number in round.active if number not in refused]
        inner, outer = trained_parameters(module), trained_parameters(self._outer)
        parts = fragments(inner, self._strategy.fragments)
        names = parts[round.number % len(parts)]
        means: dict[str, Tensor] = {}
        own = {name: outer[name].detach() - inner[name].detach() for name in names}
        yield from mean_over_workers(own, worker.link, active, means.__setitem__, worker.wire)
        del own
        buffers = {name: tensor for name, tensor in self._buffers(state).items() if refused}
        sound = {name: t.clone() for name, t in buffers.items()} if worker.link.index in refused else buffers
        yield from send_tensors(sound, min(active), worker.link, worker.device, refused)

        def commit() -> None:
            for name, mean in means.items():
                outer[name].grad = mean
            self._step.step()
            self._step.zero_grad()
            with torch.no_grad():
                for name in inner if worker.link.index in refused else names:
                    inner[name].copy_(outer[name])
            for name, tensor in buffers.items():
                tensor.copy_(sound[name])
            state.number, state.round, state.made = round.number + 1, None, 0

        return commit

    def _buffers(self, state: State) -> dict[str, Tensor]:
        parameters = dict(self.module.named_parameters())
        own = {name: t for name, t in state.tensors.items() if not name.startswith((_MOMENTUM, _OWN))}
        return {name: tensor for name, tensor in own.items() if name not in parameters}

    def move(self, state: State, move: Move, saved: Saved) -> Program[Commit]:
        """Send the outer network to newcomers, which go on from it."""
        moved = yield from super().move(state, move, saved)
        new = self._worker.link.index in move.newcomers

        def commit() -> None:
            moved()
            if new:
                self.restore(state, None)

        return commit

    def merged(self, state: State) -> Merged:
        """Return the outer network, which every worker holds."""
        return Merged(self._outer)

    def restore(self, state: State, piece: object) -> None:
        """Have the module go on from the outer network, where it has no values of its own."""
        outer = trained_parameters(self._outer)
        with torch.no_grad():
            for name, parameter in trained_parameters(self.module).items():
                if _OWN + name not in state.tensors:
                    parameter.copy_(outer[name])


def fragments(trained: Mapping[str, Tensor], number: int) -> list[list[str]]:
    """Deal parameters into parts of about the same size, the largest first to the smallest part; none is empty.

    >>> fragments({"a": torch.zeros(4), "b": torch.zeros(3), "c": torch.zeros(2)}, 2)
    [['a'], ['b', 'c']]
    """
    parts: list[list[str]] = [[] for _ in range(max(1, min(number, len(trained))))]
    sizes = [0] * len(parts)
    for name in sorted(trained, key=lambda name: -trained[name].numel()):
        least = sizes.index(min(sizes))
        parts[least].append(name)
        sizes[least] += trained[name].numel()
    order = {name: place for place, name in enumerate(trained)}
    return [sorted(part, key=order.__getitem__) for part in parts]
