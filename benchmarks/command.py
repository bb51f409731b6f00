"""The command of a run, from its flags."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def train_command(flags: Mapping[str, Any]) -> list[str]:
    """Return ``isthmus train --replace`` with some flags, by their names in Python; one that is None is left out."""
    words = [sys.executable, "-m", "isthmus", "train", "--replace"]
    for name, value in flags.items():
        if value is not None:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return words
