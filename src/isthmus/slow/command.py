"""One command on every host of a slow network, to its end: what it says, signals, failures, what it has moved."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, Any

from isthmus.errors import IsthmusError
from isthmus.slow.net import Net

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE = 10.0  # seconds that the others have, once one has failed, to end by themselves; then to end by SIGTERM
_LOOK = 0.5  # seconds between two looks at the network
_LAST_LINES = 1.0  # seconds in which what a process has said has been read


@dataclass(frozen=True)
class Outcome:
    """What became of the command on one host.

    Attributes:
        host: its number.
        code: its exit code as a shell has it, 128 + n of signal n.
        seconds: that it ran.
        sent, received: bytes of the host in all, headers included.
    """

    host: int
    code: int
    seconds: float
    sent: int
    received: int


def run_command(net: Net, argv: Sequence[str], grace: float = GRACE) -> tuple[int, list[Outcome]]:
    """Run a command on every host; return the first exit code that is not 0, in time, and what became of each.

    Host 0 writes to this terminal; of the others the lines of standard error come with "host 2: " before them. SIGINT,
    SIGTERM and SIGHUP are passed on, and a second one kills.

    Args:
        net: the hosts.
        argv: the command.
        grace: seconds that the others have once one has failed.

    Raises:
        IsthmusError: it cannot be started, or the network broke.
    """
    return _Command(net, argv, grace).run()


class _Command:
    def __init__(self, net: Net, argv: Sequence[str], grace: float) -> None:
        self._net = net
        self._argv = argv
        self._grace = grace
        self._events: queue.SimpleQueue[int | signal.Signals] = queue.SimpleQueue()  # a host that ended, or a signal
        self._living: dict[int, subprocess.Popen[str]] = {}
        self._ended: dict[int, tuple[int, float]] = {}  # host -> exit code, seconds; in time
        self._escalation = iter((signal.SIGTERM, signal.SIGKILL))
        self._due: float | None = None  # when those who are left get the next of these

    def run(self) -> tuple[int, list[Outcome]]:
        with self._signals():
            begun = time.monotonic()
            readers = [self._start(host) for host in range(len(self._net))]
            while self._living:
                self._attend(begun)
            for each in readers:
                each.join(_LAST_LINES)
        hosts = range(len(self._net))
        outcomes = [Outcome(host, *self._ended[host], self._net.sent(host), self._net.received(host)) for host in hosts]
        return next((code for code, _ in self._ended.values() if code), 0), outcomes

    def _start(self, host: int) -> threading.Thread:
        """Start the command on a host; return the thread that passes on what it says."""
        out, error = (subprocess.DEVNULL, subprocess.PIPE) if host else (None, None)
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": error}
        process = self._net.popen(host, self._argv, text=True, errors="replace", process_group=0, **pipes)
        self._living[host] = process
        threading.Thread(target=self._wait, args=(host, process), daemon=True).start()
        reader = threading.Thread(target=_pass_on, args=(host, process.stderr), daemon=True)
        reader.start()
        return reader

    def _wait(self, host: int, process: subprocess.Popen[str]) -> None:
        process.wait()
        self._events.put(host)

    def _attend(self, begun: float) -> None:
        """Take the next event, or do what is due."""
        if self._net.broken():
            self._tell(signal.SIGKILL)
            raise IsthmusError("the process that keeps the slow network has ended: the command was killed")
        now = time.monotonic()
        if self._due is not None and now >= self._due:
            self._tell(next(self._escalation, signal.SIGKILL))
            self._due = now + self._grace
        try:
            event = self._events.get(timeout=_LOOK if self._due is None else max(0.0, min(_LOOK, self._due - now)))
        except queue.Empty:
            return
        if isinstance(event, signal.Signals):
            self._tell(event)
        else:
            code = self._living.pop(event).returncode
            self._ended[event] = (128 - code if code < 0 else code), time.monotonic() - begun
            if code and self._due is None:
                self._due = time.monotonic() + self._grace

    def _tell(self, number: signal.Signals) -> None:
        for process in self._living.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Pass the first signal on, and kill at the next; what was ignored before still is."""
        told = iter((True,))

        def handle(number: int, frame: object) -> None:
            self._events.put(signal.Signals(number) if next(told, False) else signal.SIGKILL)

        before = {each: signal.getsignal(each) for each in SIGNALS}
        heard = {each: handler for each, handler in before.items() if handler is not signal.SIG_IGN}
        for each in heard:
            signal.signal(each, handle)
        try:
            yield
        finally:
            for each, handler in heard.items():
                signal.signal(each, handler)


def _pass_on(host: int, said: IO[str] | None) -> None:
    for line in said or ():
        print(f"host {host}: {line.rstrip()}", file=sys.stderr, flush=True)
