"""Threads that a library starts for itself wait for whoever wakes them."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from isthmus.trainer.wire.threads import patient

if sys.platform != "linux":
    pytest.skip("other systems have no such threads", allow_module_level=True)


@contextmanager
def waiting(first: int | None = None) -> Iterator[int]:
    """A thread that waits, of a kind that it chooses itself if one is given; yields its number."""
    told, end = threading.Event(), threading.Event()

    def run() -> None:
        if first is not None:
            os.sched_setscheduler(0, first, os.sched_param(0))
        told.set()
        end.wait()

    thread = threading.Thread(target=run)
    thread.start()
    told.wait()
    try:
        yield thread.native_id or 0
    finally:
        end.set()
        thread.join()


def test_threads_that_are_started_inside_and_only_they() -> None:
    with waiting() as before:
        with patient(), waiting() as ended:
            pass
        block = patient()
        block.__enter__()
        with waiting() as inside, waiting(os.SCHED_IDLE) as idle:
            block.__exit__(None, None, None)
            with waiting() as after:
                kinds = [os.sched_getscheduler(thread) for thread in (0, before, inside, idle, after)]
    assert kinds == [os.SCHED_OTHER, os.SCHED_OTHER, os.SCHED_BATCH, os.SCHED_IDLE, os.SCHED_OTHER]
    assert not os.path.exists(f"/proc/self/task/{ended}")


GROUPS = """
import os
import torch.distributed as dist
from isthmus.trainer.wire.group import Gloo

def kinds():
    return {thread: os.sched_getscheduler(int(thread)) for thread in os.listdir("/proc/self/task")}

before = kinds()
group = Gloo(dist.HashStore(), 0, 1)
after = kinds()
assert {after[thread] for thread in before} == {os.SCHED_OTHER}, (before, after)
assert {kind for thread, kind in after.items() if thread not in before} == {os.SCHED_BATCH}, (before, after)
print("well")
"""


def test_the_threads_of_gloo_are_such_and_ours_are_not() -> None:
    ran = subprocess.run([sys.executable, "-c", GROUPS], capture_output=True, text=True, check=False)
    assert ran.stdout == "well\n", ran.stderr
