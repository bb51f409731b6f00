"""The cut of a network's outputs: every worker trains a piece of its own to the end, and nothing travels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isthmus.errors import InvalidInput
from isthmus.nets.coupling.coupling import Coupling
from isthmus.nets.models.block_softmax import BlockSoftmax, ClassPiece
from isthmus.nets.pieces.ownership import Held, slice_tensor
from isthmus.nets.pieces.subnetwork import blank, build
from isthmus.partitions import Indices
from isthmus.partitions.classes import ClassDeal
from isthmus.strategies import ClassCut
from isthmus.trainer.store.homes import Owned
from isthmus.trainer.store.rehome import Move
from isthmus.trainer.store.start import take
from isthmus.trainer.strategies.interface import Commit, Merged, Needs, Round, Saved, State, Worker, closed, moved
from isthmus.trainer.strategies.local_sgd import LocalSGDPart, tensors_of
from isthmus.trainer.strategies.narrow import fan_in_factors
from isthmus.trainer.task.classes import class_axis, deal_classes
from isthmus.trainer.task.network import Network
from isthmus.trainer.wire.exchange import Program

_PRIOR, _DRAWN = "prior", "drawn"  # of a piece, beside its parameters


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


class ClassCutPart(LocalSGDPart):
    """One worker of a class cut.

    It is home to its whole piece. A piece that is refused begins anew: nobody has another copy of it.
    """

    def __init__(self, strategy: ClassCut, worker: Worker) -> None:
        super().__init__(strategy, worker)
        self._pieces = Pieces(strategy, worker.network, worker.link.seats, worker.seed)
        self._seat = worker.link.seat
        self._targets: Tensor | None = None
        self._housed = self.store = self._apart(worker.link.present)

    @property
    def common(self) -> tuple[str, ...]:
        """None: every worker has its piece."""
        return ()

    @property
    def deal(self) -> ClassDeal:  # type: ignore[override]
        """Who owns which classes."""
        return self._pieces.deal

    @property
    def absent(self) -> tuple[int, ...]:  # type: ignore[override]
        """The classes that no worker has any more."""
        held = np.concatenate([self.deal.owned(seat) for seat in self._worker.link.present])
        return tuple(np.setdiff1d(np.arange(self.deal.classes), held).tolist())

    def targets(self, targets: Any) -> Any:
        """Return what is right for this worker's piece: the number of a unit; of several labels those it owns.

        Raises:
            InvalidInput: targets that do not go with the gate, or a number that is no class.
        """
        deal = self.deal
        if not isinstance(targets, Tensor):
            raise InvalidInput(f"strategy 'class-cut' needs class numbers as targets, got {type(targets).__name__}")
        if targets.is_floating_point() or targets.dtype == torch.bool:
            if deal.gate.normalized:
                raise InvalidInput(
                    "targets with several labels a sample need `gate` 'none': each class is there or not by itself, "
                    f"and no unit stands for the others; got gate {deal.gate.name!r}"
                )
            return targets[..., torch.from_numpy(deal.owned(self._seat)).to(targets.device)]
        if not deal.gate.normalized:
            raise InvalidInput("`gate` must be 'other' or 'worker' where every sample has one class, got 'none'")
        if self._targets is None:
            self._targets = torch.from_numpy(deal.targets(self._seat)).to(self._worker.device)
        if targets.numel() and int(targets.max()) >= deal.classes:
            raise InvalidInput(f"a target is {int(targets.max())}, but the network has {deal.classes} classes")
        return torch.where(targets < 0, targets, self._targets[targets.clamp(min=0)])

    def route(self, state: State, prior: float, drawn: float) -> None:
        """Note what the piece is trained on.

        Args:
            state: of this worker.
            prior: P, the share of its own classes among all samples.
            drawn: q', that among the samples of its batches.
        """
        for name, value in ((_PRIOR, prior), (_DRAWN, drawn)):
            state.tensors[f"pieces.{self._seat}.{name}"].fill_(value)

    def needs(self, skeleton: nn.Module) -> Needs:
        """Return what it will hold: its piece, and while that is cut out the largest tensor of the whole."""
        module = self._pieces.blank(self._seat, self._worker.device)
        entries = self._worker.network.coupling.entries.values()
        largest = max(math.prod(entry.shape) * entry.dtype.itemsize for entry in entries)
        return Needs(module, 2 * torch.float64.itemsize, largest)

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
        return self._pieces.first(self._seat, self._worker.device)

    def _state(self) -> State:
        prefix = f"pieces.{self._seat}."
        tensors = {f"{prefix}body.{name}": tensor for name, tensor in tensors_of(self.module).items()}
        shares = {f"{prefix}{name}": torch.ones((), dtype=torch.float64, device=self._worker.device)
                  for name in (_PRIOR, _DRAWN)}  # fmt: skip
        return State({n: t for n, t in (tensors | shares).items() if n in self._housed.homes.shapes})

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
        pieces = self._pieces.merged(self._worker.link.present, self._worker.device)
        return Merged(None, skeleton=lambda: pieces, metadata=pieces.metadata())

    def restore(self, state: State, piece: Callable[[str, Held], Tensor]) -> None:
        """Do nothing: the state's tensors are the module's own."""

    def _apart(self, present: Sequence[int]) -> Apart:
        shapes, types, owners = {}, {}, {}
        for worker, seat in enumerate(present):
            for name, (shape, dtype) in self._pieces.outline(seat).items():
                shapes[name], types[name], owners[name] = shape, dtype, worker
        return Apart(Owned(len(present), shapes, owners), types)


@dataclass(frozen=True, eq=False)
class Pieces:
    """The pieces of a class cut, by the seats of the workers that train them.

    Attributes:
        strategy: the cut.
        network: the whole.
        seats: number of workers at the start.
        seed: of the run.
    """

    strategy: ClassCut
    network: Network
    seats: int
    seed: int

    @cached_property
    def deal(self) -> ClassDeal:
        """Who owns which classes."""
        return deal_classes(self.strategy, self.network.coupling, self.seats, self.seed)

    def held(self, seat: int) -> dict[str, Indices]:
        """Return the units of every cut axis that a worker holds.

        Of classes its own, and behind the last one numbers of units that the whole network does not have.
        """
        coupling, hidden = self.network.coupling, dict[str, Indices]()
        if coupling.cut_axes:
            hidden = coupling.partition(self.seats, self.seed, 0, self.strategy.dealt).of(seat)
        gate = self.deal.classes + np.arange(self.deal.units(seat))
        return {**hidden, class_axis(coupling).name: np.concatenate([self.deal.owned(seat), gate])}

    def first(self, seat: int, device: torch.device) -> nn.Module:
        """Return a piece with its first weights: those of the whole network, made larger where a layer lost a share of
        its inputs, and zero for the units that stand for other classes."""
        coupling, held = self.network.coupling, self.held(seat)
        factors = self._factors(coupling, held)

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

    def outline(self, seat: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return shape and type of what a worker is home to, by name."""
        coupling, found = self.network.coupling, dict[str, tuple[tuple[int, ...], torch.dtype]]()
        for name, indices in coupling.index_map(self.held(seat)).items():
            entry = coupling.entries[name]
            sizes = zip(entry.shape, indices, strict=True)
            found[f"pieces.{seat}.body.{name}"] = tuple(s if i is None else len(i) for s, i in sizes), entry.dtype
        return found | {f"pieces.{seat}.{name}": ((), torch.float64) for name in (_PRIOR, _DRAWN)}

    def merged(self, present: Sequence[int], device: torch.device) -> BlockSoftmax:
        """Return the network that some pieces make up, its values still to be filled in."""
        pieces = {}

        def read(name: str, indices: Held) -> Tensor:
            entry = self.network.coupling.entries[name]
            sizes = zip(entry.shape, indices, strict=True)
            nothing = torch.zeros(
                (), dtype=entry.dtype, device=device
            )  # on the meta device constants would have no values
            return nothing.expand([size if each is None else len(each) for size, each in sizes])

        for seat in present:
            body = build(read, self.network.valued, self.held(seat), seat).module
            prior, drawn = (torch.ones((), dtype=torch.float64, device=device) for _ in range(2))
            pieces[seat] = ClassPiece(body, torch.from_numpy(self.deal.owned(seat)).to(device), prior, drawn)
        return BlockSoftmax(pieces, self.deal.classes, self.deal.gate.normalized)

    def _factors(self, coupling: Coupling, held: Mapping[str, Indices]) -> dict[str, Tensor]:
        hidden = {axis.name: held[axis.name] for axis in coupling.cut_axes if axis.name in held}
        return fan_in_factors(coupling, hidden) if hidden else {}
