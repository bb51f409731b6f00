"""Runs of a kind that has no pictures of its own: what their summary says, as a table."""

from __future__ import annotations

from isthmus.records import Run
from isthmus.report.plots import Section, Table, slug
from isthmus.report.wording import plain


def other_section(run: Run) -> Section:
    """Return a section with the plain entries of the summary."""
    rows = tuple((key, plain(value)) for key, value in run.summary.items() if not isinstance(value, (list, dict)))
    table = Table("Summary", "", ("name", "value"), rows, "ll")
    title = f"{run.kind}: {run.path.name}"
    return Section(slug(f"{run.kind} {run.path.name}"), title, tables=(table,) if rows else ())
