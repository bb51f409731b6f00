"""The rival of equal cost: local SGD on a dense network as wide as the subnetwork a worker of IST would hold."""

from __future__ import annotations

from contextlib import ExitStack

from torch import Tensor

from isthmus.nets import Coupling, NetPartition, scaled, scaling
from isthmus.nets.laws import given
from isthmus.nets.subnetwork import build, named_state
from isthmus.partitions import Indices
from isthmus.strategies import Narrow
from isthmus.trainer.store.pieces import Pieces
from isthmus.trainer.strategies.interface import State, Worker
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, tensors_of
from isthmus.trainer.wire.exchange import Program


class NarrowPart(LocalSGDPart):
    """One worker of local SGD on the narrow network, which worker 0 cuts out of the whole once and hands to all.

    A network that is initialised by its fan-in would have started from larger weights had it been built narrow: those
    of a layer that lost a share of its inputs are multiplied to match.
    """

    def __init__(self, strategy: Narrow, worker: Worker) -> None:
        super().__init__(strategy, worker)
        self._strategy = strategy

    def start(self) -> Program[State]:
        """Take the narrow network from worker 0, which then forgets the whole one."""
        worker, pieces = self._worker, Pieces(self._worker)
        held = widest(pieces.coupling.partition(worker.link.workers, worker.seed, 0, self._strategy.dealt))
        whole = worker.network.make() if worker.link.index == 0 else None
        tensors = None if whole is None else dict(named_state(whole))
        yield from pieces.share_fixed(whole, tensors)
        with ExitStack() as stack:
            if whole is not None:
                stack.enter_context(scaled(whole, fan_in_factors(pieces.coupling, held)))
            received = yield from pieces.hand_out(tensors, [held] * worker.link.workers)
        self.module = build(pieces.reader(received), pieces.coupling, held).module
        return State(tensors_of(self.module))


def widest(partition: NetPartition) -> dict[str, Indices]:
    """Return for every cut axis the units of the worker that holds most of it, the core included."""
    return {name: max(sets, key=len) for name, sets in partition.held.items()}


def fan_in_factors(coupling: Coupling, held: dict[str, Indices]) -> dict[str, Tensor]:
    """Return for every weight that sums over cut units sqrt(all entries summed over / those that are left)."""
    units = coupling.select([axis for axis in coupling.cut_axes if axis.atom is not None])
    alone = given({axis.name: (held[axis.name],) for axis in units.cut_axes})
    shares = scaling(units, alone, "eval").evaluation
    return {name: share.double().mean().rsqrt().reshape([1] * share.dim()) for name, share in shares.items()}
