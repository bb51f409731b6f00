#!/usr/bin/env python3
"""Change one operator, comparison or constant at a time, and see whether a test notices.

    python tools/mutants.py [--module lab/theory] [--count 60] [--seed 0]

A sample of all one-step changes of each module below is tried; files are left alone. The module's tests are collected
and run once, to see which lines each of them executes and how long it takes. Every change then has a forked process of
its own in which the changed functions get their new code, and there the tests that execute the changed statement run,
the quickest first, up to the first failure, and as many as take ``--seconds``: what only a longer look would notice
counts as a survivor. What acts while modules are imported or tests are collected (constants of a
module, defaults) is tried in a process that imports the changed file. Printed is what became of every change, and the
share that was caught. Survivors that docs/mutants.md lists as harmless, by file, line of code and change, count for
nothing, and neither do tolerances (numbers below 1e-5, of which twice as much is as good) and ``strict`` of zip (which
only guards against mistakes).
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib.abc
import importlib.util
import itertools
import math
import os
import pickle
import random
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "isthmus"
HARMLESS = ROOT / "docs" / "mutants.md"

# Where to look for changes, and the tests that should notice them; of slow files only those that are sharp.
MODULES: dict[str, tuple[str, ...]] = {
    "lab/theory": (
        "lab/test_theory_edges.py", "lab/test_spectrum.py", "lab/test_scales.py", "lab/test_fixed_points.py",
        "lab/test_stationary.py", "lab/test_powers.py", "lab/test_lifted.py", "lab/test_free_cuts.py",
        "lab/test_dynamics.py::test_local_steps_and_merges_against_enumeration",
        "lab/test_dynamics.py::test_diagonal_path_equals_the_full_one", "lab/test_dynamics.py::test_refuses",
        "lab/test_dynamics.py::test_a_diverging_course_is_a_result",
        "lab/test_dynamics.py::test_a_simulated_course_that_diverges_is_infinite_in_both_parts",
    ),
    "lab/rates": (
        "lab_methods/test_formulas.py", "lab_methods/test_rates_edges.py", "lab_methods/test_extrapolation.py",
        "lab_methods/test_extremes.py::test_steps_and_rates_go_with_the_scale_of_f",
        "lab_methods/test_extremes.py::test_bounds_and_steps_of_every_method_at_the_ends",
        "lab_methods/test_anchored.py::test_exact_dynamics_agree_with_every_path",
        "lab_methods/test_anchored.py::test_asymptotic_factor_is_the_spectral_radius_of_the_lifted_map",
        "lab_methods/test_anchored.py::test_momentum_is_nesterovs_with_one_round_periods",
    ),
    "lab/compressors": (
        "lab_methods/test_compressors.py", "lab_methods/test_compressor_edges.py",
    ),
    "nets/rules": ("nets/test_rulings.py",),
    "nets/pieces/ownership.py": ("nets/test_ownership.py", "nets/test_ownership_edges.py"),
    "nets/scale/scaling.py": tuple(
        f"nets/test_scaling.py::test_{name}" for name in (
            "one_cut_layer_gives_the_mean_of_the_pieces", "a_branch_counts_as_often_as_a_worker_holds_it",
            "a_branch_that_is_used_twice_is_left_alone", "a_branch_that_cannot_be_scaled_says_why",
            "weights_used_more_than_once", "an_entry_that_meets_several_units_takes_a_factor_only_if_they_agree",
            "weights_inside_a_region", "computed_weights_and_plain_sums_keep_one", "why_says_what_follows",
            "a_norm_absorbs_a_factor_common_to_all_units", "one_worker_and_a_whole_core_need_no_factor",
            "scaled_gives_back_the_very_bits", "readout_search_finds_an_exponent_for_each_axis",
            "readout_search_keeps_the_rule_where_nothing_is_better", "readout_search_goes_no_further_than_its_ends",
            "readout_search_changes_nothing_for_a_tie", "factors_must_fit_in_every_dimension",
            "choices_are_made_by_axis_and_said", "two_axes_of_one_weight_multiply", "readout_search_of_one_axis",
            "factors_of_one_are_left_out_and_no_others",
            "a_sum_against_a_constant_keeps_one", "units_that_a_router_weighs_need_no_factor_by_themselves",
        )
    ),
}  # fmt: skip

OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
SIGNS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Pow: "**", ast.FloorDiv: "//", ast.Mod: "%",
    ast.BitAnd: "&", ast.BitOr: "|", ast.And: "and", ast.Or: "or", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">",
    ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        path: of the file.
        place: of the change among all of the file.
        line: its number.
        statement: first and last line of the statement it is in (of its head, where it has a body).
        at_import: whether it acts while the file is imported.
        code: that line.
        change: "old -> new".
    """

    path: Path
    place: int
    line: int
    statement: tuple[int, int]
    at_import: bool
    code: str
    change: str

    @property
    def module(self) -> str:
        """Its dotted name."""
        parts = self.path.relative_to(SOURCE.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it whatever stands before its line."""
        return str(self.path.relative_to(SOURCE)), self.code, self.change


def changes(tree: ast.Module) -> Iterator[tuple[ast.AST, str, ast.AST]]:
    """Every change: the node, the field to replace in it (``ops`` by their place), the replacement."""
    for node in _code(tree):
        if isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp)) and type(node.op) in OPERATORS:
            yield node, "op", OPERATORS[type(node.op)]()
        elif isinstance(node, ast.Compare):
            for at, op in enumerate(node.ops):
                if type(op) in OPERATORS:
                    yield node, f"ops.{at}", OPERATORS[type(op)]()
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
            yield node, "op", ast.UAdd() if isinstance(node.op, ast.USub) else ast.Not()
        elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)) and not _tolerance(node):
            yield node, "value", ast.Constant(_other(node.value))


def _tolerance(node: ast.Constant) -> bool:
    return isinstance(node.value, float) and 0.0 < node.value < 1e-5


def _other(value: bool | int | float) -> bool | int | float:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) or value == 0 else 2 * value


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run: no annotations, no messages of what is raised, no lists of names."""
    for name, child in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") or getattr(node, "arg", None) == "strict":
            continue
        for one in child if isinstance(child, list) else [child]:
            if not isinstance(one, ast.AST) or isinstance(one, (ast.Raise, ast.JoinedStr)):
                continue
            if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING":
                continue
            if isinstance(one, ast.UnaryOp) and isinstance(one.op, ast.USub) and isinstance(one.operand, ast.Constant):
                yield one
                continue
            yield one
            yield from _code(one)


def mutants_of(path: Path) -> list[Mutant]:
    """Return every change of one file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    home = _homes(tree)
    lines, found = text.splitlines(), []
    for place, (node, name, new) in enumerate(changes(tree)):
        said = f"{_sign(node, name)} -> {_said(node, new)}"
        line = node.lineno  # type: ignore[attr-defined]
        statement, at_import = home[node]
        found.append(Mutant(path, place, line, statement, at_import, lines[line - 1].strip(), said))
    return found


def _homes(tree: ast.Module) -> dict[ast.AST, tuple[tuple[int, int], bool]]:
    """For every node the lines of its statement, and whether that runs at import."""
    found = {}

    def visit(node: ast.AST, lines: tuple[int, int], at_import: bool) -> None:
        found[node] = lines, at_import
        function = isinstance(node, (ast.FunctionDef, ast.Lambda))
        for name, child in ast.iter_fields(node):
            for one in child if isinstance(child, list) else [child]:
                if isinstance(one, ast.stmt):
                    first = min(other.lineno for other in [one, *getattr(one, "decorator_list", [])])
                    body = getattr(one, "body", None)
                    last = body[0].lineno - 1 if body else one.end_lineno
                    visit(one, (first, max(first, int(last or first))), at_import and not function)
                elif isinstance(one, ast.AST):
                    visit(one, lines, at_import and not (function and name == "body"))

    visit(tree, (0, 0), True)
    return found


def _sign(node: ast.AST, name: str) -> str:
    if isinstance(node, ast.Constant):
        return repr(node.value)
    if isinstance(node, ast.UnaryOp):
        return "not" if isinstance(node.op, ast.Not) else "-"
    op = node.ops[int(name[4:])] if isinstance(node, ast.Compare) else node.op  # type: ignore[attr-defined]
    return SIGNS[type(op)]


def _said(node: ast.AST, new: ast.AST) -> str:
    if isinstance(new, ast.Constant):
        return repr(new.value)
    return "(gone)" if isinstance(node, ast.UnaryOp) else SIGNS[type(new)]


def changed(mutant: Mutant) -> ast.Module:
    """Return the file's code with its change."""
    tree = ast.parse(mutant.path.read_text(encoding="utf-8"))
    node, name, new = list(changes(tree))[mutant.place]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        node.operand = ast.UnaryOp(ast.Not(), node.operand)
    elif name.startswith("ops."):
        node.ops[int(name[4:])] = new  # type: ignore[attr-defined]
    else:
        setattr(node, name, new.value if isinstance(new, ast.Constant) else new)
    return ast.fix_missing_locations(tree)


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module with its change."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(self, name: str, path: object, target: object = None) -> object:
        """Answer for that module only."""
        if name != self.mutant.module:
            return None
        package = self.mutant.path.name == "__init__.py"
        return importlib.util.spec_from_file_location(
            name, self.mutant.path, loader=self, submodule_search_locations=[str(self.mutant.path.parent)] * package
        )

    def create_module(self, spec: object) -> None:
        """As usual."""

    def exec_module(self, module: object) -> None:
        """Run the changed code."""
        exec(compile(changed(self.mutant), str(self.mutant.path), "exec"), vars(module))


def recode(mutant: Mutant) -> None:
    """Give every function of the changed file, wherever it is held, the code it has there."""
    new: dict[tuple[str, int], CodeType] = {}

    def collect(code: CodeType) -> None:
        new[code.co_qualname, code.co_firstlineno] = code
        for one in code.co_consts:
            if isinstance(one, CodeType):
                collect(one)

    collect(compile(changed(mutant), str(mutant.path), "exec"))
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__code__.co_filename == str(mutant.path):
            one.__code__ = new[one.__code__.co_qualname, one.__code__.co_firstlineno]


@dataclass
class Seen:
    """What the unchanged tests did: seconds of CPU by test, and by line the tests that execute it ("": importing)."""

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[tuple[str, int], set[str]] = field(default_factory=dict)

    def tests_of(self, mutant: Mutant, seconds: float) -> list[str]:
        """Those that execute the statement, or else something of its file; the quickest first, ``seconds`` in all."""
        found = self._executing(mutant)
        if not found & set(self.seconds):
            found = set().union(*(tests for (path, _), tests in self.lines.items() if path == str(mutant.path)))
        ordered = sorted(found & set(self.seconds), key=self.seconds.__getitem__)
        spent = itertools.accumulate(self.seconds[test] for test in ordered[:-1])
        return ordered[: 1 + sum(total < seconds for total in spent)]

    def at_import(self, mutant: Mutant) -> bool:
        """Whether the statement is executed before the first test."""
        return mutant.at_import or "" in self._executing(mutant)

    def limit(self, tests: list[str]) -> float:
        """Seconds after which a change has made a loop endless."""
        return 3.0 * sum(self.seconds[test] for test in tests) + 30.0

    def _executing(self, mutant: Mutant) -> set[str]:
        first, last = mutant.statement
        return set().union(*(self.lines.get((str(mutant.path), line), set()) for line in range(first, last + 1)))


class Session:
    """A plugin for pytest: runs ``loop`` where all tests are collected.

    Attributes:
        loop: what to do with the tests.
        seen: what is executed in the folder ``watched``.
        stopped: why the loop ended before its time.
    """

    def __init__(self, loop: Callable[[Session, list[Any]], None], watched: str = "") -> None:
        self.loop, self.watched = loop, watched
        self.seen = Seen()
        self.now = self.stopped = ""
        self.failed = False

    def pytest_runtestloop(self, session: Any) -> bool:
        """In place of pytest's own."""
        sys.settrace(None)
        try:
            if session.testsfailed:
                raise SystemExit("the tests must be collected before anything is changed")
            self.loop(self, session.items)
        except SystemExit as stop:  # of which pytest would say no more than that it was raised
            self.stopped = str(stop)
        return True

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note a failure."""
        self.failed |= report.failed

    def run(self, items: list[Any]) -> bool:
        """Run tests up to the first failure: whether all passed."""
        for item, after in itertools.zip_longest(items, items[1:]):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            if self.failed:
                return False
        return True

    def watch(self, items: list[Any]) -> Seen:
        """Run tests: what they execute in the watched folder."""
        for item in items:
            self.now, started = item.nodeid, time.process_time()
            sys.settrace(self.trace)
            passed = self.run([item])
            sys.settrace(None)
            self.seen.seconds[self.now] = time.process_time() - started
            if not passed:
                raise SystemExit(f"{self.now} must pass before anything is changed")
        return self.seen

    def trace(self, frame: FrameType, event: str, given: object) -> Any:
        """Note a line; follow no code of other folders."""
        if not frame.f_code.co_filename.startswith(self.watched):
            return None
        self.seen.lines.setdefault((frame.f_code.co_filename, frame.f_lineno), set()).add(self.now)
        return self.trace


def pytest_with(session: Session, tests: list[str]) -> None:
    """Collect tests and run the session's loop."""
    import pytest

    places = [f"tests/{name}" for name in tests]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--timeout", "0"]
    if session.watched:
        sys.settrace(session.trace)
    code = pytest.main([*options, *places], plugins=[session])
    if session.stopped:
        raise SystemExit(session.stopped)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SystemExit(f"pytest ended with {code!r}")


def forked(work: Callable[[], object], seconds: float = math.inf) -> tuple[int, float, Any]:
    """Do work in a forked process: (exit code, negative where it was stopped; seconds of CPU; what it returned).

    Where it raises, the code is 2, and what is returned says what was raised.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setsid()
        if seconds < math.inf:
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 5))
        code = 2
        try:
            try:
                found, code = work(), 0
            except (Exception, SystemExit) as problem:
                found = f"{type(problem).__name__}: {problem}"
            with os.fdopen(writer, "wb") as file:
                pickle.dump(found, file)
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        answer = file.read()
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, pickle.loads(answer) if answer else None


def _quiet() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def _said_of(code: int, passed: object) -> str:
    """A change with which a process ends by an error (the tests cannot even be imported) is caught."""
    return "stopped" if code < 0 else "survived" if code == 0 and passed else "caught"


def try_in_place(
    place: str, mutants: list[Mutant], seconds: float, tell: Callable[[Mutant, str, float], None]
) -> Seen:
    """Try the changes that do not act at import, on tests that are collected once: what the unchanged ones did."""
    found = Seen()

    def loop(session: Session, items: list[Any]) -> None:
        nonlocal found
        code, _, found = forked(lambda: session.watch(items))
        if code != 0:
            raise SystemExit(f"the tests of {place} must pass before anything is changed: {found}")
        by_name = {item.nodeid: item for item in items}
        for mutant in mutants:
            if found.at_import(mutant):
                continue
            names = found.tests_of(mutant, seconds)

            def attempt(mutant: Mutant = mutant, names: list[str] = names) -> bool:
                recode(mutant)
                return session.run([by_name[name] for name in names])

            code, used, passed = forked(attempt, found.limit(names))
            if code > 0:
                raise SystemExit(f"{mutant.key} could not be tried: {passed}")
            tell(mutant, _said_of(code, passed), used)

    pytest_with(Session(loop, str(SOURCE / place)), list(MODULES[place]))
    return found


def try_imported(mutant: Mutant, seen: Seen, seconds: float) -> tuple[str, float]:
    """Try one change in a process that imports the changed file: what became of it, seconds of CPU."""
    names = seen.tests_of(mutant, seconds)
    passed = True

    def loop(session: Session, items: list[Any]) -> None:
        nonlocal passed
        by_name = {item.nodeid: item for item in items}
        passed = session.run([by_name[name] for name in names])

    def attempt() -> bool:
        _quiet()
        sys.meta_path.insert(0, Changed(mutant))
        pytest_with(Session(loop), sorted({name.split("::")[0].removeprefix("tests/") for name in names}))
        return passed

    code, used, survived = forked(attempt, seen.limit(names))
    return _said_of(code, survived), used


def harmless() -> set[tuple[str, str, str]]:
    """The changes that docs/mutants.md explains: rows of file, code and change in backquotes."""
    rows = HARMLESS.read_text(encoding="utf-8").splitlines() if HARMLESS.exists() else []
    found = (re.match(r"\| `([^`]+\.py)` \| `(.+)` \| (\S+ -> \S+) \| .", row) for row in rows)
    return {match.groups() for match in found if match}  # type: ignore[misc]


def main() -> int:
    """Try a sample of the changes; 1 where less than 95 % of a module's are caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", action="append", choices=MODULES, help="look here only (may be repeated)")
    parser.add_argument("--count", type=int, default=60, help="how many changes to try of each module")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, default=20.0, help="of tests that one change is worth")
    given = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    for name in ("numpy", "scipy.sparse.linalg", "scipy.stats", "hypothesis", "pytest", "torch", "sklearn.datasets"):
        importlib.import_module(name)  # once, before the forks
    enough = True
    for place in given.module or MODULES:
        enough &= try_module(place, given.count, given.seed, given.seconds) >= 0.95
    return 0 if enough else 1


def try_module(place: str, count: int, seed: int, seconds: float) -> float:
    """Try a sample of one module's changes: the share that was caught."""
    files = sorted((SOURCE / place).rglob("*.py")) if (SOURCE / place).is_dir() else [SOURCE / place]
    every = [mutant for path in files for mutant in mutants_of(path)]
    known = harmless()
    wanted = [mutant for mutant in every if mutant.key not in known]
    sample = random.Random(seed).sample(wanted, min(count, len(wanted)))
    set_aside = len(every) - len(wanted)
    print(f"{place}: {len(sample)} of {len(every)} changes ({set_aside} known to be harmless)", flush=True)

    out = os.fdopen(os.dup(1), "w")  # this one stays open where pytest is told to be quiet
    caught: list[bool] = []

    def tell(mutant: Mutant, became: str, used: float) -> None:
        caught.append(became != "survived")
        path, line, change = mutant.key
        print(f"{became:9} {path}:{mutant.line}  {change:14} {line}  ({used:.1f} s)", file=out, flush=True)

    def in_place() -> tuple[Seen, list[bool]]:
        _quiet()
        return try_in_place(place, sample, seconds, tell), caught

    code, _, answer = forked(in_place)
    if code != 0:
        raise SystemExit(answer)
    seen, caught = answer
    for mutant in filter(seen.at_import, sample):
        tell(mutant, *try_imported(mutant, seen, seconds))
    share = sum(caught) / max(len(sample), 1)
    print(f"{place}: caught {sum(caught)} of {len(sample)}, {100 * share:.0f} %", flush=True)
    return share


if __name__ == "__main__":
    sys.exit(main())
