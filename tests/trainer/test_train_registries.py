"""Nothing is forgotten: a strategy, a law, an optimizer stands in all the tables that people and tests go by."""

from __future__ import annotations

import dataclasses
import pkgutil
import re
from importlib import import_module

import pytest

import isthmus.strategies
import isthmus.trainer.strategies
from cases.laws import LAW_CASES
from isthmus.errors import InvalidInput
from isthmus.partitions import LAWS, Law
from isthmus.report.strategies import COLORS
from isthmus.strategies import STRATEGIES, Strategy
from isthmus.trainer import configure
from isthmus.trainer.config import FLAGS, OPTIMIZERS, SCHEDULES
from isthmus.trainer.strategies import PARTS, Worker, part_of
from isthmus.trainer.task.network import given
from isthmus.trainer.wire.exchange import Alone


def defined_in(package: str, base: type) -> set[type]:
    """Classes derived from another in the files of a package, also in those that nobody imports."""
    path = import_module(package).__path__
    modules = [import_module(info.name) for info in pkgutil.walk_packages(path, f"{package}.")]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return {kind for kind in found if issubclass(kind, base) and kind is not base}


def test_every_strategy_is_registered_and_exported() -> None:
    kinds = defined_in("isthmus.strategies", Strategy)
    assert kinds == set(STRATEGIES.values()), "add it to STRATEGIES in isthmus/strategies/choose.py"
    assert {kind.__name__ for kind in kinds} <= set(isthmus.strategies.__all__), "export it in strategies/__init__.py"


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_a_part_and_all_that_people_see(name: str) -> None:
    kind = STRATEGIES[name]
    assert kind in PARTS, "add a row to PARTS in isthmus/trainer/strategies/__init__.py"
    assert {"name", "label", "color", "meaning"} <= set(vars(kind)), "say its name, label, color and meaning"
    assert re.fullmatch(r"#[0-9A-F]{6}", kind.color)
    assert COLORS[name] == COLORS[kind.label] == kind.color
    assert len(kind.meaning.split()) > 5
    assert kind().record()["strategy"] == name
    assert isinstance(kind().dealt, Law) == kind.cuts


def test_strategies_are_told_apart() -> None:
    for what in ("label", "color", "meaning"):
        assert len({getattr(kind, what) for kind in STRATEGIES.values()}) == len(STRATEGIES), what
    assert [kind.rival for kind in STRATEGIES.values()].count(False) == 1


def test_a_strategy_without_a_part_is_refused() -> None:
    @dataclasses.dataclass(frozen=True)
    class Mine(Strategy):
        """Nobody knows how it runs."""

        name = "mine"

    torch = pytest.importorskip("torch")
    network = given(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))
    with pytest.raises(InvalidInput, match=r"register Mine in isthmus\.trainer\.strategies\.PARTS"):
        part_of(Mine(), Worker(Alone(), network, 0))


def test_every_law_has_a_case_that_is_trained() -> None:
    assert set(LAW_CASES) == set(LAWS), "add a line to LAW_CASES in tests/cases/laws.py"


def test_every_number_of_a_strategy_law_or_optimizer_has_a_flag() -> None:
    kinds = [*STRATEGIES.values(), *LAWS.values(), *OPTIMIZERS.values(), *SCHEDULES.values()]
    fields = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert fields <= set(FLAGS), "add the flag to FLAGS in trainer/config/flags.py and to a group in cli/train.py"


def test_every_optimizer_and_schedule_is_found_by_its_name() -> None:
    assert {type(configure(optimizer=name).optimizer) for name in OPTIMIZERS} == set(OPTIMIZERS.values())
    assert {type(configure(schedule=name).schedule) for name in SCHEDULES} == set(SCHEDULES.values())
