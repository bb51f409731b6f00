"""The examples in the lab's docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import isthmus.lab.theory
from isthmus.lab import claims, figures, methods, sketches

PACKAGES = (isthmus.lab.theory, claims, figures, methods, sketches)
MODULES = [
    *(info.name for package in PACKAGES for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")),
    "isthmus.lab.arrays",
    "isthmus.lab.quadratics",
    "isthmus.lab.simulate",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    failed, _ = doctest.testmod(importlib.import_module(name))
    assert failed == 0


def test_there_are_examples() -> None:
    tried = [doctest.testmod(importlib.import_module(name)).attempted for name in MODULES]
    assert sum(tried) > 20
