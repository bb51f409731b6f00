"""Waiting for what a page shows."""

import time
from typing import Any

_PATIENCE = 30.0  # seconds


def wait_until(page: Any, expression: str, given: Any = None) -> None:
    """Wait until a JavaScript expression, or a function of what is given, is true in a page.

    Playwright's own ``wait_for_function`` looks again from inside the page, by ``eval``, which the pages' content
    security policy forbids: it fails wherever the first look is too early.
    """
    end = time.monotonic() + _PATIENCE
    while not page.evaluate(expression, given):
        assert time.monotonic() < end, f"not so within {_PATIENCE:.0f} s: {expression}"
        page.wait_for_timeout(20)
