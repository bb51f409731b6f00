"""Where one worker stands, as plain data that ``torch.save`` writes and ``torch.load(weights_only=True)`` reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from isthmus.errors import InvalidInput
from isthmus.records import to_json
from isthmus.trainer.rounds.rounds import Rounds
from isthmus.trainer.strategies import Round, State

FORMAT = 1


def state_dict(
    identity: Mapping[str, Any], steps: int, rounds: Rounds, module: nn.Module, optimizer: Optimizer
) -> dict[str, Any]:
    """Return the state of a worker: what it keeps between rounds, what it trains, its optimizer, where it is."""
    state = rounds.state
    return {
        "format": FORMAT,
        "identity": json.dumps(to_json(identity), sort_keys=True),
        "steps": steps,
        "made": rounds.made,
        "number": state.number,
        "round": _plain(state.round),
        "held": _plain(state.held),
        "stale": sorted(state.stale),
        "kept": dict(state.tensors),
        "module": {name: t.detach() for name, t in (*module.named_parameters(), *module.named_buffers())},
        "optimizer": optimizer.state_dict(),
    }


def load_state_dict(
    state: Mapping[str, Any], identity: Mapping[str, Any], rounds: Rounds, module: nn.Module, optimizer: Optimizer
) -> int:
    """Take up a worker's state; return the steps it had made.

    Raises:
        InvalidInput: not such a state, or that of another worker or of a training with other settings.
    """
    if state.get("format") != FORMAT:
        raise InvalidInput("`state` must come from Training.state_dict() of this version of isthmus")
    before, now = json.loads(state["identity"]), to_json(identity)
    for name, value in now.items():
        if before.get(name) != value:
            raise InvalidInput(f"`state` was saved with {name} {before.get(name)!r}, this training has {value!r}")
    round, held = _round(state["round"]), _round(state["held"])
    rounds.state = State(dict(state["kept"]), state["number"], round, held, frozenset(state["stale"]))
    rounds.made = state["made"]
    rounds.part.restore(rounds.state, state["module"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["steps"])


def _round(plain: list[int] | None) -> Round | None:
    return None if plain is None else Round(plain[0], tuple(plain[1:]))


def _plain(round: Round | None) -> list[int] | None:
    return None if round is None else [round.number, *round.active]
