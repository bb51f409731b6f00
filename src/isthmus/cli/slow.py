"""Run a command on several hosts of this machine, with slow lines between them: isthmus slow [flags] -- COMMAND ...

A host is a network namespace, which needs root; the command runs once on each, as a worker that torchrun might have
started: RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT are set. When it has ended, or is killed, nothing is left.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import tyro
from rich import filesize
from rich.console import Console
from rich.table import Table

from isthmus.errors import InvalidInput, check_integer, check_number
from isthmus.line import Line, shown_rate
from isthmus.slow import hosts
from isthmus.slow.command import Outcome, run_command
from isthmus.slow.net import MOST

_BUSY = 0.7  # of a core, from which on carrying packets may itself be what is slow


@dataclass(frozen=True)
class Options:
    """The flags of `isthmus slow`.

    Attributes:
        command: What to run on every host, after `--`.
        hosts: How many.
        rate: That each can receive and send, as 100mbit.
        up: That each can send, where it is another one.
        latency: From one host to another, one way, as 10ms.
        loss: Packets lost on the way, in percent.
        json: Print what became of each host as one line of JSON instead of a table.
    """

    command: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    hosts: int = 4
    rate: str | None = None
    up: str | None = None
    latency: str | None = None
    loss: float = 0.0
    json: bool = False

    def __post_init__(self) -> None:
        check_integer("hosts", self.hosts, at_least=2, at_most=MOST)
        check_number("loss", self.loss, at_least=0.0, below=100.0)
        if self.rate is None and self.latency is None and not self.loss:
            raise InvalidInput("`rate`, `latency` or `loss` must be given: without them nothing is slow")
        self.line()
        if not self.command:
            raise InvalidInput("`command` must be given: isthmus slow --rate 100mbit -- COMMAND ...")

    def line(self) -> Line:
        """Return the line of each host."""
        return Line.of(self.rate, self.latency, self.up)


def run(options: Options, command: list[str]) -> None:
    """Run the command on every host, then say what each has moved; exit with the first code that is not 0."""
    with hosts(options.hosts, options.line(), options.loss / 100) as net:
        code, outcomes = run_command(net, options.command)
        relay = net.relay_seconds()
    sys.stdout.flush()
    if options.json:
        print(json.dumps(_record(options, outcomes, relay)))
    else:
        Console(stderr=True).print(_table(options, outcomes))
    seconds = max(each.seconds for each in outcomes)
    if relay > _BUSY * max(seconds, 1.0):
        print(
            f"isthmus: carrying packets took {relay / seconds:.0%} of a core: the lines were slower than asked; "
            "take fewer hosts or a lower rate, or leave out latency and loss",
            file=sys.stderr,
        )
    if code:
        raise SystemExit(code)


def _record(options: Options, outcomes: Sequence[Outcome], relay: float) -> dict[str, Any]:
    return {
        "line": options.line().record(),
        "loss_percent": options.loss,
        "relay_seconds": relay,
        "hosts": [asdict(each) for each in outcomes],
    }


def _table(options: Options, outcomes: Sequence[Outcome]) -> Table:
    lost = f", {options.loss:g} % lost" if options.loss else ""
    shown = Table(title=f"{len(outcomes)} hosts, {options.line().shown}{lost}", box=None, pad_edge=False)
    for heading in ("host", "exit code", "seconds", "sent", "received", "sent at", "received at"):
        shown.add_column(heading, justify="right")
    for each in outcomes:
        moved = (each.sent, each.received)
        rates = (shown_rate(float(f"{8 * count / each.seconds:.3g}")) for count in moved)
        shown.add_row(
            f"{each.host}", f"{each.code}", f"{each.seconds:.2f}", *(filesize.decimal(count) for count in moved), *rates
        )
    return shown
