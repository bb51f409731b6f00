"""Independent Subnetwork Training: cut the units over the workers, train the pieces alone, merge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, nn

from isthmus.nets import NetPartition, Scaling, Subnetwork, scaling, zero_cross_blocks
from isthmus.nets.subnetwork import build, named_state, rebuild, refill
from isthmus.strategies import IST
from isthmus.trainer.store.pieces import Pieces, Units, same_indices
from isthmus.trainer.strategies.interface import Merged, Round, State, Worker
from isthmus.trainer.wire.exchange import Program


class ISTPart:
    """One worker of IST. Worker 0 holds the whole network between rounds; the others never hold more than their piece.

    Reference:
        Yuan, Wolfe, Dun, Tang, Kyrillidis, Jermaine, "Distributed learning of deep neural networks using independent
        subnet training" (VLDB 2022).
    """

    averages = replicated = False

    def __init__(self, strategy: IST, worker: Worker) -> None:
        self._strategy = strategy
        self._worker = worker
        self._pieces = Pieces(worker)
        self._piece: Subnetwork | None = None
        self._whole: nn.Module | None = None
        self._dealt: tuple[Round, list[Units | None]] | None = None
        self._scaled: tuple[int, Scaling] | None = None
        self.changed: frozenset[str] = frozenset()

    @property
    def module(self) -> nn.Module:
        """The piece this worker trains."""
        assert self._piece is not None
        return self._piece.module

    def start(self) -> Program[State]:
        """Make the whole network on worker 0; hand out what does not change."""
        tensors: dict[str, Tensor] = {}
        first = self._partition(0)
        if self._worker.link.index == 0:
            self._whole = self._worker.network.make()
            if self._strategy.dealt.zero_cross_blocks:
                zero_cross_blocks(self._whole, self._pieces.coupling, first)
            tensors = {name: tensor.detach() for name, tensor in named_state(self._whole)}
        yield from self._pieces.share_fixed(self._whole, tensors or None)
        return State(tensors)

    def open(self, state: State, round: Round) -> Program[nn.Module]:
        """Hand out the pieces of the round's partition."""
        units = self._units(round)
        received = yield from self._pieces.hand_out(state.tensors or None, units)
        own = units[self._worker.link.index]
        if own is not None:
            self._take(self._pieces.reader(received, self._piece), own)
            state.held = round
        state.round = round
        return self.module

    def close(self, state: State, module: nn.Module) -> Program[State]:
        """Merge the pieces into the whole."""
        assert state.round is not None
        units = self._units(state.round)
        mine = None if units[self._worker.link.index] is None else self._piece
        yield from self._pieces.take_back(state.tensors or None, mine, units)
        return State(state.tensors, state.round.number + 1, held=state.held)

    def average(self, state: State, module: nn.Module, active: Sequence[int]) -> Program[None]:
        """Do nothing: pieces have no gradients in common."""
        yield from ()

    def merged(self, state: State) -> Merged:
        """Return the merged network and the scales that match its sums to those of the pieces."""
        assert self._whole is not None
        if not self._strategy.scales:
            return Merged(self._whole)
        last = max(0, state.number - 1)
        if self._scaled is None or self._scaled[0] != last:
            self._scaled = last, scaling(self._pieces.coupling, self._partition(last))
        found = self._scaled[1]
        return Merged(self._whole, found.evaluation, found.open)

    def restore(self, state: State, module: Mapping[str, Tensor]) -> None:
        """Write saved tensors into the whole on worker 0, and take up the piece of an open round."""
        if self._whole is not None:
            here = {name: tensor.detach() for name, tensor in named_state(self._whole)}
            for name, tensor in state.tensors.items():
                here[name].copy_(tensor)
            state.tensors = here
        if state.held is not None:
            own = self._units(state.held)[self._worker.link.index]
            assert own is not None
            self._take(lambda name, held: module[name].detach().clone(), own)

    def _partition(self, number: int) -> NetPartition:
        link = self._worker.link
        return self._pieces.coupling.partition(link.workers, self._worker.seed, number, self._strategy.dealt)

    def _units(self, round: Round) -> list[Units | None]:
        """Return what each worker holds in a round; the same list when it is opened and closed."""
        if self._dealt is None or self._dealt[0] != round:
            partition = self._partition(round.number)
            workers = range(self._worker.link.workers)
            self._dealt = round, [partition.of(w) if w in round.active else None for w in workers]
        return self._dealt[1]

    def _take(self, read: object, units: Units) -> None:
        """Give the module the worker's new units."""
        before, coupling, index = self._piece, self._pieces.coupling, self._worker.link.index
        if before is None:
            self._piece = build(read, coupling, units, index)  # type: ignore[arg-type]
            self.changed = frozenset()
            return
        if all(np.array_equal(indices, before.held[name]) for name, indices in units.items()):
            refill(before, read)  # type: ignore[arg-type]
            self.changed = frozenset()
            return
        self._piece = piece = rebuild(before, read, coupling, units)  # type: ignore[arg-type]
        self.changed = frozenset(
            name
            for name in {*before.indices, *piece.indices}
            if not (name in before.indices and name in piece.indices)
            or not same_indices(before.indices[name], piece.indices[name])
        )
