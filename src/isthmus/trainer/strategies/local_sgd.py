"""Local SGD: every worker trains the dense network; after each round the weights are averaged."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor, nn

from isthmus.nets.pieces.ownership import Held
from isthmus.nets.pieces.subnetwork import named_state
from isthmus.strategies import Strategy
from isthmus.trainer.store.rehome import Move, Saved
from isthmus.trainer.store.serve import Housed
from isthmus.trainer.strategies.interface import Commit, Merged, Needs, Ours, Round, State, Worker, moved
from isthmus.trainer.task.initial import copied, like
from isthmus.trainer.wire.exchange import Program
from isthmus.trainer.wire.layout import digest
from isthmus.trainer.wire.tensors import differing, mean_over_workers, send_tensors, together


class LocalSGDPart(Ours):
    """One worker of local SGD. With a shorter wire it is changes of the weights that are averaged, not weights.

    Reference:
        Stich, "Local SGD converges fast and communicates little" (ICLR 2019).
    """

    averages = False
    store: Housed | None = None
    changed: frozenset[str] = frozenset()

    def __init__(self, strategy: Strategy, worker: Worker) -> None:
        self._worker = worker
        self.module = nn.Module()  # until the start

    @property
    def called(self) -> nn.Module:
        """The module."""
        return self.module

    def beside(self) -> Sequence[Tensor]:
        """Return nothing."""
        return ()

    def needs(self, skeleton: nn.Module) -> Needs:
        """Return what it will hold: the whole network, and what is averaged of it at a time."""
        module = copied(skeleton, lambda name, tensor: like(tensor, self._worker.device))
        return Needs(module, *self._beside(module))

    def _beside(self, module: nn.Module) -> tuple[int, int]:
        """Return the bytes that are kept beside a module, and the most that are on the way at a time."""
        trained, workers = trained_parameters(module), self._worker.link.workers
        if workers == 1 or not trained:
            return 0, 0
        sizes = {name: parameter.numel() * parameter.element_size() for name, parameter in trained.items()}
        changes = 0 if self._worker.wire is None else sum(sizes.values())
        most = max(sum(sizes[name] for name in names) for names in together(trained))
        # packed, received of one's own share, its mean, the means of all shares, these joined
        return changes, changes + 4 * most + most // workers

    def start(self) -> Program[State]:
        """Make the network; where workers start from other weights than worker 0, send them its own."""
        self.module = self._worker.network.make()
        link, device, tensors = self._worker.link, self._worker.device, tensors_of(self.module)
        others = yield from differing(digest(tensors), link, device)
        yield from send_tensors(tensors, 0, link, device, others)
        return State(tensors)

    def come(self) -> State:
        """Make the network; its weights come with the move."""
        self.module = self._worker.network.make()
        return State(tensors_of(self.module))

    def open(self, state: State, round: Round) -> Program[Commit]:
        """Note where the round began, if changes travel; every worker has the averaged network."""
        yield from ()

        def commit() -> None:
            state.round, state.made = round, 0
            if self._worker.wire is not None and not self.averages and not state.reference:
                state.reference = {name: p.detach().clone() for name, p in trained_parameters(self.module).items()}

        return commit

    def block(self) -> dict[str, Tensor]:
        """Return the parameters that are trained."""
        return {name: parameter.detach() for name, parameter in trained_parameters(self.module).items()}

    def close(self, state: State, module: nn.Module, refused: Sequence[int]) -> Program[Commit]:
        """Take the mean of the weights of all workers that trained; those refused take the others', and buffers too."""
        worker, round, later = self._worker, state.round, dict[str, Tensor]()
        assert round is not None
        active = [number for number in round.active if number not in refused]
        parameters, start = trained_parameters(module), state.reference

        def put(name: str, mean: Tensor) -> None:
            with torch.no_grad():
                parameters[name].copy_(start[name] + mean if start else mean)

        def keep(name: str, mean: Tensor) -> None:
            later[name] = mean

        if worker.link.workers > 1:
            own = {name: p.detach() - start[name] for name, p in parameters.items()} if start else parameters
            take = keep if worker.link.elastic else put
            yield from mean_over_workers(own, worker.link, active, take, worker.wire)

        buffers = {name: t for name, t in state.tensors.items() if name not in parameters} if refused else {}
        sound = {name: t.clone() for name, t in buffers.items()} if worker.link.index in refused else buffers
        yield from send_tensors(sound, min(active), worker.link, worker.device, refused)

        def commit() -> None:
            for name, mean in later.items():
                put(name, mean)
            for name, tensor in buffers.items():
                tensor.copy_(sound[name])
            state.number, state.round, state.made, state.reference = round.number + 1, None, 0, {}

        return commit

    @property
    def common(self) -> Collection[str]:
        """The parameters; what else a forward pass writes to is a worker's own."""
        return [name for name, _ in self.module.named_parameters()]

    @property
    def measures(self) -> bool:
        """It does not ask: all do the same."""
        return False

    def measure(self, state: State, seconds: float) -> Program[Commit | None]:
        """Do nothing."""
        yield from ()
        return None

    def move(self, state: State, move: Move, saved: Saved) -> Program[Commit]:
        """Send the network to newcomers; those who were there have it."""
        worker = self._worker
        yield from send_tensors(state.tensors, 0, worker.link, worker.device, move.newcomers)

        def commit() -> None:
            state.round = moved(state.round, move)

        return commit

    def average(self, state: State, module: nn.Module, active: Callable[[], Program[Sequence[int]]]) -> Program[None]:
        """Do nothing: workers average weights, not gradients."""
        yield from ()

    def settle(self, state: State, viewing: bool) -> Program[Commit]:
        """Do nothing: every worker has all there is."""
        yield from ()
        return lambda: None

    def merged(self, state: State) -> Merged:
        """Return the averaged network, which every worker holds."""
        return Merged(self.module)

    def restore(self, state: State, piece: Callable[[str, Held], Tensor]) -> None:
        """Do nothing: the state's tensors are the module's own."""


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, detached, tied ones once."""
    seen: dict[int, str] = {}
    return {name: t.detach() for name, t in named_state(module) if seen.setdefault(id(t), name) == name}


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name, tied ones once."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
