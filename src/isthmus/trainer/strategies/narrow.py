"""The rival of equal cost: local SGD on a dense network as wide as the subnetwork a worker of IST would hold."""

from __future__ import annotations

import math
from functools import cached_property

from torch import Tensor, nn

from isthmus.nets import Coupling, scaling
from isthmus.nets.laws import given
from isthmus.nets.ownership import Held, slice_tensor
from isthmus.nets.subnetwork import Source, blank, build
from isthmus.partitions import Indices
from isthmus.strategies import Strategy
from isthmus.trainer.store.start import take
from isthmus.trainer.strategies.interface import Needs, State, Worker
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, tensors_of
from isthmus.trainer.task.fitting import widest
from isthmus.trainer.wire.exchange import Program
from isthmus.trainer.wire.layout import digest
from isthmus.trainer.wire.tensors import differing, send_tensors


class NarrowPart(LocalSGDPart):
    """One worker of local SGD on the narrow network, cut out of the whole one before the first round.

    A network that is initialised by its fan-in would have started from larger weights had it been built narrow: those
    of a layer that lost a share of its inputs are multiplied to match.
    """

    def __init__(self, strategy: Strategy, worker: Worker) -> None:
        super().__init__(strategy, worker)
        self._strategy = strategy
        self._coupling = worker.network.coupling

    @cached_property
    def _held(self) -> dict[str, Indices]:
        """The units of every cut axis that it has: as few as the number of workers at the start has it."""
        worker, law = self._worker, self._strategy.dealt
        assert law is not None
        return widest(self._coupling.partition(worker.link.seats, worker.seed, 0, law))

    def _built(self, source: Source, coupling: Coupling) -> nn.Module:
        """Return what is trained, with values from a source."""
        return build(source, coupling, self._held).module

    def needs(self, skeleton: nn.Module) -> Needs:
        """Return what it will hold: the narrow network, and while it is cut out the largest tensor of the whole."""
        worker, coupling = self._worker, self._coupling
        module = self._built(*blank(coupling, worker.device))
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
        """Return the narrow network with its first weights."""
        worker, coupling = self._worker, self._coupling
        factors = fan_in_factors(coupling, self._held)

        def read(name: str, indices: Held) -> Tensor:
            entry = coupling.entries[name]
            whole = worker.network.initial.rows(name, 0, entry.shape[0] if entry.shape else 1)
            part = slice_tensor(whole, indices).to(worker.device)
            return part * factors[name].to(part) if name in factors else part

        return self._built(read, worker.network.valued)


def fan_in_factors(coupling: Coupling, held: dict[str, Indices]) -> dict[str, Tensor]:
    """Return for every weight that sums over cut units sqrt(all entries summed over / those that are left)."""
    units = coupling.select([axis for axis in coupling.axes if axis.name in held and axis.atom is not None])
    if not units.cut_axes:  # cut in depth alone: no sum has fewer terms
        return {}
    alone = given({axis.name: (held[axis.name],) for axis in units.cut_axes})
    shares = scaling(units, alone, "eval").evaluation
    return {name: share.double().mean().rsqrt().reshape([1] * share.dim()) for name, share in shares.items()}
