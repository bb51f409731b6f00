"""Where one worker stands, as plain data: for a file of the user's own, and for a checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from isthmus.errors import InvalidInput
from isthmus.nets.pieces.ownership import Held
from isthmus.nets.pieces.subnetwork import named_state
from isthmus.records import to_json
from isthmus.trainer.checkpoint.read import Checkpoint
from isthmus.trainer.checkpoint.write import Snapshot, plain_outline
from isthmus.trainer.local.optimizer import state_of, take_up
from isthmus.trainer.local.sharded import local
from isthmus.trainer.rounds.rounds import Rounds
from isthmus.trainer.store.homes import Homes
from isthmus.trainer.strategies import Round
from isthmus.trainer.wire.meter import Meter

FORMAT = 2


@dataclass
class Standing:
    """One worker of a training, with all that outlasts a round.

    Attributes:
        identity: what the training is, the same on all workers.
        rounds: its rounds, its state and its part in the strategy.
        optimizer: of what it trains.
        meter: what it has spent.
        most: parameters and bytes it held at most.
    """

    identity: Mapping[str, Any]
    rounds: Rounds
    optimizer: Optimizer
    meter: Meter
    most: list[int]

    @property
    def steps(self) -> int:
        """Made so far."""
        return self.rounds.state.steps

    def state_dict(self) -> dict[str, Any]:
        """Return all of it; ``torch.save`` writes it and ``torch.load(weights_only=True)`` reads it."""
        module = self.rounds.part.module
        return {
            **self._plain(),
            "format": FORMAT,
            "identity": json.dumps(self._own_identity(), sort_keys=True),
            "tensors": dict(self.rounds.state.tensors),
            "module": {name: local(tensor.detach()) for name, tensor in named_state(module)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`state_dict` has returned.

        Raises:
            InvalidInput: not such a state, or that of another worker or of a training with other settings.
        """
        if state.get("format") != FORMAT:
            raise InvalidInput("`state` must come from Training.state_dict() of this version of isthmus")
        check_identity("`state`", json.loads(state["identity"]), self._own_identity())
        self._take_up(state, state["tensors"].__getitem__, lambda name, held: state["module"][name].detach().clone())
        take_up(self.optimizer, state["optimizer"])

    def snapshot(self, extra: Any) -> Snapshot:
        """Return what this worker puts into a checkpoint, between rounds, with what the user adds."""
        state, shared = self.rounds.state, self._shared()
        homes, here = self._homes(shared), self.rounds.link.index
        shards = {name: state.tensors[name] for name in shared if name in state.tensors}
        if self.rounds.part.store is None:  # every worker has all of every tensor: each saves its share
            shards = {name: _rows(tensor, *homes.rows(name, here)) for name, tensor in shards.items()}
        plain = self._plain()
        if state.held is None and self.rounds.part.store is not None:  # what the module holds is nobody's units now
            plain["optimizer"] = {**plain["optimizer"], "state": {}}
        kept = {
            **plain,
            "module": self._own(shared),
            "noise": _noise(self.rounds.device),
            "meter": _counts(self.meter),
            "most": self.most,
            "extra": extra,
        }
        held = {name: rows for name, rows in shards.items() if len(set(homes.rows(name, here))) == 2}
        return Snapshot(state.number, self.identity, shared, held, kept, homes)

    def resume(self, checkpoint: Checkpoint) -> Any:
        """Take up a checkpoint, by rows from its files; return what the user has added.

        Of one that as many workers have written everything; else what does not hang on who holds which units. Then
        each worker goes on with what one of those that wrote has kept for itself.

        Raises:
            InvalidInput: that of a training with other settings.
        """
        check_identity("the checkpoint", checkpoint.manifest.identity, self.identity)
        link, shared = self.rounds.link, self._shared()
        if checkpoint.manifest.tensors != plain_outline(shared):  # a narrow network is as wide as there are workers
            if checkpoint.workers != link.workers:
                raise InvalidInput(
                    f"`workers` must be {checkpoint.workers}, as many as wrote the checkpoint: with another number "
                    f"what they train is of another shape, got {link.workers}"
                )
            raise InvalidInput("the checkpoint was saved of another network: names or shapes of its tensors differ")
        kept = checkpoint.kept(link.index % checkpoint.workers)
        homes, whole = self._homes(shared), self.rounds.part.store is None

        def value(name: str) -> Tensor:
            if name not in shared:
                return kept["module"][name]
            return checkpoint.rows(name, *((0, homes.count(name)) if whole else homes.rows(name, link.index)))

        def piece(name: str, held: Held) -> Tensor:
            values = kept["module"][name] if name in kept["module"] else checkpoint.part(name, held)
            return values.to(self.rounds.device)

        same = checkpoint.workers == link.workers
        optimizer = kept["optimizer"]
        if not same:
            kept |= {"held": None, "kept": None, "capacities": None}
            optimizer = optimizer if whole else {**optimizer, "state": {}}
        self._take_up(kept, value, piece)
        take_up(self.optimizer, optimizer)
        if same:
            _make_noise(kept["noise"], self.rounds.device)
            self.most[:] = kept["most"]
            for name, count in kept["meter"].items():
                setattr(self.meter, name, count)
        return kept["extra"]

    def _plain(self) -> dict[str, Any]:
        state = self.rounds.state
        return {
            "steps": self.steps,
            "made": state.made,
            "number": state.number,
            "round": _numbers(state.round),
            "held": _numbers(state.held),
            "kept": _numbers(state.kept),
            "behind": state.behind,
            "stale": sorted(state.stale),
            "reference": dict(state.reference),
            "began": state.began,
            "capacities": state.capacities,
            "optimizer": state_of(self.optimizer),
        }

    def _take_up(
        self, plain: Mapping[str, Any], value: Callable[[str], Tensor], piece: Callable[[str, Held], Tensor]
    ) -> None:
        """Take up all but the optimizer.

        Args:
            plain: where the worker stood.
            value: returns what a tensor of the state was, by name.
            piece: returns what the module held of a parameter or buffer, in memory of its own.
        """
        tensors = self.rounds.state.tensors
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(value(name))
        round, held, before = (_round(plain[name]) for name in ("round", "held", "kept"))
        state = self.rounds.state
        state.number, state.round, state.made, state.held = plain["number"], round, plain["made"], held
        state.stale, state.kept, state.behind = frozenset(plain["stale"]), before, plain["behind"]
        state.reference, state.steps = dict(plain["reference"]), plain["steps"]
        state.began = plain.get("began", math.inf)
        capacities = plain.get("capacities")
        state.capacities = None if capacities is None else tuple(capacities)
        self.rounds.part.restore(self.rounds.state, piece)

    def _shared(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Return shape and type of the tensors that are one for all workers between rounds, by name."""
        store = self.rounds.part.store
        if store is not None:
            return {name: (shape, store.types[name]) for name, shape in store.homes.shapes.items()}
        tensors, common = self.rounds.state.tensors, self.rounds.part.common
        return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items() if name in common}

    def _homes(self, shared: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> Homes:
        """Return who saves which rows of them: who is home to them, or, where every worker has all, each a share."""
        store = self.rounds.part.store
        return Homes(self.rounds.link.workers, {n: s for n, (s, _) in shared.items()}) if store is None else store.homes

    def _own(self, shared: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what else the module holds: buffers, of a piece those of its units."""
        store, tensors = self.rounds.part.store, self.rounds.state.tensors
        if store is not None:
            tensors = {name: t.detach() for name, t in named_state(self.rounds.part.module) if name in store.names}
        return {name: tensor for name, tensor in tensors.items() if name not in shared}

    def _own_identity(self) -> dict[str, Any]:
        link = self.rounds.link
        found: dict[str, Any] = to_json({**self.identity, "workers": link.workers, "worker": link.index})
        return found


def check_identity(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse what was saved with other settings.

    Raises:
        InvalidInput: the first setting that differs.
    """
    for name, value in to_json(now).items():
        if before.get(name) != value:
            if name == "network":
                raise InvalidInput(f"{what} was saved of another network: names or shapes of its tensors differ")
            raise InvalidInput(f"{what} was saved with {name} {before.get(name)!r}, this training has {value!r}")


def _rows(tensor: Tensor, start: int, stop: int) -> Tensor:
    return tensor[start:stop] if tensor.dim() else tensor


def _counts(meter: Meter) -> dict[str, Any]:
    return {field.name: getattr(meter, field.name) for field in fields(meter) if not field.name.startswith("_")}


def _noise(device: torch.device) -> dict[str, Tensor]:
    """Return where torch's generators are."""
    cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def _make_noise(states: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def _round(numbers: list[int] | None) -> Round | None:
    return None if numbers is None else Round(numbers[0], tuple(numbers[1:]))


def _numbers(round: Round | None) -> list[int] | None:
    return None if round is None else [round.number, *round.active]
