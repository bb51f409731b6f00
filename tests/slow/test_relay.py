"""When packets arrive over slow lines, by a clock of the test's own."""

import struct
from collections.abc import Sequence
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.line import Line
from isthmus.slow.bucket import queue_seconds
from isthmus.slow.packet import HEADER, target, wire_bytes
from isthmus.slow.relay import Relay

Arrival = tuple[float, int, int]  # seconds, target, length of the packet


def packet(to: int, size: int) -> bytes:
    """An IP packet of so many bytes to a host."""
    address = bytes([10, 77, 0, to + 1])
    return bytes(HEADER) + bytes([0x45]) + bytes(15) + address + bytes(size - 20)


def carried(relay: Relay, sent: Sequence[tuple[float, int, bytes]], looks: Sequence[float] = ()) -> list[Arrival]:
    """What arrives of (seconds, source, packet), at best; with more looks at the clock than are needed."""
    arrived: list[Arrival] = []
    times = sorted([*sent, *((at, -1, b"") for at in looks)], key=lambda time: time[0])

    def wait(until: float) -> None:
        while (due := relay.next()) is not None and due <= until:
            arrived.extend((due, to, len(each) - HEADER) for to, each in relay.due(due))

    for at, source, each in times:
        wait(at)
        if source >= 0:
            relay.take(at, source, each)
        arrived.extend((at, to, len(each) - HEADER) for to, each in relay.due(at))
    wait(float("inf"))
    return arrived


@pytest.mark.parametrize(("down", "up"), [(8e6, 8e6), (8e6, 2e6), (2e6, 8e6)])
def test_a_train_of_packets_takes_its_length_at_the_slower_rate_and_one_delay(down: float, up: float) -> None:
    """Not twice its length: a packet goes on while the next is still on its way."""
    sizes = [1000, 500, 1500, 20]
    arrived = carried(Relay(2, Line(down, up, 0.01), 0.0), [(0.0, 0, packet(1, size)) for size in sizes])
    assert [(to, size) for _, to, size in arrived] == [(1, size) for size in sizes]
    slower = [8 * size / min(down, up) + 0.01 for size in accumulate(sizes)]
    assert [at for at, _, _ in arrived] == pytest.approx(slower, rel=1e-12)


def test_packets_of_two_hosts_share_the_line_of_a_third_and_not_each_others() -> None:
    line = Line(8e6, 8e6, 0.01)
    arrived = carried(
        Relay(4, line, 0.0), [(0.0, 0, packet(2, 1000)), (0.0, 1, packet(2, 1000)), (0.0, 1, packet(3, 500))]
    )
    assert arrived == [
        (pytest.approx(0.011), 2, 1000),
        (pytest.approx(0.0115), 3, 500),
        (pytest.approx(0.012), 2, 1000),
    ]


def test_whoever_comes_first_is_served_first_though_it_was_sent_last() -> None:
    """Host 0 has 100 ms to send; what it has sent last does not delay what host 1 sends now."""
    early = [(0.0, 0, packet(2, 10_000)) for _ in range(10)]
    arrived = carried(Relay(3, Line(80e6, 8e6, 0.01), 0.0), [*early, (0.001, 1, packet(2, 100))])
    assert arrived[0] == (pytest.approx(0.001 + 0.01 + 0.0001), 2, 100)


def test_what_finds_too_long_a_queue_is_lost() -> None:
    """Two hosts send 1 MB each to one that receives 1 MB a second and keeps 0.256 s of it waiting."""
    line = Line(8e6, 80e6, 0.0)
    sent = [(0.0, source, packet(2, 1000)) for _ in range(1000) for source in (0, 1)]
    kept = len(carried(Relay(3, line, 0.0), sent)) * 1000
    during = 0.1 * 1e6  # received while the other two send
    assert kept == pytest.approx(during + queue_seconds(line.down) * 1e6, abs=3000)


def test_so_many_are_lost_as_asked() -> None:
    kept = len(carried(Relay(2, Line(), 0.1), [(0.0, 0, packet(1, 100))] * 4000))
    assert abs(kept - 3600) < 4 * (4000 * 0.1 * 0.9) ** 0.5


def test_what_is_for_nobody_is_dropped() -> None:
    for_v6 = bytearray(packet(1, 40))
    for_v6[HEADER] = 0x60
    assert target(bytes(for_v6)) is None
    assert carried(Relay(2, Line(), 0.0), [(0.0, 0, packet(9, 40)), (0.0, 0, bytes(for_v6))]) == []


SENT = st.lists(st.tuples(st.floats(0, 0.05), st.integers(0, 2), st.integers(0, 2), st.integers(20, 9000)), max_size=12)


@given(SENT, st.lists(st.floats(0, 0.2), max_size=8), st.sampled_from([0.0, 0.003, 0.02]), st.sampled_from([2e6, 8e6]))
def test_nothing_hangs_on_when_the_clock_is_looked_at(
    plan: list[tuple[float, int, int, int]], looks: list[float], latency: float, up: float
) -> None:
    """The relay decides ahead what can no longer change; looking more often changes no arrival."""
    sent = [(at, source, packet(to, size)) for at, source, to, size in plan]
    line = Line(4e6, up, latency)
    few, many = (carried(Relay(3, line, 0.0), sent, each) for each in ((), looks))
    assert sorted(few) == sorted(many)
    for at, _, size in few:
        assert at >= 8 * size / min(line.down, line.up) + latency - 1e-12


@pytest.mark.parametrize(("payload", "packets"), [(1448, 1), (1449, 2), (14480, 10)])
def test_packets_that_come_in_one_read_are_counted_apart(payload: int, packets: int) -> None:
    header = struct.pack("<BBHHHH", 1, 1 if packets > 1 else 0, 52, 1448, 20, 16)
    ip = bytes([0x45]) + bytes(8) + bytes([6]) + bytes(6) + bytes([10, 77, 0, 2])
    tcp = bytes(12) + bytes([0x80]) + bytes(19)
    assert wire_bytes(header + ip + tcp + bytes(payload)) == payload + packets * 52
