"""Local SGD: every worker trains the dense network; after each round the weights are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from isthmus.nets.subnetwork import named_state
from isthmus.strategies import Strategy
from isthmus.trainer.strategies.interface import Merged, Round, State, Worker
from isthmus.trainer.wire.exchange import Program, all_gather, all_mean, broadcast
from isthmus.trainer.wire.layout import digest, layout_of


class LocalSGDPart:
    """One worker of local SGD.

    Reference:
        Stich, "Local SGD converges fast and communicates little" (ICLR 2019).
    """

    averages = False
    replicated = True
    changed: frozenset[str] = frozenset()

    def __init__(self, strategy: Strategy, worker: Worker) -> None:
        self._worker = worker
        self.module = nn.Module()  # until the start

    def start(self) -> Program[State]:
        """Make the network; where workers start from other weights than worker 0, send them its own."""
        self.module = self._worker.network.make()
        state = State(tensors_of(self.module))
        own = int(digest(state.tensors)[:12], 16)  # 48 bits: exact in float64
        told = torch.tensor([own], dtype=torch.float64, device=self._worker.device)
        found = yield from all_gather(told, self._worker.link, counted=False)
        others = [number for number, value in enumerate(found) if value.item() != found[0].item()]
        yield from send_tensors(state.tensors, 0, self._worker, others)
        return state

    def open(self, state: State, round: Round) -> Program[nn.Module]:
        """Do nothing: every worker has the averaged network."""
        yield from ()
        state.round = round
        return self.module

    def close(self, state: State, module: nn.Module) -> Program[State]:
        """Take the mean of the weights of all workers that trained."""
        assert state.round is not None
        if self._worker.link.workers > 1:
            parameters = trained_parameters(module)
            mean = yield from mean_over_workers(parameters, self._worker, state.round.active)
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.copy_(mean[name])
        return State(state.tensors, state.round.number + 1)

    def average(self, state: State, module: nn.Module, active: Sequence[int]) -> Program[None]:
        """Do nothing: workers average weights, not gradients."""
        yield from ()

    def merged(self, state: State) -> Merged:
        """Return the averaged network, which every worker holds."""
        return Merged(self.module)

    def restore(self, state: State, module: Mapping[str, Tensor]) -> None:
        """Write saved tensors into the network."""
        here = tensors_of(self.module)
        for name, tensor in state.tensors.items():
            here[name].copy_(tensor)
        state.tensors = here


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name, detached, tied ones once."""
    seen: dict[int, str] = {}
    return {name: t.detach() for name, t in named_state(module) if seen.setdefault(id(t), name) == name}


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name, tied ones once."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}


def mean_over_workers(
    tensors: Mapping[str, Tensor], worker: Worker, active: Sequence[int]
) -> Program[dict[str, Tensor]]:
    """Return the mean of every tensor over the active workers."""
    layout = layout_of(tensors)
    result: dict[str, Tensor] = {}
    for dtype in layout.sizes:
        flat = layout.pack(tensors, dtype, worker.device)
        mean = yield from all_mean(flat, worker.link, active)
        result |= layout.unpack(mean)
    return result


def send_tensors(tensors: Mapping[str, Tensor], source: int, worker: Worker, to: Sequence[int]) -> Program[None]:
    """Overwrite the tensors of the named workers by those of another; nothing moves if no worker is named."""
    layout = layout_of(tensors)
    for dtype in layout.sizes if to else ():
        flat = layout.pack(tensors, dtype, worker.device)
        got = yield from broadcast(flat, source, worker.link, to)
        if worker.link.index in to:
            with torch.no_grad():
                for name, value in layout.unpack(got).items():
                    tensors[name].copy_(value)
