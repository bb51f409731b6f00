"""Which strategies can do what, as they say it themselves."""

from __future__ import annotations

from isthmus.strategies import STRATEGIES

# That train whatever network there is, by workers of one process too. (A cut of the classes needs other targets, and
# makes a network of another class: it is tested on its own.)
ON_ANY = [
    name for name, kind in STRATEGIES.items() if kind.axes is None and not kind.processes and not kind.by_class
]
TORCH = [name for name, kind in STRATEGIES.items() if kind.processes]  # torch's own
