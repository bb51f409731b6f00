"""The rival of equal cost: local SGD on a dense network as wide as the subnetwork a worker of IST would hold."""

from __future__ import annotations

from contextlib import ExitStack

from torch import Tensor, nn

from isthmus.nets.coupling import Coupling
from isthmus.nets.laws import given
from isthmus.nets.scaling import scaled, scaling
from isthmus.nets.subnetwork import build
from isthmus.partitions import Indices
from isthmus.trainer.exchange import Program
from isthmus.trainer.network import Network
from isthmus.trainer.pieces import Pieces
from isthmus.trainer.round import Worker
from isthmus.trainer.strategies.local_sgd import LocalSGD


class Narrow(LocalSGD):
    """One worker of local SGD on the narrow network, which worker 0 cuts out of the whole once and hands to all.

    A network that is initialised by its fan-in would have started from larger weights had it been built narrow: those
    of a layer that lost a share of its inputs are multiplied to match.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._optimizer = None
        self.trained = nn.Module()  # until the start

    def start(self) -> Program[None]:
        """Take the narrow network from worker 0, which then forgets the whole one."""
        worker = self._worker
        pieces, held = Pieces(worker), widest(worker.network)
        units = [held] * worker.config.workers
        whole = worker.network.make().to(worker.device) if worker.is_root else None
        yield from pieces.share_fixed(whole)
        with ExitStack() as stack:
            if whole is not None:
                stack.enter_context(scaled(whole, fan_in_factors(pieces.coupling, held)))
            received = yield from pieces.hand_out(whole, units)
        self.trained = build(pieces.reader(received), pieces.coupling, held).module


def widest(network: Network) -> dict[str, Indices]:
    """Return for every cut axis the units of the worker that holds most of it, the core included."""
    return {name: max(sets, key=len) for name, sets in network.partition(0).held.items()}


def fan_in_factors(coupling: Coupling, held: dict[str, Indices]) -> dict[str, Tensor]:
    """Return for every weight that sums over cut units sqrt(all entries summed over / those that are left)."""
    units = coupling.select([axis for axis in coupling.cut_axes if axis.atom is not None])
    alone = given({axis.name: (held[axis.name],) for axis in units.cut_axes})
    shares = scaling(units, alone, "eval").evaluation
    return {name: share.double().mean().rsqrt().reshape([1] * share.dim()) for name, share in shares.items()}
