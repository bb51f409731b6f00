"""Pieces that part at the start: each lives whole with the worker that trains it, and has a last layer of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.nets import Coupling
from isthmus.nets.pieces.ownership import Held, slice_tensor
from isthmus.nets.pieces.subnetwork import blank, build
from isthmus.partitions import Indices
from isthmus.strategies import Strategy
from isthmus.trainer.store.homes import Owned
from isthmus.trainer.store.rehome import Move, Saved
from isthmus.trainer.store.start import take
from isthmus.trainer.strategies.interface import Commit, Merged, Needs, Round, State, Worker, closed, moved
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, tensors_of
from isthmus.trainer.strategies.narrow import fan_in_factors
from isthmus.trainer.task.network import Network
from isthmus.trainer.wire.exchange import Program

Shape = tuple[tuple[int, ...], torch.dtype]


@dataclass(frozen=True)
class Apart:
    """Pieces of which each lives whole with the worker that trains it.

    Attributes:
        homes: who that is.
        types: of the tensors.
    """

    homes: Owned
    types: Mapping[str, torch.dtype]
    fixed: Mapping[str, Tensor] = field(default_factory=dict)
    statistics: tuple[str, ...] = ()  # those of norms are a piece's own

    @property
    def names(self) -> tuple[str, ...]:
        """Of all tensors."""
        return tuple(self.homes.shapes)


class Merges(Protocol):
    """A network that pieces are merged into, each under its seat in ``pieces``."""

    def metadata(self) -> dict[str, str]:
        """Return what a file of it says beside the tensors."""
        ...


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces, by the seats of the workers that train them.

    A piece is the network with fewer hidden units and other rows in its last layer; what stands on that is its head.

    Attributes:
        network: the whole.
    """

    network: Network

    def held(self, seat: int) -> dict[str, Indices]:
        """Return the units of every cut axis that a worker holds.

        Of classes the rows of the whole network's last layer that its own begin as; numbers behind the last are rows
        that begin at zero.
        """
        raise NotImplementedError

    def headed(self, body: nn.Module) -> nn.Module:
        """Return what a worker trains: the body, with what turns its scores into what a loss takes."""
        return body

    def extras(self, seat: int) -> dict[str, Shape]:
        """Return shape and type of what a piece keeps beside its body, by name."""
        return {}

    def merged(self, present: Sequence[int], device: torch.device) -> nn.Module:
        """Return the network that some pieces make up, its values still to be filled in."""
        raise NotImplementedError

    def first(self, seat: int, device: torch.device) -> nn.Module:
        """Return a piece with its first weights: those of the whole network, made larger where a layer lost a share of
        its inputs."""
        coupling, held = self.network.coupling, self.held(seat)
        factors = _factors(coupling, held)

        def read(name: str, indices: Held) -> Tensor:
            entry = coupling.entries[name]
            inside = tuple(None if i is None else np.asarray(i)[np.asarray(i) < size]
                           for i, size in zip(indices, entry.shape, strict=True))  # fmt: skip
            whole = self.network.initial.rows(name, 0, entry.shape[0] if entry.shape else 1)
            part = slice_tensor(whole, inside).to(device)
            sizes = [size if i is None else len(i) for i, size in zip(indices, entry.shape, strict=True)]
            found = part.new_zeros(sizes)
            found[tuple(slice(size) for size in part.shape)] = part
            return found * factors[name].to(found) if name in factors else found

        return build(read, self.network.valued, held, seat).module

    def blank(self, seat: int, device: torch.device) -> nn.Module:
        """Return a piece without values."""
        return build(*blank(self.network.coupling, device), self.held(seat), seat).module

    def empty(self, seat: int, device: torch.device) -> nn.Module:
        """Return a piece for a merged network to hold: no memory, but the values of what is made in forward."""

        def read(name: str, indices: Held) -> Tensor:
            entry = self.network.coupling.entries[name]
            sizes = zip(entry.shape, indices, strict=True)
            nothing = torch.zeros((), dtype=entry.dtype, device=device)  # on the meta device constants have no values
            return nothing.expand([size if each is None else len(each) for size, each in sizes])

        return build(read, self.network.valued, self.held(seat), seat).module

    def outline(self, seat: int) -> dict[str, Shape]:
        """Return shape and type of what a worker is home to, by name."""
        coupling, found = self.network.coupling, dict[str, Shape]()
        for name, indices in coupling.index_map(self.held(seat)).items():
            entry = coupling.entries[name]
            sizes = zip(entry.shape, indices, strict=True)
            found[f"pieces.{seat}.body.{name}"] = tuple(s if i is None else len(i) for s, i in sizes), entry.dtype
        return found | {f"pieces.{seat}.{name}": shape for name, shape in self.extras(seat).items()}


class ApartPart(LocalSGDPart):
    """One worker with a piece of its own.

    It is home to its whole piece. A piece that is refused begins anew: nobody has another copy of it.
    """

    _pieces: Pieces

    def __init__(self, strategy: Strategy, worker: Worker) -> None:
        super().__init__(strategy, worker)
        self._seat = worker.link.seat
        self._pieces = self._lay_out(strategy, worker)
        self._housed = self.store = self._apart(worker.link.present)

    def _lay_out(self, strategy: Strategy, worker: Worker) -> Pieces:
        """Return the pieces of all workers."""
        raise NotImplementedError

    @property
    def common(self) -> tuple[str, ...]:
        """None: every worker has its piece."""
        return ()

    def needs(self, skeleton: nn.Module) -> Needs:
        """Return what it will hold: its piece, and while that is cut out the largest tensor of the whole."""
        module = self._pieces.headed(self._pieces.blank(self._seat, self._worker.device))
        entries = self._worker.network.coupling.entries.values()
        largest = max(math.prod(entry.shape) * entry.dtype.itemsize for entry in entries)
        extras = self._pieces.extras(self._seat).values()
        kept = sum(math.prod(shape) * dtype.itemsize for shape, dtype in extras)
        return Needs(module, kept + sum(each.nbytes for each in self.beside()), largest)

    def start(self) -> Program[State]:
        """Cut the piece out of the whole network, which is then forgotten."""
        worker = self._worker
        self.module = yield from take(worker.network.initial, self._first, worker.link, worker.device)
        return self._state()

    def come(self) -> State:
        """Begin with the first weights of the piece: nobody has trained it meanwhile."""
        self.module = self._first()
        self._worker.network.initial.drop()
        return self._state()

    def _first(self) -> nn.Module:
        return self._pieces.headed(self._pieces.first(self._seat, self._worker.device))

    def _body(self, module: nn.Module) -> nn.Module:
        """Return the body of what a worker trains."""
        return module

    def _state(self) -> State:
        prefix = f"pieces.{self._seat}."
        tensors = {f"{prefix}body.{name}": tensor for name, tensor in tensors_of(self._body(self.module)).items()}
        for name, (shape, dtype) in self._pieces.extras(self._seat).items():
            tensors[f"{prefix}{name}"] = torch.ones(shape, dtype=dtype, device=self._worker.device)
        return State({n: t for n, t in tensors.items() if n in self._housed.homes.shapes})

    def open(self, state: State, round: Round) -> Program[Commit]:
        """Go on."""
        begun = yield from super().open(state, round)

        def commit() -> None:
            begun()
            state.held = round

        return commit

    def close(self, state: State, module: nn.Module, refused: Sequence[int]) -> Program[Commit]:
        """Go on; a piece that is refused begins anew."""
        yield from ()
        done = closed(state)
        anew = self._first() if self._worker.link.index in refused else None

        def commit() -> None:
            done()
            if anew is not None:
                for name, tensor in tensors_of(anew).items():
                    tensors_of(module)[name].copy_(tensor)

        return commit

    def move(self, state: State, move: Move, saved: Saved) -> Program[Commit]:
        """Go on without the pieces of those who are gone."""
        yield from ()
        present = tuple(self._worker.link.present)

        def commit() -> None:
            state.round = moved(state.round, move)
            self._housed = self.store = self._apart(present)

        return commit

    def merged(self, state: State) -> Merged:
        """Return what the network is that the pieces make up; each lives with its worker."""
        merged: Merges = self._pieces.merged(self._worker.link.present, self._worker.device)  # type: ignore[assignment]
        return Merged(None, skeleton=lambda: merged, metadata=merged.metadata())  # type: ignore[arg-type, return-value]

    def restore(self, state: State, piece: Callable[[str, Held], Tensor]) -> None:
        """Do nothing: the state's tensors are the module's own."""

    def _apart(self, present: Sequence[int]) -> Apart:
        shapes, types, owners = {}, {}, {}
        for worker, seat in enumerate(present):
            for name, (shape, dtype) in self._pieces.outline(seat).items():
                shapes[name], types[name], owners[name] = shape, dtype, worker
        return Apart(Owned(len(present), shapes, owners), types)


def _factors(coupling: Coupling, held: Mapping[str, Indices]) -> dict[str, Tensor]:
    hidden = {axis.name: held[axis.name] for axis in coupling.cut_axes if axis.name in held}
    return fan_in_factors(coupling, hidden) if hidden else {}
