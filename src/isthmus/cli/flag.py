"""How flags look in the help."""

from __future__ import annotations

import tyro


def flag(default: object, *choices: str) -> object:
    """What the help shows of a flag: the default it has if it is not given, and its choices or what it takes."""
    metavar = f"{{{','.join(choices)}}}" if len(choices) > 1 else choices[0]
    return tyro.conf.arg(help_behavior_hint=f"(default: {default})", metavar=metavar)
