"""The tool behind docs/mutants.md: what it changes, and what it says where something goes wrong."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

TOOL = Path(__file__).resolve().parents[1] / "tools" / "mutants.py"
spec = importlib.util.spec_from_file_location("mutants_tool", TOOL)
assert spec is not None
assert spec.loader is not None
mutants = sys.modules["mutants_tool"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutants)

CODE = '''LEAST = 2


def f(a: float, b: float = 0.5, few: bool = False) -> float:
    if not few and a < LEAST:
        raise ValueError(f"{a + b}")
    return -a + b * 1e-9
'''


def test_every_operator_comparison_and_constant_changes_once(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text(CODE)
    found = mutants.mutants_of(tmp_path / "m.py")
    assert [(each.line, each.change, each.at_import) for each in found] == [
        (1, "2 -> 3", True), (4, "0.5 -> 1.0", True), (4, "False -> True", True), (5, "and -> or", False),
        (5, "not -> (gone)", False), (5, "< -> <=", False), (7, "+ -> -", False), (7, "- -> (gone)", False),
        (7, "* -> /", False),
    ]  # fmt: skip
    same = -3.0 + 0.5 * 1e-9
    values = [same, -3.0 + 1e-9, same, "3.5", same, same, -3.0 - 0.5 * 1e-9, 3.0 + 0.5 * 1e-9, -3.0 + 0.5 / 1e-9]
    assert [_value(mutants.changed(each)) for each in found] == values


def _value(tree: ast.Module) -> float | str:
    names: dict = {}
    exec(compile(tree, "m.py", "exec"), names)
    try:
        return names["f"](3.0)
    except ValueError as refused:
        return str(refused)


def test_a_change_that_no_test_executes_survives() -> None:
    assert mutants.Session(lambda session, items: None).run([])


def test_a_change_that_cannot_be_imported_is_caught() -> None:
    for work, became in ((lambda: True, "survived"), (lambda: False, "caught"), (lambda: [] - [], "caught")):
        code, _, passed = mutants.forked(work)
        assert mutants._said_of(code, passed) == became


def test_what_goes_wrong_in_a_process_is_said() -> None:
    assert mutants.forked(lambda: [1, 2])[::2] == (0, [1, 2])
    assert mutants.forked(lambda: 1 // 0)[::2] == (2, "ZeroDivisionError: integer division or modulo by zero")


def test_every_change_that_is_listed_as_harmless_is_one() -> None:
    places = [mutants.SOURCE / place for place in mutants.MODULES]
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*.py")))]
    every = {each.key for path in files for each in mutants.mutants_of(path)}
    listed = mutants.harmless()
    assert len(listed) > 100
    assert listed <= every, listed - every
