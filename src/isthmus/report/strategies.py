"""Names, colours and one-sentence meanings of the strategies: the same on every picture."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Strategy:
    """How a strategy is called, drawn and explained."""

    label: str
    color: str
    meaning: str


STRATEGIES = {
    "ist": Strategy(
        "IST",
        "#0072B2",
        "each worker trains only its own piece of the network; the pieces are then joined",
    ),
    "narrow": Strategy(
        "narrow net",
        "#D55E00",
        "every worker trains the same small network, as wide as one piece of IST, and they average: "
        "the same cost per worker, so the rival IST has to beat; its network is also the cheaper one to use afterwards",
    ),
    "local-sgd": Strategy(
        "local SGD",
        "#E69F00",
        "every worker trains the whole network for some steps, then they average",
    ),
    "data-parallel": Strategy(
        "data parallel",
        "#009E73",
        "every worker holds the whole network and gradients are averaged at every step: "
        "the usual way, dear in bytes",
    ),
}

# How the pieces of IST are dealt: (label, meaning).
LAWS = {
    "uniform": ("new pieces each round", "every round cuts the network into pieces anew"),
    "fixed": ("fixed pieces", "each worker keeps its piece for the whole run"),
    "rotated": ("rotated pieces", "the pieces stay and move to the next worker every round, so each sees all the data"),
    "rolling": ("rolling pieces", "the pieces of different layers move against each other, so all weights are met"),
    "weighted": ("pieces by speed", "every round draws new pieces, larger for faster workers"),
    "overlapping": ("overlapping pieces", "every round draws new pieces of a least size, with some units held twice"),
    "block": ("blocks", "rotated pieces without connections between them: the joined network averages their answers"),
}

# By the name in a run and by the label, so that any picture of a strategy has its colour.
COLORS = {name: known.color for name, known in STRATEGIES.items()} | {
    known.label: known.color for known in STRATEGIES.values()
}
