"""Names, colours and one-sentence meanings of strategies and laws: as their registries have them, on every picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isthmus.partitions import LAWS
from isthmus.report.wording import plain
from isthmus.strategies import STRATEGIES

__all__ = ["COLORS", "RIVALS", "STRATEGIES", "law_words"]

RIVALS = tuple(name for name, known in STRATEGIES.items() if known.rival)

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
