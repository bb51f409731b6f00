"""What ``import isthmus`` shows: one table of lazy names, and everything that repeats it agrees with it."""

import ast
import inspect
import pkgutil
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import isthmus
import isthmus.nets
from isthmus.errors import MissingDependency, missing_dependency

PACKAGES = pytest.mark.parametrize("package", [isthmus, isthmus.nets], ids=["isthmus", "nets"])
NO_TORCH = (
    "import sys\n"
    "class NoTorch:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name == 'torch': raise ModuleNotFoundError(\"No module named 'torch'\", name=name)\n"
    "sys.meta_path.insert(0, NoTorch())\n"
)


def table(package: ModuleType) -> dict[str, str]:
    return vars(package)["_names"]


def typed_imports(package: ModuleType) -> dict[str, str]:
    """What a type checker is told: name -> what it is imported from, from the imports under ``if TYPE_CHECKING``."""
    (block,) = [node for node in ast.parse(inspect.getsource(package)).body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    found = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "only `import X as X` is seen outside"
            found[alias.name] = str(node.module)
    return found


@PACKAGES
def test_table_all_dir_and_types_agree(package: ModuleType) -> None:
    assert typed_imports(package) == table(package)
    assert sorted(package.__all__) == sorted(table(package))
    assert set(table(package)) <= set(dir(package))


@PACKAGES
def test_every_name_is_there_and_is_what_its_module_holds(package: ModuleType) -> None:
    for name, place in table(package).items():
        inside = place == package.__name__
        expected = import_module(f"{place}.{name}") if inside else vars(import_module(place))[name]
        assert getattr(package, name) is expected, name


@PACKAGES
def test_an_unknown_name_is_an_attribute_error(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        package.nonsense  # noqa: B018


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["isthmus", "isthmus.nets"])
def test_importing_loads_neither_torch_nor_scipy(package: str) -> None:
    run(f"import sys, {package}; dir({package}); assert not {{'torch', 'scipy'}} & set(sys.modules)")


def test_the_lab_needs_no_second_import_and_no_torch() -> None:
    run(NO_TORCH + "import isthmus; assert isthmus.lab.Quadratic and isthmus.data and isthmus.report.write_report")


@pytest.mark.parametrize("name", ["isthmus.trace", "isthmus.nets.Coupling", "isthmus.nets.merge"])
def test_without_torch_one_line_says_what_to_install(name: str) -> None:
    run(
        NO_TORCH
        + "import isthmus\n"
        + "from isthmus.errors import MissingDependency\n"
        + f"try: {name}\n"
        + "except MissingDependency as error: said = str(error)\n"
        + f"assert said.startswith(\"{name} needs torch: pip install 'torch>=\"), said\n"
        + "assert 'safetensors' in said and chr(10) not in said, said\n"
    )


@PACKAGES
def test_no_file_has_the_name_of_something_else(package: ModuleType) -> None:
    """Importing a file sets the attribute of its package, whatever stood there."""
    files = {info.name for info in pkgutil.iter_modules(package.__path__)}
    others = {name for name, place in vars(package)["_names"].items() if place != package.__name__}
    assert not files & others


def test_advice_for_a_package_of_no_extra_names_that_package() -> None:
    said = missing_dependency("drawing", ModuleNotFoundError("No module named 'pencil'", name="pencil.lead"))
    assert isinstance(said, MissingDependency)
    assert str(said) == "drawing needs pencil: pip install pencil"


@pytest.mark.parametrize("name", ["isthmus.nets.gone", None])
def test_a_mistake_in_isthmus_itself_is_no_missing_package(name: str | None) -> None:
    error = ImportError("cannot import", name=name)
    assert missing_dependency("drawing", error) is error


