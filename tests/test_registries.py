"""Nothing is forgotten: whatever a recipe of CONTRIBUTING.md adds stands in the tables through which it is tested.

Each test says where the missing row belongs. What is there is read off the packages' files, never off their
``__init__.py``, so that a file nobody imports is seen too.
"""

import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib import import_module
from types import FunctionType, ModuleType
from typing import Any, get_type_hints

import numpy as np
from scipy.sparse import csr_array

import isthmus.data
import isthmus.trainer.strategies
from cases.compressors import ALL as COMPRESSORS
from cases.data import SOURCES
from cases.lab import BOUNDS, SKETCHES, random_quadratic
from cases.methods import BUILDERS, averaged, degenerate
from isthmus import strategies, trainer
from isthmus.data import Dataset, sources
from isthmus.lab import compressors, methods, rates, settings, sketches, theory
from isthmus.lab.compare import ROSTER, Comparison
from isthmus.lab.problems import random_quadratic as random_problem
from isthmus.lab.sketches import SampledSketch
from isthmus.strategies import STRATEGIES, Strategy
from isthmus.trainer.strategies import PARTS, Part

ROW = "add a row to {} in tests/cases/{}.py"


def modules(package: ModuleType) -> list[ModuleType]:
    names = [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [import_module(name) for name in names]


def public(package: ModuleType, kind: type) -> Iterator[Any]:
    """Public classes or functions defined in the files of a package."""
    for module in modules(package):
        for name, value in vars(module).items():
            if isinstance(value, kind) and value.__module__ == module.__name__ and not name.startswith("_"):
                yield value


def without(wanted: Iterable[type], rows: Iterable[Any]) -> set[str]:
    """Names of the classes of which no row is an instance."""
    given = list(rows)
    return {kind.__name__ for kind in wanted if not any(isinstance(row, kind) for row in given)}


def sketch_classes() -> list[type]:
    found = [kind for kind in public(sketches, type) if issubclass(kind, sketches.Sketch)]
    of_others = (SampledSketch, sketches.Grouped)  # which settings do not describe
    return [kind for kind in found if not inspect.isabstract(kind) and kind not in of_others]


def method_classes() -> list[type]:
    found = [kind for kind in public(methods, type) if hasattr(kind, "init") and hasattr(kind, "step")]
    protocols = (methods.Method, methods.CountedMethod)
    return [kind for kind in found if kind not in protocols and not inspect.isabstract(kind)]


def test_every_sketch_has_a_row() -> None:
    rows = [build(random_quadratic(n, d)) for n, d, build in SKETCHES.values()]
    assert not without(sketch_classes(), rows), ROW.format("SKETCHES", "lab")


def test_every_sketch_is_exported_and_can_be_analyzed() -> None:
    names = {kind.__name__ for kind in sketch_classes()}
    assert names <= set(sketches.__all__), "export it in lab/sketches/__init__.py"
    problem = random_quadratic(4, 4)
    built = [settings.build_sketch(settings.Settings(sketch=name, workers=4), problem) for name in settings.SKETCHES]
    assert not without(sketch_classes(), built), "add a row to SKETCHES in lab/settings.py"


def test_every_method_has_a_row() -> None:
    rows = [build(3, 6) for build in BUILDERS.values()]
    rows.append(averaged(rows[0]))
    assert not without(method_classes(), rows), ROW.format("BUILDERS", "methods")


def test_every_method_has_a_case_in_which_it_is_gradient_descent() -> None:
    lacking = without(method_classes(), degenerate(3, 6, 0.1))
    assert lacking == {"GradientDescent", "Averaged"}, "add a row to `degenerate` in tests/cases/methods.py"


def test_every_method_is_exported_and_can_be_compared() -> None:
    names = {kind.__name__ for kind in method_classes()}
    assert names <= set(methods.__all__), "export it in lab/methods/__init__.py"
    problem = random_problem(3, 6, 5.0, 0.5, 0)
    built = [entry.build(problem, Comparison()) for entry in ROSTER.values()]
    assert without(method_classes(), built) == {"Averaged"}, "add a row to ROSTER in lab/compare/roster.py"


def test_every_compressor_has_a_row() -> None:
    found = [kind for kind in public(compressors, type) if issubclass(kind, compressors.Compressor)]
    assert {kind.__name__ for kind in found if not inspect.isabstract(kind)} <= set(compressors.__all__)
    assert not without(found, COMPRESSORS.values()), ROW.format("COMPRESSORS", "compressors")


def test_every_exact_bound_has_a_row_and_is_exported() -> None:
    found = {one for one in public(theory, FunctionType) if get_type_hints(one).get("return") is theory.ExactBound}
    assert found == {theorem for theorem, _, _ in BOUNDS.values()}, ROW.format("BOUNDS", "lab")
    assert {one.__name__ for one in found} <= set(theory.__all__), "export it in lab/theory/__init__.py"


def test_every_bound_of_a_method_is_known_and_its_method_tested() -> None:
    """``bounds`` and ``largest_stepsize`` know what is registered in files that ``lab/rates/__init__.py`` imports."""
    code = "import sys, isthmus.lab.rates; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {module.__name__ for module in modules(rates)} <= set(loaded), "import it in lab/rates/__init__.py"
    judged = set(rates.bounds.registry) - {object}
    assert judged == set(rates.largest_stepsize.registry) - {object}
    assert judged <= {type(build(3, 6)) for build in BUILDERS.values()}, ROW.format("BUILDERS", "methods")


def test_every_strategy_is_registered_and_can_run() -> None:
    found = {kind for kind in public(strategies, type) if issubclass(kind, Strategy) and kind is not Strategy}
    assert found == set(STRATEGIES.values()), "add a row to STRATEGIES in strategies/choose.py"
    assert {kind.__name__ for kind in found} <= set(strategies.__all__), "export it in strategies/__init__.py"
    assert found == set(PARTS), "add a row to PARTS in trainer/strategies/__init__.py"
    assert all(kind.name == name for name, kind in STRATEGIES.items())
    assert len({kind.color.lower() for kind in found}) == len(found), "every strategy has a colour of its own"


def test_every_part_belongs_to_a_strategy() -> None:
    parts = {kind for kind in public(trainer.strategies, type) if hasattr(kind, "close") and kind is not Part}
    bases = {base for kind in PARTS.values() for base in kind.__mro__[1:]}  # what some have in common
    assert parts - bases <= set(PARTS.values()) <= parts, "add a row to PARTS in trainer/strategies/__init__.py"


def names_in(functions: Iterable[Any]) -> set[str]:
    """Names of the functions and of what they call."""
    plain = [one for one in functions if isinstance(one, FunctionType)]
    return {name for one in plain for name in (one.__name__, *one.__code__.co_names)}


def test_every_source_of_data_has_a_row() -> None:
    names = {*sources.BUNDLED, *(f"{kind}:" for kind in sources.READERS)}
    assert set(SOURCES) == names, ROW.format("SOURCES", "data")


def test_every_reader_is_a_source() -> None:
    """A public function of ``isthmus.data`` that makes a data set of its arguments or of nothing."""
    rows = [*sources.BUNDLED.values(), *(reader.read for reader in sources.READERS.values())]
    mentioned = names_in(rows) | names_in(vars(sources)[name] for name in names_in(rows) & {*vars(sources)})
    for one in public(isthmus.data, FunctionType):
        hints = get_type_hints(one, localns={"csr_array": csr_array})  # a name that is loaded when it is needed
        makes = hints.pop("return", None) is Dataset and Dataset not in hints.values()
        if makes and one.__module__ != sources.__name__:
            assert one.__name__ in mentioned, f"add {one.__name__} to BUNDLED or READERS in data/sources.py"
            assert one.__name__ in isthmus.data.__all__, f"export {one.__name__} in data/__init__.py"


def test_the_search_sees_what_is_there() -> None:
    """Otherwise the tests above would pass on nothing."""
    assert {"Permutation", "Bernoulli"} <= {kind.__name__ for kind in sketch_classes()}
    assert {"IST", "MARINA"} <= {kind.__name__ for kind in method_classes()}
    assert without([int, str], [3, np.float64(2)]) == {"str"}
