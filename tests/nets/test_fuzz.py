"""Random programs: whatever the tracer lets be cut, all at once, equals the masked whole.

``ISTHMUS_FUZZ=5000`` tries that many programs (default: 300); ``ISTHMUS_FUZZ_SEED`` starts elsewhere.
"""

import os

import pytest
import torch

from isthmus import trace
from isthmus.nets.check.verify import verify
from nets.programs import Batch, Closed, RandomProgram

COUNT = int(os.environ.get("ISTHMUS_FUZZ", "300"))
START = int(os.environ.get("ISTHMUS_FUZZ_SEED", "0"))
GROUP = 20


def failures(model: torch.nn.Module) -> str | None:
    """Cut everything that can be cut, at once; return what then differs."""
    x = torch.ones(()) if isinstance(model, Closed) else torch.randn(3, 6)
    coupling = trace(model, (x,))
    everything = coupling.select(["*"]) if coupling.axes else coupling
    verdict = verify(everything, model, (x,), seeds=(0, 1))
    return None if verdict.passed else verdict.summary()


def kind(start: int) -> type[Batch]:
    """Every third group has an open batch, which takes three times as long to export."""
    return Batch if (start - START) // GROUP % 3 == 0 else Closed


@pytest.mark.parametrize("start", range(START, START + COUNT, GROUP))
def test_random_programs(start: int) -> None:
    seeds = list(range(start, min(start + GROUP, START + COUNT)))
    try:
        wrong = failures(kind(start)(seeds))
    except Exception as error:  # name the program: a group says nothing
        wrong = str(error)
    if wrong is not None:
        alone = [(seed, RandomProgram(seed).names, _one(kind(start), seed)) for seed in seeds]
        pytest.fail(f"programs that fail: {[each for each in alone if each[2]][:3]} (together: {wrong[:300]})")


def _one(kind: type[Batch], seed: int) -> str | None:
    try:
        return failures(kind([seed]))
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]


def test_most_programs_can_be_cut() -> None:
    """Two of three, at least; the others use a dimension in a way that leaves nothing to cut."""
    axes = trace(Closed(list(range(24))), (torch.ones(()),)).axes
    assert len({member.name.split(".")[1] for axis in axes for member in axis.members if "." in member.name}) >= 16


@pytest.mark.parametrize(
    "seeds",
    [
        [7573],  # one unit of softmax's axis, taken by its place and written to in place
        [21541, 21542],  # a unit taken by its place and a bias: not a sum that goes on without the unit
    ],
)
def test_programs_that_failed_once(seeds: list[int]) -> None:
    assert failures(Closed(seeds)) is None
