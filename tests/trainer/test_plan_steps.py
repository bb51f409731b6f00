"""The steps that a plan makes to know how long a step takes are those of the run."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
JOB = """
import resource
import torch
from torch import nn
from isthmus.trainer.plan.plan import Work
from isthmus.trainer.plan.steps import measured

faults = []

def step(module):
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    held = [torch.ones(3 << 18) for _ in range(8)]
    module(held[0][:8]).sum().backward()

work = Work(lambda module: torch.optim.SGD(module.parameters(), lr=0.1), lambda module: None, step=step)
assert measured(nn.Linear(8, 8, device="meta"), work).known
print(faults[-1] - faults[-2])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory as it likes")
def test_memory_is_kept_from_step_to_step() -> None:
    """By itself the C library gives 24 MB back after every step: 6,000 pages, which come anew with the next."""
    done = subprocess.run([sys.executable, "-c", JOB], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 600


@pytest.mark.skipif(HUGE.exists() and "[always]" in HUGE.read_text(), reason="huge pages come with few faults")
def test_memory_is_written_that_was_not_there_before() -> None:
    """Every page of it comes with a fault."""
    job = """
import mmap, resource, torch
from isthmus.trainer.plan.steps import _COPIED, _COPIES, _seconds_of_a_byte

_seconds_of_a_byte(torch.device("cpu"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
_seconds_of_a_byte(torch.device("cpu"))
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * mmap.PAGESIZE / (_COPIED * _COPIES))
"""
    done = subprocess.run([sys.executable, "-c", job], capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0.9
