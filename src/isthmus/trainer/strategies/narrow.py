"""The rival of equal cost: local SGD on a dense network as wide as the subnetwork a worker of IST would hold."""

from __future__ import annotations

import math

from torch import Tensor, nn

from isthmus.nets import Coupling, NetPartition, scaling
from isthmus.nets.pieces.laws import given
from isthmus.nets.pieces.ownership import Held, slice_tensor
from isthmus.nets.pieces.subnetwork import blank, build
from isthmus.partitions import Indices
from isthmus.strategies import Narrow
from isthmus.trainer.store.start import take
from isthmus.trainer.strategies.interface import Needs, State, Worker
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, tensors_of
from isthmus.trainer.wire.exchange import Program
from isthmus.trainer.wire.layout import digest
from isthmus.trainer.wire.tensors import differing, send_tensors


class NarrowPart(LocalSGDPart):
    """One worker of local SGD on the narrow network, cut out of the whole one before the first round.

    A network that is initialised by its fan-in would have started from larger weights had it been built narrow: those
    of a layer that lost a share of its inputs are multiplied to match.
    """

    def __init__(self, strategy: Narrow, worker: Worker) -> None:
        super().__init__(strategy, worker)
        self._strategy = strategy
        self._coupling = worker.network.coupling

    def needs(self, skeleton: nn.Module) -> Needs:
        """Return what it will hold: the narrow network, and while it is cut out the largest tensor of the whole."""
        worker, coupling = self._worker, self._coupling
        held = widest(coupling.partition(worker.link.seats, worker.seed, 0, self._strategy.dealt))
        module = build(*blank(coupling, worker.device), held).module
        kept, moved = self._beside(module)
        largest = max(math.prod(entry.shape) * entry.dtype.itemsize for entry in coupling.entries.values())
        return Needs(module, kept, max(moved, largest))

    def start(self) -> Program[State]:
        """Cut the narrow network out of the whole one, which is then forgotten."""
        worker = self._worker
        self.module = yield from take(worker.network.initial, self._narrow, worker.link, worker.device)
        tensors = tensors_of(self.module)
        others = yield from differing(digest(tensors), worker.link, worker.device)
        yield from send_tensors(tensors, 0, worker.link, worker.device, others)
        return State(tensors)

    def come(self) -> State:
        """Cut the narrow network out; its weights come with the move."""
        self.module = self._narrow()
        self._worker.network.initial.drop()
        return State(tensors_of(self.module))

    def _narrow(self) -> nn.Module:
        """Return the narrow network: as narrow as the number of workers at the start has it."""
        worker, coupling = self._worker, self._coupling
        held = widest(coupling.partition(worker.link.seats, worker.seed, 0, self._strategy.dealt))
        factors = fan_in_factors(coupling, held)

        def read(name: str, indices: Held) -> Tensor:
            entry = coupling.entries[name]
            whole = worker.network.initial.rows(name, 0, entry.shape[0] if entry.shape else 1)
            part = slice_tensor(whole, indices).to(worker.device)
            return part * factors[name].to(part) if name in factors else part

        return build(read, worker.network.valued, held).module


def widest(partition: NetPartition) -> dict[str, Indices]:
    """Return for every cut axis the units of the worker that holds most of it, the core included."""
    return {name: max(sets, key=len) for name, sets in partition.held.items()}


def fan_in_factors(coupling: Coupling, held: dict[str, Indices]) -> dict[str, Tensor]:
    """Return for every weight that sums over cut units sqrt(all entries summed over / those that are left)."""
    units = coupling.select([axis for axis in coupling.axes if axis.name in held and axis.atom is not None])
    if not units.cut_axes:  # cut in depth alone: no sum has fewer terms
        return {}
    alone = given({axis.name: (held[axis.name],) for axis in units.cut_axes})
    shares = scaling(units, alone, "eval").evaluation
    return {name: share.double().mean().rsqrt().reshape([1] * share.dim()) for name, share in shares.items()}
