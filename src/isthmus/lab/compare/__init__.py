"""Compare methods on one problem: to which gap, at what cost, beside what theory says."""

from isthmus.lab.compare.figure import figure_config, figure_rows, sweep_rows
from isthmus.lab.compare.result import compare_one
from isthmus.lab.compare.roster import ROSTER
from isthmus.lab.compare.settings import AXES, Comparison, build_problem, build_start
from isthmus.lab.compare.sweep import SWEPT, Cell, cells_of, run_cells

__all__ = [
    "AXES",
    "ROSTER",
    "SWEPT",
    "Cell",
    "Comparison",
    "build_problem",
    "build_start",
    "cells_of",
    "compare_one",
    "figure_config",
    "figure_rows",
    "run_cells",
    "sweep_rows",
]
