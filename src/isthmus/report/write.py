"""Run folders in, one page and figures out; written whole or not at all."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from isthmus.errors import RecordError, check_choice
from isthmus.line import Line
from isthmus.progress import progress
from isthmus.records import Run, find_runs, read_run
from isthmus.records.check import made_faults
from isthmus.report.analyze import analysis_sections
from isthmus.report.drawing import LOOKS, draw_figure
from isthmus.report.figure import figure_section
from isthmus.report.model import View
from isthmus.report.other import other_section
from isthmus.report.page import render
from isthmus.report.plots import Section
from isthmus.report.train import training_sections

PAGE = "index.html"
FIGURES = "figures"
FORMATS = tuple(LOOKS)
_log = logging.getLogger("isthmus")

# Kinds of runs, in the order of the page; runs of one kind share pictures.
_KINDS: dict[str, Callable[[Sequence[Run], View], list[Section]]] = {
    "train": training_sections,
    "analyze": lambda runs, _: analysis_sections(runs),
    "figure": lambda runs, _: [figure_section(run) for run in runs],
}
_ANY = View()


def read_runs(paths: Sequence[str | Path]) -> tuple[list[Run], list[str]]:
    """Return the runs among ``paths`` (:func:`isthmus.records.find_runs`), and what is wrong with those left out.

    Raises:
        InvalidInput: no path at all.
        RecordError: no run, or none that is sound; all are named.
    """
    runs, left_out = [], []
    for path in find_runs(paths):
        try:
            runs.append(read_run(path))
        except RecordError as error:
            left_out.append(str(error))
    if not runs:
        raise RecordError("; ".join(left_out))
    return runs, left_out


def sections(runs: Sequence[Run], view: View = _ANY) -> list[Section]:
    """Return the page's sections; their names are distinct."""
    result: list[Section] = []
    for kind, build in _KINDS.items():
        alike = [run for run in runs if run.kind == kind]
        result += build(alike, view) if alike else []
    result += [other_section(run) for run in runs if run.kind not in _KINDS]
    names = [section.name for section in result]
    return [
        replace(section, name=f"{section.name}-{names[:at].count(section.name) + 1}")
        if names.count(section.name) > 1
        else section
        for at, section in enumerate(result)
    ]


def write_report(
    runs: Sequence[str | Path],
    out: str | Path,
    format: str = "png",
    line: Line | None = None,
    target: float | None = None,
) -> Path:
    """Write the page and the figures of some runs into a folder and return the page's path.

    A run that is damaged is left out: one line on the log ``isthmus`` and on the page names it and the fault.

    Everything is drawn in a temporary folder beside ``out`` and moved there at the end, so that a failure leaves what
    was there before. An earlier report in ``out`` is replaced; anything else in it is left alone.

    Args:
        runs: run folders, or folders that hold some.
        out: the folder; gets ``index.html`` and ``figures/*.png``.
        format: of the figures: png, or pdf or svg, which are made for a paper.
        line: over which seconds of trainings are drawn first; None for the one they were made over, or a common one.
        target: accuracy as a share (or loss, where there is none), to which times are given; None for one that all
            reach.

    Raises:
        InvalidInput: no run given, an unknown format, or a target that is not positive.
        RecordError: no run that is sound, or ``out`` cannot be written or holds a page that isthmus did not write.
    """
    folder = Path(out)
    check_choice("format", format, FORMATS)
    view = View(line, target)
    read, left_out = read_runs(runs)
    _check_free(folder)
    for wrong in left_out:
        _log.warning("isthmus: left out of the report: %s", wrong)
    for run in read:
        for fault in made_faults(run.path):
            _log.warning("isthmus: %s is damaged, which the report does not show: %s", run.path, fault)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".report-", dir=folder.parent) as scratch:
            _draw(sections(read, view), read, left_out, Path(scratch), format)
            return _move(Path(scratch), folder)
    except OSError as error:
        raise RecordError(f"cannot write the report to {folder}: {error.strerror or error}") from error


def draw(run: Run, folder: str | Path, format: str = "png") -> list[Path]:
    """Draw the figures of one run into ``folder`` and return the files' paths.

    Args:
        run: what to draw.
        folder: for the files; made where it is missing.
        format: png, or pdf or svg: of the width of a paper's column or page, without a title, letters as letters.

    Raises:
        InvalidInput: an unknown format.
    """
    check_choice("format", format, FORMATS)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    drawn = []
    for section in sections([run]):
        for figure in section.pictures:
            drawn.append(target / f"{figure.name}.{format}")
            draw_figure(figure, drawn[-1])
    return drawn


def _draw(chapters: list[Section], runs: Sequence[Run], left_out: Sequence[str], folder: Path, format: str) -> None:
    figures = [(section, figure) for section in chapters for figure in section.pictures]
    (folder / FIGURES).mkdir()
    with progress("drawing the report", len(figures) + 1) as advance:
        page = render("isthmus report", chapters, runs, left_out)
        (folder / PAGE).write_text(page, encoding="utf-8", errors="replace")
        advance(note="page")
        for section, figure in figures:
            draw_figure(figure, folder / FIGURES / f"{section.name}-{figure.name}.{format}")
            advance(note=figure.name)


def _check_free(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise RecordError(f"{folder} is a file: choose another folder for the report")
    page = folder / PAGE
    if page.exists() and b'name="generator" content="isthmus"' not in page.read_bytes()[:2000]:
        raise RecordError(f"{page} was not written by isthmus: choose another folder for the report")


def _move(scratch: Path, folder: Path) -> Path:
    """Figures first, the page last: whoever sees the new page finds its figures."""
    folder.mkdir(exist_ok=True)
    if (folder / PAGE).exists():
        shutil.rmtree(folder / FIGURES, ignore_errors=True)
    (folder / FIGURES).mkdir(exist_ok=True)
    for drawn in sorted((scratch / FIGURES).iterdir()):
        os.replace(drawn, folder / FIGURES / drawn.name)
    os.replace(scratch / PAGE, folder / PAGE)
    return folder / PAGE
