"""Fused recurrent networks: gates share their units, and so do layers and directions through the state they return."""

from __future__ import annotations

from isthmus.nets.axes import terms
from isthmus.nets.axes.call import Call, NoRule
from isthmus.nets.axes.records import Value
from isthmus.nets.axes.registry import rule
from isthmus.nets.axes.terms import Term

_GATES = {"aten::lstm": 4, "aten::gru": 3, "aten::rnn_tanh": 1, "aten::rnn_relu": 1}


@rule(*(f"{name}.input" for name in _GATES))
def recurrent(call: Call) -> Value:
    """weight_ih [gates x h, in], weight_hh [gates x h, h], biases [gates x h], per layer and direction."""
    gates = _GATES[call.node.target._schema.name]  # type: ignore[union-attr]
    states = call["hx"] if isinstance(call["hx"], (list, tuple)) else [call["hx"]]
    said, hidden = call.dims(states[0])[-1], call.dims(states[-1])[-1]  # two sizes where the state is projected
    per_cell = 4 if call["has_biases"] else 2
    directions = 2 if call["bidirectional"] else 1
    projected = len(call["params"]) != per_cell * directions * call["num_layers"]
    per_cell += projected
    if len(call["params"]) != per_cell * directions * call["num_layers"]:
        raise NoRule("weights it does not know")
    if projected:
        call.freeze(hidden, "torch tells a projection by its sizes: what it projects from must stay the larger")
    else:
        call.unify(said, hidden)
    below = call.dims(call["input"])[-1]
    for layer in range(call["num_layers"]):
        for direction in range(directions):
            first = (layer * directions + direction) * per_cell
            params = call["params"][first : first + per_cell]
            _cell(call, params[: per_cell - projected], gates, hidden, said, below)
            if projected:
                call.unify(call.dims(params[-1])[0], said)
                call.unify(call.dims(params[-1])[1], hidden)
                call.contract(params[-1], 1, "weight")
        below = terms.cat([said] * directions)
    for state in states:
        for term in call.dims(state)[:-1]:
            call.freeze(term, "layers and batch of a recurrent state")
    for term in call.dims(call["input"])[:-1]:
        call.freeze(term, "positions and batch of a recurrent network")
    return [(*call.dims(call["input"])[:-1], below), *(call.dims(state) for state in states)]


@rule("aten::gru_cell", "aten::rnn_tanh_cell", "aten::rnn_relu_cell", "aten::lstm_cell")
def cell(call: Call) -> Value:
    """One step: the state follows the gates' units."""
    states = call["hx"] if isinstance(call["hx"], (list, tuple)) else [call["hx"]]
    gates = _GATES[call.node.target._schema.name.removesuffix("_cell")]  # type: ignore[union-attr]
    *batch, hidden = call.dims(states[0])
    for state in states[1:]:
        call.broadcast([call.dims(state), (*batch, hidden)])
    call.broadcast([call.dims(call["input"])[:-1], tuple(batch)])
    params = [call[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if call[name] is not None]
    _cell(call, params, gates, hidden, hidden, call.dims(call["input"])[-1])
    result = (*batch, hidden)
    return [result, result] if len(states) == 2 else result


def _cell(call: Call, params: list[object], gates: int, hidden: Term, said: Term, below: Term) -> None:
    into, across, *biases = params
    rows = terms.cat([hidden] * gates)
    call.unify(call.dims(into)[0], rows)
    call.unify(call.dims(across)[0], rows)
    for bias in biases:
        call.unify(call.dims(bias)[0], rows)
    call.unify(call.dims(into)[1], below)
    call.unify(call.dims(across)[1], said)
    for weight in (into, across):  # what a lacking unit says counts as zero, to its own layer and from the one below
        call.contract(weight, 1, "weight")  # type: ignore[arg-type]
