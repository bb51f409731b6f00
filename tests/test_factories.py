"""MODULE:FACTORY: found, or refused in one line that says what is wrong."""

import doctest
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus import factories
from isthmus.errors import InvalidInput
from isthmus.factories import call_factory, load_factory, network_and_call

MODULES = {
    "owned_good.py": "size = 3\ndef small():\n    import owned_neighbour\n    return owned_neighbour.VALUE\n",
    "owned_neighbour.py": "VALUE = 41\n",
    "owned_needs.py": "import not_installed_anywhere\n",
    "owned_raises.py": "raise RuntimeError('first\\nsecond')\n",
    "owned_syntax.py": "def (:\n",
    "owned_exits.py": "raise SystemExit(0)\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules, made the current one; the search path and the modules are put back afterwards."""
    for name, code in MODULES.items():
        (tmp_path / name).write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_the_current_folder_is_searched_also_when_the_function_runs(folder: Path) -> None:
    assert load_factory("owned_good:small")() == 41


def test_a_file_written_after_the_last_look_is_found(folder: Path) -> None:
    with pytest.raises(InvalidInput):
        load_factory("owned_late:make")
    (folder / "owned_late.py").write_text("def make():\n    return 'late'\n")
    assert load_factory("owned_late:make")() == "late"


def test_modules_of_a_folder_without_init(folder: Path) -> None:
    (folder / "owned_nets").mkdir()
    (folder / "owned_nets" / "wide.py").write_text("def make():\n    return 'wide'\n")
    assert load_factory("owned_nets.wide:make")() == "wide"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("", "must be MODULE:FACTORY"),
        ("owned_good", "must be MODULE:FACTORY"),
        (":small", "must be MODULE:FACTORY"),
        ("owned_good:", "must be MODULE:FACTORY"),
        ("nets/owned_good.py:small", "not a path"),
        ("owned_nothing:small", "no module 'owned_nothing' in "),
        ("owned_good.py:small", "no module 'owned_good.py'"),
        ("owned_good:smal", "has no 'smal'; did you mean 'small'?"),
        ("owned_good:size", "of type int"),
        ("owned_needs:make", "importing 'owned_needs' fails: ModuleNotFoundError: No module named 'not_installed"),
        ("owned_raises:make", "importing 'owned_raises' fails: RuntimeError: first second"),
        ("owned_syntax:make", "importing 'owned_syntax' fails: SyntaxError: "),
        ("owned_exits:make", "importing 'owned_exits' fails: SystemExit: 0"),
    ],
)
def test_a_bad_target_is_one_line(folder: Path, target: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_factory(target, flag="network")
    assert str(caught.value).startswith("`network` ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_function_that_fails_is_one_line() -> None:
    def make(width: int) -> int:
        return width

    with pytest.raises(InvalidInput, match=r"^`data` 'mine:make' fails: TypeError: .*required positional") as caught:
        call_factory(make, "`data` 'mine:make'")  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (("n", (1,)), ("n", (1,), {})),
        (("n", [1], None), ("n", (1,), {})),
        (("n", (), {"x": 1}), ("n", (), {"x": 1})),
        (["n", (1,)], "must return (network, args) or (network, args, kwargs)"),
        (("n",), "must return (network, args) or (network, args, kwargs)"),
        (("n", 3), "got int and dict"),
        (("n", (1,), 3), "got tuple and int"),
    ],
)
def test_an_example_call_is_a_tuple_and_a_dictionary(made: object, expected: object) -> None:
    if isinstance(expected, tuple):
        assert network_and_call(made, "`model` 'mine:make'") == expected
        return
    with pytest.raises(InvalidInput) as caught:
        network_and_call(made, "`model` 'mine:make'")
    assert str(expected) in str(caught.value)


def test_a_process_started_from_here_finds_the_module(folder: Path) -> None:
    """As the trainer's workers do: spawned, with the parent's search path."""
    (folder / "main_program.py").write_text(
        "import multiprocessing, os\n"
        "from isthmus.factories import load_factory\n"
        "if __name__ == '__main__':\n"
        "    make = load_factory('owned_good:small')\n"
        "    os.chdir('/')\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.apply(make))\n"
    )
    done = subprocess.run([sys.executable, "main_program.py"], capture_output=True, text=True, cwd=folder)
    assert done.stdout == "41\n", done.stderr


def test_doctest() -> None:
    assert doctest.testmod(factories).failed == 0
