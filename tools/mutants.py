#!/usr/bin/env python3
"""Change one operator, comparison or constant at a time, and see whether a test notices.

    python tools/mutants.py [--module lab/theory] [--count 60] [--seed 0] [--processes 1]

A sample of all one-step changes of the modules below is tried, each in a process of its own that runs the module's
tests up to the first failure; files are left alone, a changed module lives in its process only. Printed is what became
of every change, and the share that was caught. Survivors that docs/mutants.md lists as harmless, by file, line of
code and change, count for nothing.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.util
import math
import os
import random
import resource
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "isthmus"
HARMLESS = ROOT / "docs" / "mutants.md"

# Where to look for changes, and the tests that should notice them, the quickest first.
MODULES: dict[str, tuple[str, ...]] = {
    "lab/theory": (
        "lab/test_spectrum.py", "lab/test_scales.py", "lab/test_tails.py", "lab/test_doctests.py",
        "lab/test_fixed_points.py", "lab/test_stationary.py", "lab/test_dynamics.py",
    ),
    "lab/rates": (
        "lab_methods/test_extrapolation.py", "lab/test_scales.py", "lab_methods/test_anchored.py",
        "lab_methods/test_bounds.py", "lab_methods/test_methods.py",
    ),
    "lab/compressors": (
        "lab_methods/test_compressors.py", "lab_methods/test_accounting.py", "lab_methods/test_methods.py",
    ),
    "nets/rules": (
        "nets/test_probes.py", "nets/test_rules.py", "nets/test_calls.py", "nets/test_refusals.py",
        "nets/test_terms.py",
    ),
    "nets/pieces/ownership.py": ("nets/test_ownership.py", "nets/test_sizes.py"),
    "nets/scale/scaling.py": ("nets/test_scaling.py", "nets/test_norms.py"),
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
        code: that line.
        change: "old -> new".
        tests: that should notice.
    """

    path: Path
    place: int
    line: int
    code: str
    change: str
    tests: tuple[str, ...]

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
        elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            yield node, "value", ast.Constant(_other(node.value))


def _other(value: bool | int | float) -> bool | int | float:
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) or value == 0 else 2 * value


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes that run: no annotations, no messages of what is raised, no lists of names."""
    for name, child in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
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


def mutants_of(path: Path, tests: tuple[str, ...]) -> list[Mutant]:
    """Return every change of one file."""
    text = path.read_text(encoding="utf-8")
    lines, found = text.splitlines(), []
    for place, (node, name, new) in enumerate(changes(ast.parse(text))):
        said = f"{_sign(node, name)} -> {_said(node, new)}"
        line = node.lineno  # type: ignore[attr-defined]
        found.append(Mutant(path, place, line, lines[line - 1].strip(), said, tests))
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


def run_tests(tests: tuple[str, ...], mutant: Mutant | None, seconds: float) -> tuple[int, float]:
    """Run tests in a forked process: (pytest's exit code, negative where it was stopped; seconds of CPU)."""
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 5))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        code = 2
        try:
            import pytest

            if mutant is not None:
                sys.meta_path.insert(0, Changed(mutant))
            places = [f"tests/{name}" for name in tests]
            code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *places])
        finally:
            os._exit(int(code))
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime


def harmless() -> set[tuple[str, str, str]]:
    """The changes that docs/mutants.md explains: rows of file, code and change in backquotes."""
    rows = HARMLESS.read_text(encoding="utf-8").splitlines() if HARMLESS.exists() else []
    listed = [row.strip("| ").split(" | ") for row in rows if row.startswith("| `")]
    return {(file.strip("` "), code.strip("` "), change.strip("` ")) for file, code, change, *_ in listed}


def main() -> int:
    """Try a sample of the changes; 1 where less than 95 % are caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", action="append", choices=MODULES, help="look here only (may be repeated)")
    parser.add_argument("--count", type=int, default=60, help="how many changes to try")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--seconds", type=float, default=600.0, help="of CPU that a module's tests may take unchanged")
    parser.add_argument("--processes", type=int, default=1)
    given = parser.parse_args()
    os.chdir(ROOT)
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    for name in ("numpy", "scipy.sparse.linalg", "scipy.stats", "hypothesis", "pytest", "torch"):
        importlib.import_module(name)  # once, before the forks
    every = [
        mutant
        for place in given.module or MODULES
        for path in sorted((SOURCE / place).rglob("*.py") if (SOURCE / place).is_dir() else [SOURCE / place])
        for mutant in mutants_of(path, MODULES[place])
    ]
    known = harmless()
    wanted = [mutant for mutant in every if mutant.key not in known]
    sample = random.Random(given.seed).sample(wanted, min(given.count, len(wanted)))
    print(f"{len(sample)} of {len(every)} changes ({len(every) - len(wanted)} known to be harmless)", flush=True)
    limits = {}
    for tests in {mutant.tests for mutant in sample}:
        code, used = run_tests(tests, None, given.seconds)
        if code != 0:
            raise SystemExit(f"{' '.join(tests)} must pass before anything is changed, got exit code {code}")
        limits[tests] = 3.0 * used + 30.0  # a change may make a loop endless
    caught = 0
    with ThreadPoolExecutor(given.processes) as pool:
        runs = [(mutant, pool.submit(run_tests, mutant.tests, mutant, limits[mutant.tests])) for mutant in sample]
        for mutant, run in runs:
            code, used = run.result()
            said = "survived" if code == 0 else "caught" if code > 0 else "endless"
            caught += code != 0
            path, line, change = mutant.key
            print(f"{said:9} {path}:{mutant.line}  {change:14} {line}  ({used:.0f} s)", flush=True)
    print(f"caught {caught} of {len(sample)}, {100 * caught / max(len(sample), 1):.0f} %")
    return 0 if caught >= 0.95 * len(sample) else 1


if __name__ == "__main__":
    sys.exit(main())
