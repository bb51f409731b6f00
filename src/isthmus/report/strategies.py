"""Names, colours and one-sentence meanings of the strategies: the same on every picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isthmus.partitions import LAWS
from isthmus.report.wording import plain


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

# By the name in a run and by the label, so that any picture of a strategy has its colour.
COLORS = {name: known.color for name, known in STRATEGIES.items()} | {
    known.label: known.color for known in STRATEGIES.values()
}


def law_words(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return what the law of a run is called and what it means: as the registry has it, or as the run itself says.

    A run says it by ``law_label`` and ``law_meaning``; one that does not is called by its law's name.
    None where the run has no law.
    """
    if not config.get("law"):
        return None
    name = plain(config["law"])
    if name in LAWS:
        return LAWS[name].label, LAWS[name].meaning
    return plain(config.get("law_label") or name), plain(config.get("law_meaning") or "")
