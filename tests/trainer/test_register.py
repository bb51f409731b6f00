"""Who takes part is read while others write it: nobody waits for, or reads, what has just been taken back."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import torch.distributed as dist

from isthmus.trainer.membership.register import Member, Register


def test_a_wish_can_be_read_at_any_moment_while_it_is_made_and_taken_back() -> None:
    """By two processes' stores, as fast as they can: with a key that is deleted it took less than a second to fail."""
    host = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))
    other = dist.TCPStore("127.0.0.1", host.port, is_master=False, timeout=timedelta(seconds=20))
    me, asking = Member(0, 0), Member(1, 3)
    stop = threading.Event()

    def ask() -> None:
        register = Register(other, asking)
        while not stop.is_set():
            register.enter()
            register.entered()

    thread = threading.Thread(target=ask)
    thread.start()
    found, register, until = [], Register(host, me), time.monotonic() + 1.5
    try:
        while time.monotonic() < until:
            found.append(register.newcomers(2, [me]))
    finally:
        stop.set()
        thread.join()
    assert {tuple(each) for each in found} == {(), (asking,)}
    assert register.newcomers(2, [me]) == []
