"""What every rule says of its example calls, word for word: rulings.txt is the authority, a line a call.

The probes (test_probes.py) hold most of these calls against the operators themselves. Here stands all that a rule
notes besides: what is summed against what, which sizes follow, what the units seem to be; and what it refuses.
A new call gets its line from ``python -m nets.test_rulings`` in ``tests/``, to be read before it is kept.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from isthmus.nets.axes import terms
from nets.edges import EDGES
from nets.operators import EXAMPLES
from nets.probes import Example, Ruled
from nets.spelled import spelled_call, spelled_ruling

RULINGS = Path(__file__).with_name("rulings.txt")
CALLS = {spelled_call(example): example for example in (*EXAMPLES, *EDGES)}


def rulings() -> dict[str, str]:
    lines = RULINGS.read_text(encoding="utf-8").splitlines()
    return dict(line.split(": ", 1) for line in lines)


@pytest.mark.parametrize("example", [pytest.param(example, id=name) for name, example in CALLS.items()])
def test_a_rule_says_this(example: Example) -> None:
    ruled = Ruled(example)
    assert spelled_ruling(ruled) == rulings()[spelled_call(example)]
    if not ruled.refused:
        results = ruled.node.meta["val"]
        shapes = [tuple(t.shape) for t in ([results] if isinstance(results, torch.Tensor) else results)]
        assert [tuple(map(terms.size, dims)) for dims in ruled.result_dims] == shapes


def test_no_line_is_left_of_a_call_that_is_gone() -> None:
    assert set(rulings()) == set(CALLS)


if __name__ == "__main__":
    RULINGS.write_text("".join(f"{name}: {spelled_ruling(Ruled(each))}\n" for name, each in CALLS.items()), "utf-8")
