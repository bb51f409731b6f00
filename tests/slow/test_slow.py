"""Slow networks as they really are: rates, delays, bytes, and that nothing of them is left."""

import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cases.runs import trained
from isthmus.cli import main
from isthmus.cli.slow import Options
from isthmus.errors import InvalidInput, IsthmusError
from isthmus.line import Line
from isthmus.slow import Net, hosts
from isthmus.slow.command import run_command

SLOW = [sys.executable, "-m", "isthmus", "slow"]
PORT = 7000


def why_not(line: Line) -> str:
    """Why there can be no such network here; "" where there can."""
    try:
        with hosts(2, line):
            return ""
    except IsthmusError as error:
        return str(error)


NO_BRIDGE, NO_RELAY = why_not(Line.of("1gbit")), why_not(Line.of("1gbit", "1ms"))
needs_bridge = pytest.mark.skipif(bool(NO_BRIDGE), reason=NO_BRIDGE)
needs_relay = pytest.mark.skipif(bool(NO_RELAY), reason=NO_RELAY)


def joined(net: Net, source: int, to: int) -> tuple[socket.socket, socket.socket]:
    """A connection between two hosts: both its ends are here, but made inside."""
    with net.spaces[to].inside(lambda: socket.create_server((net.address(to), PORT))) as listening:
        ours = net.spaces[source].inside(lambda: socket.create_connection((net.address(to), PORT), 5))
        theirs, _ = listening.accept()
    for each in (ours, theirs):
        each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        each.settimeout(20)
    return ours, theirs


def receive(end: socket.socket, size: int) -> None:
    while size:
        size -= len(end.recv(min(size, 1 << 20)))


def rates(net: Net, source: int, to: int, size: int) -> tuple[float, float]:
    """Bits of payload a second: in all, and once a third has come and TCP has found its speed."""
    ours, theirs = joined(net, source, to)
    with closing(ours), closing(theirs):
        sending = threading.Thread(target=ours.sendall, args=(bytes(size),))
        begun = time.monotonic()
        sending.start()
        receive(theirs, size // 3)
        third = time.monotonic()
        receive(theirs, size - size // 3)
        ended = time.monotonic()
        sending.join()
    return 8 * size / (ended - begun), 8 * (size - size // 3) / (ended - third)


def round_trips(net: Net) -> list[float]:
    ours, theirs = joined(net, 0, 1)
    seconds = []
    with closing(ours), closing(theirs):
        for _ in range(15):
            begun = time.monotonic()
            ours.sendall(b"ping")
            receive(theirs, 4)
            theirs.sendall(b"pong")
            receive(ours, 4)
            seconds.append(time.monotonic() - begun)
    return seconds


LINES = [
    pytest.param(Line.of("100mbit"), marks=needs_bridge),
    pytest.param(Line.of("80mbit", up="20mbit"), marks=needs_bridge),
    pytest.param(Line.of("20mbit", up="80mbit"), marks=needs_bridge),
    pytest.param(Line.of("50mbit", "5ms"), marks=needs_relay),
    pytest.param(Line.of("80mbit", "5ms", up="20mbit"), marks=needs_relay),
    pytest.param(Line.of("20mbit", "5ms", up="80mbit"), marks=needs_relay),
]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.shown)
def test_the_rate_is_kept_and_bytes_are_counted(line: Line) -> None:
    """Within 10 % at best of three, as the machine may be busy, headers included; never above it.

    Bytes are the payload, a header of 40 to 66 bytes for every packet of up to 1448 or for several that leave at once,
    the acknowledgements of what came the other way, and what was lost before a slower line and sent again.
    """
    slower, size = min(line.down, line.up), round(min(line.down, line.up) / 8 * 0.6)
    with hosts(2, line) as net:
        found: list[tuple[float, float]] = []
        while not found or (max(late for _, late in found) < 0.9 * slower and len(found) < 3):
            found.append(rates(net, len(found) % 2, 1 - len(found) % 2, size))
        time.sleep(2 * line.latency + 0.1)  # the last acknowledgements
        counted = [(net.sent(host), net.received(1 - host)) for host in range(2)]
    assert max(late for _, late in found) >= 0.9 * slower
    assert max(whole for whole, _ in found) <= slower
    payload = size * ((len(found) + 1) // 2)
    assert payload < counted[0][1] < payload * (1 + 66 / 1448) * 1.02 + 2000
    assert all(sent >= received for sent, received in counted)
    if line.up <= line.down:  # nothing waits on the way
        assert all(sent == received for sent, received in counted)


@needs_relay
def test_the_delay_is_kept() -> None:
    with hosts(2, Line.of("100mbit", "10ms")) as net:
        trips = round_trips(net)
    assert min(trips) >= 0.02
    assert min(statistics.median(trips), trips[-1]) <= 0.025


@needs_relay
def test_loss_slows_and_loses_nothing() -> None:
    with hosts(2, Line.of("50mbit", "1ms"), loss=0.05) as net:
        rates(net, 0, 1, 300_000)
        time.sleep(0.1)
        assert net.sent(0) > net.received(1) > 300_000


@needs_bridge
def test_several_networks_at_once_know_nothing_of_each_other() -> None:
    line = Line.of("1gbit")
    before = os.readlink("/proc/self/ns/net"), Path("/proc/net/dev").read_text().count(":")
    with hosts(2, line) as one, hosts(2, line) as other:
        assert one.address(1) == other.address(1)
        with (
            one.spaces[1].inside(lambda: socket.create_server((one.address(1), PORT))),
            pytest.raises(ConnectionRefusedError),
        ):
            other.spaces[0].inside(lambda: socket.create_connection((other.address(1), PORT), 2))
        assert other.run(["true"]) == [0, 0]
        assert before == (os.readlink("/proc/self/ns/net"), Path("/proc/net/dev").read_text().count(":"))


@needs_bridge
def test_each_host_is_told_its_place_and_the_line() -> None:
    said = 'echo "$RANK $WORLD_SIZE $LOCAL_RANK $LOCAL_WORLD_SIZE $MASTER_ADDR $GLOO_SOCKET_IFNAME $ISTHMUS_LINE"'
    with hosts(2, Line.of("1gbit")) as net:
        process = net.popen(1, ["sh", "-c", said], stdout=subprocess.PIPE, text=True)
        place, _, line = process.communicate()[0].partition(" {")
    assert place == "1 2 0 1 10.77.0.1 e0"
    assert Line.read(json.loads("{" + line)) == Line.of("1gbit")


@needs_bridge
def test_the_first_failure_counts_and_the_others_are_ended(capfd: pytest.CaptureFixture[str]) -> None:
    script = "echo out $RANK; echo err $RANK >&2; test $RANK = 1 && exit 5; trap '' TERM; sleep 60"
    with hosts(3, Line.of("1gbit")) as net:
        begun = time.monotonic()
        code, outcomes = run_command(net, ["sh", "-c", script], grace=0.2)
    assert time.monotonic() - begun < 10
    assert (code, [each.code for each in outcomes]) == (5, [137, 5, 137])
    shown = capfd.readouterr()
    assert shown.out == "out 0\n"
    assert sorted(shown.err.splitlines()) == ["err 0", "host 1: err 1", "host 2: err 2"]


def wait_for(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


MARK = "ISTHMUS_TEST_OF_SLOW"


def marked(mark: str) -> list[int]:
    """The processes that have inherited a mark."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            if f"{MARK}={mark}\0".encode() in Path(f"/proc/{name}/environ").read_bytes():
                found.append(int(name))
    return found


@pytest.fixture
def running(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`isthmus slow` with a shell on two hosts that both wait for a child, and the mark of all these processes."""
    mark = str(tmp_path)
    script = f"{request.param}; sleep 60 & touch {tmp_path}/$RANK; wait; wait"
    flags = ["--hosts", "2", "--rate", "100mbit", "--json", "--", "sh", "-c", script]
    with subprocess.Popen(
        [*SLOW, *flags], stdout=subprocess.PIPE, text=True, env={**os.environ, MARK: mark}
    ) as process:
        assert wait_for(lambda: all((tmp_path / f"{host}").exists() for host in range(2)), 30)
        assert wait_for(lambda: len(marked(mark)) == 6)  # it, its keeper, two shells, their children
        yield process, mark
        process.kill()


@needs_bridge
@pytest.mark.parametrize("running", ["trap '' INT TERM HUP"], indirect=True)
def test_nothing_is_left_of_what_is_killed(running: tuple[subprocess.Popen[str], str]) -> None:
    process, mark = running
    process.kill()
    process.wait()
    assert wait_for(lambda: not marked(mark))


@needs_bridge
@pytest.mark.parametrize("running", ["trap 'exit 7' TERM"], indirect=True)
def test_a_signal_is_passed_on(running: tuple[subprocess.Popen[str], str]) -> None:
    process, mark = running
    process.send_signal(signal.SIGTERM)
    said = json.loads(process.communicate(timeout=20)[0])
    assert process.returncode == 7
    assert [each["code"] for each in said["hosts"]] == [7, 7]
    assert not marked(mark)


@needs_bridge
@pytest.mark.parametrize("running", ["trap '' TERM"], indirect=True)
def test_a_second_signal_kills(running: tuple[subprocess.Popen[str], str]) -> None:
    process, mark = running
    process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 137
    assert not marked(mark)


def keepers(owner: int) -> list[int]:
    """The processes that keep a network of this owner."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with suppress(OSError):
            if f'"owner": {owner},' in Path(f"/proc/{name}/cmdline").read_text():
                found.append(int(name))
    return found


@needs_bridge
def test_a_network_without_its_keeper_is_an_error() -> None:
    with hosts(2, Line.of("1gbit")) as net:
        os.kill(keepers(os.getpid())[0], signal.SIGKILL)
        with pytest.raises(IsthmusError, match="has ended"):
            run_command(net, ["sleep", "60"])


@needs_bridge
def test_a_command_that_is_not_there_is_one_line() -> None:
    with (
        hosts(2, Line.of("1gbit")) as net,
        pytest.raises(IsthmusError, match="`nosuch` cannot be started: No such file"),
    ):
        net.run(["nosuch"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"rate": "100"}, "`rate` must be bits a second, as 100mbit"),
        ({"rate": "1mbit", "up": "0mbit"}, "`up` must be more than 0"),
        ({"up": "1mbit", "latency": "1ms"}, "`up` has no effect without `rate`"),
        ({"rate": "1mbit", "latency": "10"}, "`latency` must be a time"),
        ({"rate": "1mbit", "loss": 100.0}, "`loss` must be less than 100"),
        ({"rate": "1mbit", "hosts": 1}, "`hosts` must be at least 2, got 1"),
        ({"rate": "1mbit", "command": ()}, "`command` must be given"),
        ({}, "`rate`, `latency` or `loss` must be given"),
    ],
)
def test_bad_flags_are_refused(flags: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Options(**{"command": ("true",), **flags})  # type: ignore[arg-type]


@needs_bridge
def test_what_is_missing_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit) as stop:
        main(["slow", "--rate", "1mbit", "--", "true"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == "isthmus: a slow network needs `ip`: install the package iproute2\n"


@needs_bridge
def test_without_rights_one_line_says_what_to_do() -> None:
    without = ["setpriv", "--bounding-set", "-sys_admin"]
    done = subprocess.run([*without, *SLOW, "--rate", "1mbit", "--", "true"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("isthmus: a slow network needs root: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.processes
@needs_relay
def test_a_training_over_slow_lines_is_the_very_same(tmp_path: Path) -> None:
    flags = ["--data", "digits", "--widths", "16", "--rounds", "2", "--workers", "2", "--json"]
    train = ["isthmus", "train", *flags]
    slow = subprocess.run(
        [*SLOW, "--hosts", "2", "--rate", "100mbit", "--latency", "1ms", "--", *train, "--out", str(tmp_path / "slow")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert slow.returncode == 0, slow.stderr
    serial = trained(tmp_path / "here", widths=(16,), rounds=2, workers=2)
    assert json.loads(slow.stdout)["weights_sha256"] == serial.summary["weights_sha256"]
    environment = json.loads((tmp_path / "slow" / "environment.json").read_text())
    assert environment["line"] == Line.of("100mbit", "1ms").record()
