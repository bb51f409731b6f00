"""What a round will cost is said beforehand: bytes and hops as they then are, seconds by a model that is held to its
own words."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import isthmus
from cases.loops import processes
from cases.networks import GPT
from cases.runs import trained
from cases.strategies import ON_ANY, TORCH
from cases.trainable import Digits
from isthmus.errors import InvalidInput
from isthmus.line import BITS, Line
from isthmus.strategies import IST, STRATEGIES, Narrow, Strategy, strategy_of
from isthmus.trainer import configure
from isthmus.trainer.executors.in_turn import run_in_turn
from isthmus.trainer.plan.forecast import Forecast
from isthmus.trainer.plan.live import Live
from isthmus.trainer.plan.load import Load
from isthmus.trainer.plan.plan import Plan
from isthmus.trainer.plan.show import outlook_table, remarks, sentence
from isthmus.trainer.plan.steps import Speed, by_operations
from isthmus.trainer.plan.traffic import ROUNDS, Moved, Nobody, rounds_of
from isthmus.trainer.strategies import Worker, part_of
from isthmus.trainer.task.hollow import Hollow, hollow
from isthmus.trainer.task.network import Network, describe
from isthmus.trainer.wire.exchange import TYPES
from isthmus.trainer.wire.meter import Traffic

STEPS = 2


def perceptron() -> nn.Module:
    layers = [nn.Linear(6, 13), nn.BatchNorm1d(13), nn.ReLU(), nn.Linear(13, 8), nn.ReLU(), nn.Linear(8, 3)]
    return nn.Sequential(*layers)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "perceptron": (perceptron, torch.ones(4, 6)),
    "convolutions": (Digits, torch.ones(2, 1, 8, 8)),
    "transformer": (GPT, torch.ones(2, 5, dtype=torch.int64)),
}
DEALT = [(law, core) for law in ("block", "uniform", "fixed", "rotated") for core in (0.0, 0.3)]
CASES = [
    *((network, "ist", law, core, wire)
      for network in NETWORKS for law, core in DEALT for wire in (None, "bf16")
      if network == "perceptron" or (law in ("block", "fixed") and (core > 0) == (wire is None))),
    *((network, name, None, None, wire)
      for network in NETWORKS for name in [*ON_ANY, "shallow"] if name != "ist" for wire in (None, "bf16")),
]  # fmt: skip


@cache
def described(network: str) -> Network:
    """Traced once."""
    make, x = NETWORKS[network]
    return describe(make, (x,), 0)


@cache
def emptied(network: str) -> Hollow:
    return hollow(described(network))


def job(network: str, strategy: Strategy, wire: str | None) -> list[tuple[tuple[int, ...], ...]]:
    """Sent, received and copied bytes of every worker before the first round, and after every round."""
    x = NETWORKS[network][1]
    sgd = lambda module: torch.optim.SGD(module.parameters(), 0.01)  # noqa: E731
    with isthmus.Training(described(network), None, sgd, strategy, local_steps=STEPS, wire=wire) as training:
        sent, received = (tuple(map(int, each)) for each in zip(*training.gather(*training.setup_bytes), strict=True))
        found = [(sent, received, training.account().copying_bytes)]
        for _ in range(ROUNDS):
            for _ in range(STEPS):
                training.module(x).square().mean().backward()
                training.optimizer.step()
                training.optimizer.zero_grad()
            account = training.account()
            found.append((account.sent_bytes, account.received_bytes, account.copying_bytes))
        return found


def planned(network: str, strategy: Strategy, wire: str | None, workers: int, elastic: bool) -> list[Any]:
    """Sent, received and copied bytes of every worker in every round."""
    kind, empty, found = None if wire is None else TYPES[wire], emptied(network), []
    for index in range(workers):
        here = Worker(Nobody(index, workers, elastic), empty, 0, kind, elastic)
        part = part_of(strategy, here)
        step = part.step_traffic(part.needs(empty.skeleton()).module).times(STEPS)
        rounds = rounds_of(strategy, here)
        found.append([(m.traffic.sent + step.sent, m.traffic.received + step.received, m.copying) for m in rounds])
    return [tuple(zip(*each, strict=True)) for each in zip(*found, strict=True)]


def spent(accounts: list[tuple[tuple[int, ...], ...]]) -> list[Any]:
    """The same of accounts: what came with each."""
    return [
        tuple(tuple(b - a for a, b in zip(old, new, strict=True)) for old, new in zip(before, after, strict=True))
        for before, after in pairwise(accounts)
    ]


@pytest.mark.parametrize(("network", "name", "law", "core", "wire"), CASES)
def test_what_is_planned_is_moved_to_the_byte(
    network: str, name: str, law: str | None, core: float | None, wire: str | None
) -> None:
    strategy = strategy_of(name, law, core)
    accounts = run_in_turn(job, [(network, strategy, wire)] * 3)[0]
    assert planned(network, strategy, wire, 3, elastic=False) == spent(accounts)


@pytest.mark.processes
@pytest.mark.parametrize("strategy", [IST("fixed"), IST("block")], ids=lambda strategy: strategy.slug)
def test_copies_are_planned_apart(strategy: Strategy) -> None:
    accounts: list[Any] = processes(job, 2, "perceptron", strategy, None)
    assert planned("perceptron", strategy, None, 2, elastic=True) == spent(accounts[0])


@pytest.mark.processes
@pytest.mark.parametrize("name", TORCH)
def test_what_torchs_own_parts_move_is_planned_within_two_percent(name: str, tmp_path: Path) -> None:
    """That is read at the sockets, with gloo's headers."""
    small: dict[str, Any] = {"data": "digits", "widths": (256, 256), "workers": 2, "local_steps": 3, "eval_every": 100}
    run = trained(tmp_path / "run", **small, strategy=name, rounds=ROUNDS, executor="processes")
    plan, rows = run.summary["planned"], run.rows[2:]
    for word in ("sent", "received"):
        means = [sum(each) / len(rows) for each in zip(*(row[f"{word}_bytes"] for row in rows), strict=True)]
        assert plan[f"round_{word}_bytes"] == pytest.approx(means, rel=0.02)


@pytest.mark.parametrize("name", ON_ANY)
def test_a_run_says_planned_beside_measured(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small: dict[str, Any] = {"data": "digits", "widths": (16,), "workers": 2, "local_steps": 3, "eval_every": 100}
    run = trained(tmp_path / "run", **small, strategy=name, rounds=ROUNDS)
    plan, rows = run.summary["planned"], run.rows[2:]
    for word in ("sent", "received"):
        means = [sum(each) / len(rows) for each in zip(*(row[f"{word}_bytes"] for row in rows), strict=True)]
        assert plan[f"round_{word}_bytes"] == means
    assert [row["hops"] for row in rows] == [plan["round_hops"]] * len(rows)  # no evaluation between: it meets too
    assert plan["memory_bytes"] == run.summary["planned_memory_bytes"]
    assert 0 < plan["round_seconds"] < 60
    assert "received by the busiest worker" in capsys.readouterr().err


def test_measuring_steps_changes_no_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags: dict[str, Any] = {"model": "cases.trainable:digits", "workers": 2, "rounds": 2, "local_steps": 2}  # dropout
    first = trained(tmp_path / "a", **flags)
    monkeypatch.setattr("isthmus.trainer.prelude.measured", lambda piece, work: Speed(math.nan, "unknown"))
    second = trained(tmp_path / "b", **flags)
    assert first.summary["weights_sha256"] == second.summary["weights_sha256"]
    assert second.summary["planned"]["round_seconds"] is None


FLAGS: dict[str, Any] = {"data": "digits", "widths": (16,), "workers": 3, "local_steps": 5, "flops": 1e9}


def test_every_strategy_is_planned() -> None:
    deep = {**FLAGS, "widths": None, "model": "cases.trainable:deep"}  # has blocks too
    outlook = isthmus.plan(rate="100mbit", latency="10ms", **deep)
    assert [each.strategy.name for each in outlook.prospects] == list(STRATEGIES)
    for each in outlook.prospects:
        found = outlook[each.strategy.name]
        assert found.all
        assert found.busiest_bytes * (1 + 1e-12) >= found.mean_bytes
        assert (found.mean_bytes > 0) == each.strategy.travels
        assert found.round_seconds > found.compute_seconds > 0
    record = json.loads(json.dumps(outlook.record(), allow_nan=False))
    fields = {"name", "held_bytes", "round_bytes_busiest", "round_bytes_mean", "round_seconds", "fits"}
    for each in record["strategies"]:
        assert fields <= set(each)
        assert each["problem"] is None
        assert each["fits"] is True
    assert record["line"] == Line.of("100mbit", "10ms").record()


def test_rate_and_latency_do_what_they_say() -> None:
    names = ["ist", "data-parallel"]
    fast, slow, far = (
        isthmus.plan(names, **line, **FLAGS)
        for line in ({"rate": "20mbit"}, {"rate": "10mbit"}, {"rate": "20mbit", "latency": "1s"})
    )
    for name in names:
        assert slow[name].move_seconds == pytest.approx(2 * fast[name].move_seconds)
        assert slow[name].compute_seconds == fast[name].compute_seconds
        hops = max(each.hops for each in far[name].moved)
        assert far[name].move_seconds == pytest.approx(fast[name].move_seconds + 2 * hops)
    up = isthmus.plan(["local-sgd"], rate="1gbit", up="10mbit", **FLAGS)["local-sgd"]
    assert up.move_seconds == BITS * max(each.sent for each in up.moved) / 1e7
    assert up.over(Line(down=1e7)).move_seconds == BITS * max(each.received for each in up.moved) / 1e7


def test_what_fits_and_by_how_much_the_rest_does_not() -> None:
    need = isthmus.plan(["local-sgd"], **FLAGS)["local-sgd"].needed_bytes
    for memory, over in ((need, 0), (need - 7, 7)):
        outlook = isthmus.plan(["local-sgd"], memory=f"{memory}B", **FLAGS)
        (row,) = outlook.record()["strategies"]
        assert (row["fits"], row["over_bytes"]) == (not over, over)
        assert any("does not fit" in line for line in remarks(outlook)) == bool(over)


def test_memory_is_as_it_is_planned_for_a_run(tmp_path: Path) -> None:
    """The data are dealt there, and counted here."""
    flags: dict[str, Any] = {"data": "digits", "widths": (16,), "workers": 2, "local_steps": 3, "executor": "serial"}
    found = isthmus.plan(["ist"], flops=1e9, **flags)["ist"]
    run = trained(tmp_path / "run", **flags, rounds=1)
    assert [load.plan.total for load in found.loads] == pytest.approx(run.summary["planned_memory_bytes"], rel=0.01)
    assert [load.plan.held for load in found.loads] == run.summary["worker_memory_bytes"]
    measured = [run.rows[1][f"{word}_bytes"] for word in ("sent", "received")]
    assert [[each.sent for each in found.first], [each.received for each in found.first]] == measured


@pytest.mark.parametrize("strategy", [name for name, kind in STRATEGIES.items() if kind.by_class])
def test_every_worker_is_planned_with_its_own_classes(strategy: str, caplog: pytest.LogCaptureFixture) -> None:
    """Three workers share ten classes: one has more than the others, and a piece with more outputs."""
    flags = {"rank": 4} if strategy == "factored" else {}
    found = isthmus.plan([strategy], data="digits", widths=(16,), workers=3, local_steps=2, **flags)[strategy]
    assert all(load.speed.known for load in found.loads)
    assert "lacks the seconds" not in caplog.text


def load(round: Traffic, step: Traffic, seconds: float) -> Load:
    return Load(Plan(1, 1, 1, 1, 1, 1), 1, step, (Moved(round), Moved(round)), Speed(seconds, "given"))


@pytest.mark.parametrize("step", [Traffic(), Traffic(10.0, 30.0, 1.0)])
def test_with_as_many_steps_as_break_even_moving_is_a_tenth(step: Traffic) -> None:
    line = Line(down=8e3, up=4e3, latency=1e-3)
    loads = (load(Traffic(1000.0, 3000.0, 4.0), step, 0.5), load(Traffic(2000.0, 0.0, 4.0), step, 0.6))
    found = Forecast(loads, 2, 10, 8, line)
    fewest = found.break_even
    assert fewest is not None

    def cheap(steps: int) -> bool:
        at = replace(found, local_steps=steps)
        moving = [line.seconds(each.sent, each.received, each.hops) for each in at.moved]
        return all(m <= 0.1 * steps * each.speed.seconds for m, each in zip(moving, loads, strict=True))

    assert cheap(fewest)
    assert not cheap(fewest - 1)


@pytest.mark.parametrize(("seconds", "hidden"), [(3.0, 1.5), (1.5, 1.0), (0.0, 0.0), (math.nan, math.nan)])
def test_gradients_travel_beside_the_backward_pass(seconds: float, hidden: float) -> None:
    """1,500 bytes take 1.5 s up, a backward pass two thirds of a step."""
    line, step = Line(down=BITS * 2e3, up=BITS * 1e3), Traffic(2000.0, 2000.0, 2.0, beside=1500.0)
    found = Forecast((load(Traffic(), step, seconds),), 2, 10, 8, line)
    assert found.round_seconds == pytest.approx(10 * (seconds + 2.0 - hidden), nan_ok=True)
    assert found.move_seconds == pytest.approx(20.0)


def test_there_may_be_no_break_even() -> None:
    line, much = Line(down=8e3, up=8e3), Traffic(1000.0, 1000.0, 1.0)
    assert Forecast((load(Traffic(), much, 1.0),), 1, 10, 8, line).break_even is None
    assert Forecast((load(much, Traffic(), math.nan),), 1, 10, 8, line).break_even is None
    assert Forecast((load(much, Traffic(), 1.0),), 1, 10, 8, Line()).break_even == 1
    assert Forecast((load(Traffic(), Traffic(), 1.0),), 1, 10, 8, line).break_even == 1


def test_a_round_is_as_long_as_for_the_worker_for_which_it_is_longest() -> None:
    """One computes long, another has much to send: neither alone decides."""
    line = Line(down=1e3 * BITS, up=1e3 * BITS)
    loads = (load(Traffic(1000.0, 0.0), Traffic(), 0.3), load(Traffic(0.0, 2000.0), Traffic(), 0.1))
    found = Forecast(loads, 2, 10, 8, line)
    assert (found.compute_seconds, found.move_seconds, found.round_seconds) == (3.0, 2.0, 4.0)
    assert found.samples_per_second == 2 * 10 * 8 / 4.0
    assert (found.busiest_bytes, found.mean_bytes) == (2000.0, 1500.0)
    assert "2 kB received by the busiest worker" in sentence(found)


def test_a_load_can_be_told() -> None:
    for seconds in (0.25, math.nan):
        one = load(Traffic(1.0, 2.0, 3.0), Traffic(4.0), seconds)
        one = replace(one, rounds=(Moved(Traffic(1.0), 2.0, 3.0, 4.0),), speed=replace(one.speed, byte=5.0))
        assert repr(Load.read(json.loads(json.dumps(one.record(), allow_nan=False)))) == repr(one)


def test_of_many_workers_a_few_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The busiest is found, or nearly; the mean to a few percent where units are dealt evenly."""
    flags: dict[str, Any] = {**FLAGS, "widths": (64, 64), "workers": 16, "batch_size": 8}
    names = ["ist", "narrow", "local-sgd", "data-parallel"]
    every = isthmus.plan(names, **flags)
    monkeypatch.setattr("isthmus.trainer.plan.outlook._ALL", 15)
    some = isthmus.plan(names, **flags)
    for name in names:
        assert not some[name].all
        assert len(some[name].loads) == 5
        assert some[name].busiest_bytes == pytest.approx(every[name].busiest_bytes, rel=0.1)
        assert some[name].mean_bytes == pytest.approx(every[name].mean_bytes, rel=0.1)
        assert some[name].busiest_bytes <= every[name].busiest_bytes
    assert any("5 of 16" in line for line in remarks(some))


def test_a_network_that_is_too_large_is_planned_by_a_piece_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """And at a rate that is given nothing is measured: 3 products of 2 operations in each of 2 layers, but the
    gradient of the input."""
    from isthmus.trainer.plan import steps
    from isthmus.trainer.plan.plan import Work

    x = torch.ones(4, 8)
    make = lambda: nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 8))  # noqa: E731
    network = describe(make, (x,), 0)
    sgd = lambda module: torch.optim.SGD(module.parameters(), 0.1)  # noqa: E731
    work = Work(sgd, lambda module: module(x).sum(), step=lambda module: module(x).sum().backward())
    piece, wanted = hollow(network).skeleton(), 2 * 4 * 8 * 64 * 5
    assert by_operations(piece, work, network, 1e6).seconds == wanted / 1e6
    monkeypatch.setattr(steps, "_OPERATIONS", wanted / 3)
    monkeypatch.setattr(steps, "measured", lambda piece, work, of: Speed(0.5, "measured"))
    found = by_operations(piece, work, network, None)
    assert found.seconds == 0.5 * 4  # a quarter of the units
    assert "1/4 of the units" in found.how


def test_a_strategy_that_cannot_be_planned_says_why_and_leaves_the_others() -> None:
    outlook = isthmus.plan(["ist", "local-sgd"], **{**FLAGS, "workers": 20})  # of 16 units
    assert outlook["local-sgd"].workers == 20
    ist, _ = outlook.record()["strategies"]
    assert "16 units, too few for 20 workers" in ist["problem"]
    assert ist["round_seconds"] is None
    assert any("16 units, too few for 20 workers" in line for line in remarks(outlook))
    assert outlook_table(outlook).row_count == 1
    with pytest.raises(InvalidInput, match="cannot be planned: the widest hidden layer has 16 units"):
        outlook["ist"]


def test_flags_belong_to_the_strategies_that_have_them() -> None:
    outlook = isthmus.plan(["ist", "local-sgd"], law="fixed", core=0.25, wire="bf16", **FLAGS)
    ist, dense = (each.strategy for each in outlook.prospects)
    assert ist == configure(strategy="ist", law="fixed", core=0.25).strategy
    assert dense == STRATEGIES["local-sgd"]()
    assert isthmus.plan([Narrow("uniform")], **FLAGS)["narrow"].all


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"strategies": ["nonsense"]}, "`strategy` must be one of"),
        ({"strategies": []}, "`strategies` must name at least one"),
        ({"rate": "fast"}, "`rate` must be bits a second"),
        ({"memory": "2 apples"}, "`memory` must be a size"),
        ({"flops": 0.0}, "`flops` must be"),
        ({"workers": 0}, "`workers` must be at least 1, got 0"),
        ({"strategies": ["local-sgd"], "law": "fixed"}, "`law` has no effect with any of the strategies"),
        ({"strategy": "ist"}, "`strategy` has no effect on a plan: name `strategies`"),
        ({"rounds": 3}, "`rounds` has no effect on a plan"),
        ({"nonsense": 3}, "`flag` must be one of"),
    ],
)
def test_bad_input_is_one_line(flags: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        isthmus.plan(**{**FLAGS, **flags})
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_prints_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    from isthmus.cli import main

    words = ["plan", "--data", "digits", "--widths", "16", "--workers", "2", "--flops", "1e9"]
    words += ["--rate", "100mbit", "--law", "fixed", "--strategies", "ist", "local-sgd"]
    main([*words, "--json"])
    (ist, _) = json.loads(capsys.readouterr().out)["strategies"]
    expected = isthmus.plan(
        ["ist", "local-sgd"], data="digits", widths=(16,), workers=2, flops=1e9, rate="100mbit", law="fixed"
    )
    assert ist["round_bytes_busiest"] == expected["ist"].busiest_bytes
    main([*words, "--memory", "100kB"])
    shown = capsys.readouterr().out
    assert "local-sgd" in shown
    assert "does not fit into 100 kB" in shown
    with pytest.raises(SystemExit) as left:
        main(["plan", "--up", "1mbit"])
    assert left.value.code == 2
    assert "`up` has no effect" in capsys.readouterr().err


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


def made(strategy: Strategy) -> list[tuple[int, int]]:
    """Bytes of all tensors that a worker makes where a round closes, and where the next one opens, round by round."""
    sgd = lambda module: torch.optim.SGD(module.parameters(), 0.01)  # noqa: E731
    x, found = torch.ones(1, 64), []
    with isthmus.Training(wide, (x,), sgd, strategy, local_steps=1) as training:
        for _ in range(ROUNDS):
            with Live() as opens:  # the forward pass is among it, of one sample
                loss = training.module(x).square().mean()
            loss.backward()
            with Live() as closes:
                training.optimizer.step()
            training.optimizer.zero_grad()
            found.append((closes.made, opens.made))
    return found


@pytest.mark.processes
@pytest.mark.parametrize("name", ["ist", "narrow", "local-sgd", "diloco"])
def test_cutting_and_merging_make_what_is_planned(name: str) -> None:
    """But for what a run says of itself, and the forward pass of one sample."""
    strategy = strategy_of(name)
    counted: list[Any] = processes(made, 2, strategy)
    network = describe(wide, (torch.ones(1, 64),), 0)
    rounds = rounds_of(network.chosen(strategy)[0], Worker(Nobody(0, 2, True), hollow(network), 0, copies=True))
    for worker in counted:
        for (closes, opens), thought in list(zip(worker, rounds, strict=True))[1:]:  # in the first nobody has copies
            assert closes + opens == pytest.approx(thought.made, rel=0.02)


def test_what_is_made_takes_its_time_beside_computing_and_the_line() -> None:
    """Of the worker for which all three together are most."""
    line = Line(down=1e3 * BITS, up=1e3 * BITS)
    loads = tuple(
        Load(Plan(1, 1, 1, 1, 1, 1), 1, Traffic(), (Moved(Traffic(sent), made=made),), Speed(0.3, "given", byte))
        for sent, made, byte in ((1000.0, 4000.0, 1e-4), (2000.0, 4000.0, 0.0), (0.0, 0.0, 1e-4))
    )
    found = Forecast(loads, 3, 10, 8, line)
    assert found.handling_seconds == pytest.approx(0.4)
    assert found.round_seconds == pytest.approx(3.0 + 2.0)
    assert replace(found, loads=loads[:1]).round_seconds == pytest.approx(3.0 + 0.4 + 1.0)


def test_handling_is_planned_where_the_speed_is_measured() -> None:
    """A given rate of computing says nothing of memory, which is of another machine then."""
    flags = {name: value for name, value in FLAGS.items() if name != "flops"}
    here, there = (isthmus.plan(["ist"], **flags, **more)["ist"] for more in ({}, {"flops": 1e9}))
    assert here.handling_seconds > 0
    assert there.handling_seconds == 0
