"""The structure, enforced: imports go one way, and the lab needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import isthmus

SOURCE = Path(isthmus.__file__).parent
# A module imports only from rooms above its own. `cli` is last: nobody imports it but `__main__`.
ROOMS = [
    "errors", "factories", "randomness", "partitions", "records", "progress", "data",
    "lab", "nets", "trainer", "plan", "report", "cli", "__main__",
]  # fmt: skip
FORBIDDEN = {("nets", "lab"), ("trainer", "lab"), ("report", "lab"), ("report", "nets"), ("report", "trainer")}
NO_TORCH = {"errors", "factories", "randomness", "partitions", "records", "progress", "data", "lab", "report"}
MODULES = sorted(SOURCE.rglob("*.py"))


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module, given the parts of its path or name: its first part; "" for the package itself."""
    return parts[0].removesuffix(".py") if parts and parts[0] != "__init__.py" else ""


def imported_modules(code: str, folders: tuple[str, ...]) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of every import in a module of isthmus/FOLDERS, those inside functions included."""
    package = ("isthmus", *folders)
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            module = base + (node.module or "")
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "isthmus" else [module]
            found += [(node.lineno, name) for name in names]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module":
            literal = node.args[0] if node.args else None
            if isinstance(literal, ast.Constant) and isinstance(literal.value, str):
                found.append((node.lineno, literal.value))
    return found


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
        if other not in ROOMS:  # a name of the package itself, such as __version__
            continue
        if ROOMS.index(other) > ROOMS.index(room) or (room, other) in FORBIDDEN:
            wrong.append(f"line {line}: {room} must not import {other}")
    assert not wrong, wrong


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def files_imported(code: str, name: str, known: set[str]) -> set[str]:
    """The other files that a file imports when it runs, inside its functions too; not those it imports for types."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (members & known) or {node.module or ""}
    return (found & known) - {name}


def circle_in(imports: dict[str, set[str]]) -> list[str]:
    """Names that import each other, directly or not; empty if there are none."""
    left = dict(imports)
    while left:
        free = [name for name, others in left.items() if not others & set(left)]
        if not free:
            return sorted(name for name in left if any(name in others for others in left.values()))
        for name in free:
            del left[name]
    return []


def test_no_two_files_import_each_other() -> None:
    names = {module_name(path): path for path in MODULES}
    imports = {name: files_imported(path.read_text(), name, set(names)) for name, path in names.items()}
    assert circle_in(imports) == []


def test_the_check_sees_circles() -> None:
    code = (
        "if TYPE_CHECKING:\n    from isthmus.a import A\n"
        "def f():\n    from isthmus.b import B\n    from isthmus import c\n    import isthmus.d\n"
    )
    known = {f"isthmus.{letter}" for letter in "abcd"}
    assert files_imported(code, "isthmus.x", known) == {"isthmus.b", "isthmus.c", "isthmus.d"}
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]
    assert circle_in({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_every_module_lives_in_a_known_room() -> None:
    rooms = {room_of(path.relative_to(SOURCE).parts) for path in MODULES} - {""}
    assert rooms <= set(ROOMS)


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


def test_no_global_randomness_and_no_pickle() -> None:
    """Every draw is keyed, and nothing that is read back can run code."""
    wrong = []
    for path in MODULES:
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
