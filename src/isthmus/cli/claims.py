"""Check every numbered statement of the paper on fresh random problems."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from isthmus.lab.claims import CLAIMS, Verdict, check
from isthmus.progress import progress
from isthmus.records import to_json


@dataclass(frozen=True)
class Options:
    """Flags of ``isthmus claims``."""

    cases: int = 25
    """Random problems tried for every statement."""
    seed: int = 0
    """Of the problems."""
    json: bool = False
    """Print one JSON list instead of a table."""


def run(options: Options, command: list[str]) -> None:
    """Check all claims and print the table."""
    verdicts = []
    with progress("checking claims", len(CLAIMS)) as advance:
        for claim in CLAIMS:
            verdicts.append(check(claim, options.cases, options.seed))
            advance(note=claim.place)
    if options.json:
        print(json.dumps(to_json([_row(verdict) for verdict in verdicts])))
        return
    table = Table(title=f"arXiv 2306.16484, {options.cases} random problems a statement", title_justify="left")
    for column in ("where", "statement", "as printed", "what holds", "worst"):
        table.add_column(column, overflow="fold")
    for verdict in verdicts:
        table.add_row(*_cells(verdict))
    console = Console()
    console.print(table)
    console.print("worst: measured/bound for bounds (at most 1), relative error for equalities, of what holds")


def _cells(verdict: Verdict) -> tuple[str, ...]:
    claim = verdict.claim
    printed = "holds" if verdict.printed_holds else f"fails ({verdict.counterexample})"
    stands = claim.corrected or "as printed"
    if verdict.corrected_holds is False:
        stands += " -- but this failed too"
    return (claim.place, claim.statement, printed, stands, f"{verdict.worst:.3g}")


def _row(verdict: Verdict) -> dict[str, Any]:
    claim = verdict.claim
    return {
        "place": claim.place,
        "statement": claim.statement,
        "kind": claim.kind,
        "printed_holds": verdict.printed_holds,
        "printed_worst": verdict.printed_worst,
        "counterexample": verdict.counterexample,
        "corrected": claim.corrected,
        "corrected_holds": verdict.corrected_holds,
        "worst": verdict.worst,
        "cases": verdict.cases,
    }
