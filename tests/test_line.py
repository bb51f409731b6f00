"""Lines: what people write, what it means, and how long something takes."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.errors import InvalidInput
from isthmus.line import VARIABLE, Line, line_here, parse_rate, parse_size, parse_time

POSITIVE = st.floats(1.0, 1e12)


@pytest.mark.parametrize(
    ("text", "bits"), [("100mbit", 1e8), ("1 Gbit", 1e9), ("2.5e1kbit", 25e3), (".5mbit", 5e5), ("8bit", 8.0)]
)
def test_rates_are_bits_a_second(text: str, bits: float) -> None:
    assert parse_rate("rate", text) == bits


@pytest.mark.parametrize("text", ["100", "mbit", "-1mbit", "0mbit", "nan mbit", "1 MB/s", "10ms", "1e400gbit", ""])
def test_what_is_no_rate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput, match="`rate` must be"):
        parse_rate("rate", text)


def test_sizes_and_times_have_units_of_ten_and_of_two() -> None:
    assert parse_size("memory", "1.5KiB") == 1536
    assert parse_size("memory", "1.5kb") == 1500
    assert [parse_time("latency", text) for text in ("0ms", "2s", "250us")] == [0.0, 2.0, 250e-6]


@given(POSITIVE, POSITIVE, st.floats(0, 10), st.floats(0, 1e12), st.floats(0, 1e12), st.integers(0, 1000))
def test_seconds_are_of_the_slower_way_and_grow_with_each_hop(
    down: float, up: float, latency: float, sent: float, received: float, hops: int
) -> None:
    line = Line(down, up, latency)
    alone = [line.seconds(sent, 0, 0), line.seconds(0, received, 0)]
    assert line.seconds(sent, received, 0) == max(alone)
    assert math.isclose(line.seconds(sent, received, hops) - max(alone), 2 * hops * latency, rel_tol=1e-6, abs_tol=1e-3)
    assert math.isclose(Line(2 * down, 2 * up, latency).seconds(sent, received, 0), max(alone) / 2)


@given(st.one_of(POSITIVE, st.just(math.inf)), POSITIVE, st.floats(0, 10))
def test_a_line_is_read_back_from_its_record(down: float, up: float, latency: float) -> None:
    line = Line(down, up, latency)
    assert Line.read(json.loads(json.dumps(line.record()))) == line


def test_the_line_of_a_command_comes_from_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert line_here() is None
    line = Line.of("100mbit", "10ms", up="20mbit")
    monkeypatch.setenv(VARIABLE, json.dumps(line.record()))
    assert line_here() == line
    assert line.shown == "100 Mbit/s, up 20 Mbit/s, 10 ms"
    for wrong in ("", "[]", '{"down": -1}', '{"rate": 1}'):
        monkeypatch.setenv(VARIABLE, wrong)
        with pytest.raises(InvalidInput, match=VARIABLE):
            line_here()


def test_up_without_a_rate_is_refused() -> None:
    with pytest.raises(InvalidInput, match="`up` has no effect"):
        Line.of(up="1mbit")
