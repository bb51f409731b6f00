"""Which strategies are tested how."""

from __future__ import annotations

from isthmus.strategies import STRATEGIES

IN_TURN = [name for name, kind in STRATEGIES.items() if not kind.processes]  # whose workers may share a process
TORCH = [name for name, kind in STRATEGIES.items() if kind.processes]  # torch's own
