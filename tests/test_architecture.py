"""The structure, enforced: imports go one way, and the lab needs no torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import isthmus

SOURCE = Path(isthmus.__file__).parent
# A module imports only from rooms above its own. `cli` is last: nobody imports it but `__main__`.
ROOMS = [
    "version", "errors", "lazy", "frames", "line", "factories", "randomness", "partitions", "strategies", "records",
    "progress", "slow", "data", "lab", "nets", "trainer", "report", "cli", "__main__",
]  # fmt: skip
NETS_ROOMS = ["graph", "axes", "rules", "pieces", "scale", "check", "coupling", "models"]  # the same inside `nets`
FORBIDDEN = {("nets", "lab"), ("trainer", "lab"), ("report", "lab"), ("report", "nets"), ("report", "trainer")}
NO_TORCH = set(ROOMS) - {"nets", "trainer", "cli", "__main__"}
MODULES = sorted(SOURCE.rglob("*.py"))
NETS = sorted((SOURCE / "nets").rglob("*.py"))


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module, given the parts of its path or name: its first part; "" for the package itself."""
    return parts[0].removesuffix(".py") if parts and parts[0] != "__init__.py" else ""


def imports(code: str, folders: tuple[str, ...]) -> list[tuple[int, str, str]]:
    """(line, absolute dotted module, name taken from it or "") of every import in a module of isthmus/FOLDERS.

    Imports inside functions count, and what a package loads lazily: they run sooner or later. Those under ``if
    TYPE_CHECKING`` never do.
    """
    package = ("isthmus", *folders)
    found = []
    for node in run_nodes(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            module = (base + (node.module or "")).rstrip(".")
            found += [(node.lineno, module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Call):
            found += called_imports(node)
    return found


def called_imports(call: ast.Call) -> list[tuple[int, str, str]]:
    """The same for ``import_module("...")`` and for the table of ``load_lazily``."""
    function = getattr(call.func, "id", getattr(call.func, "attr", ""))
    if function == "import_module" and call.args and isinstance(call.args[0], ast.Constant):
        return [(call.lineno, str(call.args[0].value), "")]
    if function == "load_lazily":
        return [(call.lineno, module, name) for name, module in ast.literal_eval(call.args[1]).items()]
    return []


def run_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under ``if TYPE_CHECKING``."""
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield child
            yield from run_nodes(child)


def imported_modules(code: str, folders: tuple[str, ...]) -> list[tuple[int, str]]:
    """(line, absolute dotted module) of every import; ``from isthmus import report`` is an import of the room."""
    return [
        (line, f"{module}.{name}" if module == "isthmus" and name else module)
        for line, module, name in imports(code, folders)
    ]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path: Path) -> None:
    place = path.relative_to(SOURCE).parts
    room = room_of(place)
    wrong = []
    for line, name in imported_modules(path.read_text(), place[:-1]):
        root, _, below = name.partition(".")
        if root == "torch" and room in NO_TORCH:
            wrong.append(f"line {line}: {room} must not import torch")
        if root != "isthmus" or not below or room == "":
            continue
        other = room_of(tuple(below.split(".")))
        if other not in ROOMS:  # a name of the package itself, such as trace: the search for circles sees to those
            continue
        if ROOMS.index(other) > ROOMS.index(room) or (room, other) in FORBIDDEN:
            wrong.append(f"line {line}: {room} must not import {other}")
    assert not wrong, wrong


@pytest.mark.parametrize("path", NETS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_between_the_rooms_of_nets_go_one_way(path: Path) -> None:
    place = path.relative_to(SOURCE).parts
    if place == ("nets", "__init__.py"):  # the table of public names
        return
    wrong = [
        f"line {line}: {place[1]} must not import {module}"
        for line, module, name in imports(path.read_text(), place[:-1])
        for inside in [f"{module}.{name}".removeprefix("isthmus.nets").strip(".").partition(".")[0]]
        if module.startswith("isthmus.nets") and not 0 <= place_of(inside) <= place_of(place[1])
    ]
    assert not wrong, wrong


def place_of(room: str) -> int:
    """The place of a room of nets in their order; -1 for what is none, such as a name of the package itself."""
    return NETS_ROOMS.index(room) if room in NETS_ROOMS else -1


def file_name(path: Path) -> str:
    """The dotted name of a file of isthmus; that of ``lab/__init__.py`` is ``isthmus.lab``."""
    return ".".join(("isthmus", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__")


def import_graph(files: dict[str, tuple[str, tuple[str, ...]]]) -> dict[str, set[str]]:
    """file -> the files it imports, of name -> (code, folders).

    ``from isthmus.lab import theory`` imports the file ``theory``, which Python finds whatever ``lab/__init__.py``
    says. ``from isthmus.lab import Quadratic`` imports ``lab/__init__.py``, which must have run to know Quadratic:
    inside ``lab`` that is a circle. That Python runs ``lab/__init__.py`` before any file of ``lab`` is no edge here, or
    no package could re-export what is in its files.
    """
    return {
        file: {
            target
            for _, module, name in imports(code, folders)
            if (target := f"{module}.{name}" if f"{module}.{name}" in files else module) in files
        }
        for file, (code, folders) in files.items()
    }


def circle(graph: dict[str, set[str]]) -> str | None:
    """A circle of imports as "a -> b -> a", None where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(reversed(error.args[1]))  # graphlib lists what is imported first
    return None


def test_no_file_imports_itself_by_way_of_others() -> None:
    files = {file_name(path): (path.read_text(), path.relative_to(SOURCE).parts[:-1]) for path in MODULES}
    found = circle(import_graph(files))
    assert found is None, f"imports go in a circle: {found}"


def test_the_search_for_circles_sees_what_runs_and_only_that() -> None:
    files = {
        "isthmus.lab": ("from isthmus.lab.a import A\nfrom isthmus.lab import b", ("lab",)),
        "isthmus.lab.a": ("if TYPE_CHECKING:\n    from isthmus.lab import A", ("lab",)),
        "isthmus.lab.b": ("def f():\n    from . import a", ("lab",)),
    }
    assert circle(import_graph(files)) is None
    own_package = files | {"isthmus.lab.a": ("from isthmus.lab import b, A", ("lab",))}
    assert circle(import_graph(own_package)) in ("isthmus.lab -> isthmus.lab.a -> isthmus.lab",
                                                 "isthmus.lab.a -> isthmus.lab -> isthmus.lab.a")  # fmt: skip
    inside_a_function = files | {"isthmus.lab.a": ("def g():\n    import isthmus.lab.b", ("lab",))}
    assert set(str(circle(import_graph(inside_a_function))).split(" -> ")) == {"isthmus.lab.a", "isthmus.lab.b"}
    lazy = files | {"isthmus.lab": ("load_lazily('isthmus.lab', {'A': 'isthmus.lab.a', 'b': 'isthmus.lab'})", ("lab",))}
    assert import_graph(lazy)["isthmus.lab"] == {"isthmus.lab.a", "isthmus.lab.b"}


def test_every_module_lives_in_a_known_room() -> None:
    rooms = {room_of(path.relative_to(SOURCE).parts) for path in MODULES} - {""}
    assert rooms <= set(ROOMS)
    assert {path.name for path in (SOURCE / "nets").iterdir() if path.name[0] != "_"} == set(NETS_ROOMS)


def test_the_check_sees_imports_inside_functions_and_relative_ones() -> None:
    code = "def f():\n    import torch\n    from ..cli import main\n    from isthmus import report\n"
    assert [name for _, name in imported_modules(code, ("lab",))] == ["torch", "isthmus.cli", "isthmus.report"]


@pytest.mark.parametrize(
    "module", ["isthmus", "isthmus.lab", "isthmus.report", "isthmus.cli", "isthmus.cli.analyze", "isthmus.cli.train"]
)
def test_needs_no_torch(module: str) -> None:
    """In a fresh interpreter where importing torch fails, as where the extra is not installed."""
    code = (
        "import sys, importlib\n"
        "class NoTorch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, NoTorch())\n"
        f"importlib.import_module({module!r})\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_lab_loads_no_more_than_it_uses() -> None:
    """Half a second of CPU instead of two: scikit-learn and pandas are for data, but not for those that come along; the
    rest is for drawings and searches.

    ``benchmarks/import_cost.py`` measures it.
    """
    code = (
        "import sys\n"
        "from isthmus.lab import IST, Permutation, Quadratic, theory\n"
        "heavy = {'sklearn', 'pandas', 'matplotlib', 'plotly', 'torch', 'tyro', 'rich', 'concurrent.futures.process',\n"
        "         'scipy.stats', 'scipy.optimize', 'scipy.special'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "theory.stationary(Quadratic.gaussian(2, 4, 0), IST(Permutation(2, 4), 0.01))\n"
        "from isthmus.data import BUNDLED\n"
        "for load in BUNDLED.values(): load()\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_global_randomness_and_no_pickle() -> None:
    """Every draw is keyed, and nothing that is read back can run code.

    `asides.py` draws nothing: it looks whether somebody's network does.
    """
    wrong = []
    for path in (path for path in MODULES if path.name != "asides.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
                dotted = f"{getattr(node.value.value, 'id', '')}.{node.value.attr}.{node.attr}"
                if dotted.startswith("np.random.") and node.attr not in ("Generator", "Philox", "random"):
                    wrong.append(f"{path.name}:{node.lineno} {dotted}")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                if {"pickle", "random", "shelve", "marshal"} & set(names):
                    wrong.append(f"{path.name}:{node.lineno} imports {names}")
    assert not wrong, wrong
