"""What nobody changes in a round is sent ahead in it: the same bits and bytes, and not waited for."""

from __future__ import annotations

import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from cases.loops import batch, in_turn, processes, same, sgd, state_of
from isthmus import Training
from isthmus.errors import InvalidInput
from isthmus.line import Line
from isthmus.partitions import law_of
from isthmus.strategies import IST, LocalSGD, Narrow
from isthmus.trainer.config import configure
from isthmus.trainer.plan.forecast import Forecast
from isthmus.trainer.plan.load import load_of
from isthmus.trainer.plan.plan import Work
from isthmus.trainer.plan.steps import Speed
from isthmus.trainer.plan.traffic import Nobody
from isthmus.trainer.store.ahead import assemble, divide
from isthmus.trainer.store.keeping import Deal
from isthmus.trainer.store.routes import Box
from isthmus.trainer.strategies import Worker, part_of
from isthmus.trainer.task.hollow import hollow
from isthmus.trainer.task.network import Network, describe
from isthmus.trainer.wire.exchange import Exchange, Pending, drive
from isthmus.trainer.wire.group import Gloo
from isthmus.trainer.wire.meter import Meter

WORKERS, ROUNDS, STEPS = 4, 5, 2
EXAMPLE = (torch.zeros(2, 6),)


def network() -> nn.Module:
    torch.manual_seed(0)
    wide = [nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3)]
    wide[2].weight.requires_grad_(False)  # it travels, and nobody changes it at all
    return nn.Sequential(*wide)


@cache
def described() -> Network:
    """Traced once."""
    return describe(network, EXAMPLE, 0)


def step(training: Training, number: int) -> None:
    x, y = batch(training.seat, number)
    functional.cross_entropy(training.module(x), y).backward()
    training.optimizer.step()
    training.optimizer.zero_grad()


def make(strategy: IST, overlap: bool, wire: str | None = None, rounds: int | None = ROUNDS) -> Training:
    return Training(described(), None, sgd, strategy, local_steps=STEPS, overlap=overlap, wire=wire, rounds=rounds)


def job(strategy: IST, overlap: bool, wire: str | None = None, rounds: int | None = ROUNDS) -> dict[str, Any]:
    training = make(strategy, overlap, wire, rounds)
    for number in range(ROUNDS * STEPS):
        step(training, number)
    account = training.account()
    with training.whole() as merged:
        assert merged is not None
        weights = state_of(merged)
    training.close()
    return {"weights": weights, "moved": (account.sent_bytes, account.received_bytes), "ahead": account.ahead_bytes}


# ------------------------------------------------------------------- what is sent ahead


@given(seed=st.integers(0, 10**6), workers=st.integers(1, 5), core=st.sampled_from([0.0, 0.25]), gone=st.booleans())
def test_a_box_is_divided_into_what_nobody_holds_and_what_somebody_does(
    seed: int, workers: int, core: float, gone: bool
) -> None:
    coupling = described().coupling
    now, then = (coupling.partition(workers, seed, number, law_of("uniform", core=core)) for number in range(2))
    before, after = (Deal(coupling, [each.of(worker) for worker in range(workers)]) for each in (now, then))
    if gone:
        before = Deal(coupling, [*before.units[:-1], None])
    trained = [name for name, entry in coupling.entries.items() if entry.trained]
    for worker in range(workers):
        for box in after.boxes(worker, list(coupling.entries)):
            idle, rest = divide(box, before, trained)
            whole = np.arange(int(np.prod(box.whole))).reshape(box.whole)
            holders = range(workers) if box.name in trained else ()
            theirs = [each for other in holders for each in before.boxes(other, [box.name])]
            held = {entry for each in theirs for entry in _of(whole, each)}
            wanted = _of(whole, box)
            assert sorted(entry for each in idle for entry in _of(whole, each)) == sorted(set(wanted) - held)
            assert sorted(entry for each in rest for entry in _of(whole, each)) == sorted(set(wanted) & held)
            values = torch.from_numpy(whole)
            parts = [(each, values[np.ix_(*_indices(each))]) for each in (*idle, *rest)]
            assert torch.equal(assemble([box], parts)[0], values[np.ix_(*_indices(box))])


def _indices(box: Box) -> list[Any]:
    return [np.arange(n) if own is None else np.asarray(own) for own, n in zip(box.held, box.whole, strict=True)]


def _of(whole: Any, box: Box) -> list[int]:
    return [int(entry) for entry in whole[np.ix_(*_indices(box))].reshape(-1)]


@pytest.mark.parametrize("wire", [None, "bf16"])
@pytest.mark.parametrize(
    ("law", "core"), [("uniform", 0.0), ("uniform", 0.25), ("rolling", 0.0), ("overlapping", 0.25), ("block", 0.0)]
)
def test_the_same_bits_and_bytes(law: str, core: float, wire: str | None) -> None:
    strategy = IST(law_of(law, core=core))
    at_once, ahead = (in_turn(job, WORKERS, strategy, overlap, wire) for overlap in (False, True))
    for one, other in zip(at_once, ahead, strict=True):
        assert same(one["weights"], other["weights"])
        assert one["moved"] == other["moved"]
        assert not any(one["ahead"])
        assert all(each > 0 for each in other["ahead"])  # under `block` what is frozen alone


def test_only_for_a_round_that_is_not_known_to_come_more_is_sent() -> None:
    known, unknown = (in_turn(job, WORKERS, IST("uniform"), True, None, rounds)[0] for rounds in (ROUNDS, None))
    assert same(known["weights"], unknown["weights"])
    more = [sum(each) for each in zip(*unknown["moved"], strict=True)]
    less = [sum(each) for each in zip(*known["moved"], strict=True)]
    assert [a - b for a, b in zip(more, less, strict=True)] == [
        a - b for a, b in zip(unknown["ahead"], known["ahead"], strict=True)
    ]
    assert sum(more) > sum(less)


def uneven(overlap: bool) -> dict[str, Tensor]:
    """Loops of unequal length: what was sent ahead is for a round that not all take part in."""
    training = make(IST("uniform"), overlap, rounds=None)
    for number in range(2 * STEPS + training.worker):
        step(training, number)
    training.close()
    with training.whole() as merged:
        assert merged is not None
        return state_of(merged)


def test_what_serves_no_round_is_received_and_forgotten() -> None:
    assert same(*(in_turn(uneven, WORKERS, overlap)[0] for overlap in (False, True)))


def again(overlap: bool, folder: Path) -> dict[str, Tensor]:
    """Going back in the same training, with things on their way."""
    training = make(IST("uniform"), overlap, rounds=None)
    for number in range(STEPS):
        step(training, number)
    training.save(folder)
    kept = training.state_dict()
    for number in range(STEPS, 3 * STEPS + 1):
        step(training, number)
    training.resume(folder)
    for number in range(STEPS, 4 * STEPS):
        step(training, number)
    assert kept["steps"] == STEPS
    with training.whole() as merged:
        assert merged is not None
        found = state_of(merged)
    training.close()
    return found


def test_going_back_to_a_checkpoint(tmp_path: Path) -> None:
    assert same(*(in_turn(again, 2, overlap, tmp_path / str(overlap))[0] for overlap in (False, True)))


# ------------------------------------------------------------------- processes


def both() -> list[dict[str, Any]]:
    return [job(IST("uniform"), overlap, wire) for overlap in (False, True) for wire in (None, "bf16")]


@pytest.mark.processes
def test_in_processes_too() -> None:
    found = processes(both, 3)
    serial = in_turn(job, 3, IST("uniform"), True)[0]
    for plain, short, ahead, ahead_short in found:
        assert same(plain["weights"], ahead["weights"])
        assert same(short["weights"], ahead_short["weights"])
        assert same(ahead["weights"], serial["weights"])
        assert (ahead["moved"], ahead["ahead"]) == (serial["moved"], serial["ahead"])


def overtaken() -> tuple[float, float, list[int]]:
    """Begin an exchange that the other worker begins a second later; meanwhile do many that it takes part in."""
    link = Gloo(dist.PrefixStore("ahead", dist.distributed_c10d._get_default_store()), dist.get_rank(), 2)
    here, other = link.index, 1 - link.index
    numbers = torch.arange(1 << 16) + here
    empty = numbers[:0]
    send = tuple(numbers if worker == other else empty for worker in range(2))
    expect = tuple(len(numbers) if worker == other else 0 for worker in range(2))

    def program() -> Any:
        pending = Pending(ahead=True)
        if here == 1:
            time.sleep(1.0)
        yield Exchange(send, expect, beside=pending)
        for _ in range(20):
            reply = yield Exchange((numbers[:1],) * 2, (1, 1), counted=False)
            assert [int(each) for each in reply] == [0, 1]
        late = time.monotonic()
        reply = yield Exchange(tuple(each[:9] for each in send), tuple(min(9, n) for n in expect))
        assert reply[other].tolist() == [other + n for n in range(9)]
        return late, (yield pending)[other]

    meter, begun = Meter(), time.monotonic()
    late, came = drive(program(), link, meter)
    assert torch.equal(came, torch.arange(1 << 16) + other)
    return late - begun, time.monotonic() - begun, [meter.sent, meter.received, meter.ahead, meter.hops]


@pytest.mark.processes
def test_meetings_and_messages_overtake_what_is_on_its_way() -> None:
    for _, _, counted in processes(overtaken, 2):
        size = 8 * (1 << 16)
        assert counted == [size + 72, size + 72, 2 * size, 22]


# ------------------------------------------------------------------- flags and plans


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"overlap": True, "workers": 1}, "`overlap` has no effect with one worker: nothing travels"),
        ({"overlap": True, "strategy": "narrow"}, "`overlap` has no effect with strategy 'narrow'"),
        ({"overlap": True, "executor": "serial"}, "`overlap` has no effect with executor 'serial'"),
    ],
)
def test_where_it_has_no_effect_it_is_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        configure(**flags)


def test_training_refuses_it_so() -> None:
    for strategy in (LocalSGD(), Narrow()):
        with pytest.raises(InvalidInput, match=r"`overlap` has no effect"):
            in_turn(lambda chosen: Training(network, EXAMPLE, sgd, chosen, overlap=True), 2, strategy)


def test_the_plan_knows_what_goes_ahead_and_that_it_costs_no_time_beside_long_steps() -> None:
    strategy, empty = IST("uniform"), hollow(described())
    work = Work(sgd, lambda module: module(EXAMPLE[0]).square().mean())
    loads = {
        overlap: tuple(
            load_of(
                strategy, Worker(Nobody(index, WORKERS), described(), 0, ahead=overlap), empty, work,
                lambda module: Speed(1.0, "given"), ROUNDS,
            )
            for index in range(WORKERS)
        )
        for overlap in (False, True)
    }  # fmt: skip
    found = in_turn(rows, WORKERS, strategy)[0]
    planned = [[round(load.rounds[number].ahead) for load in loads[True]] for number in range(ROUNDS - 1)]
    assert planned == [list(each) for each in found[:-1]]
    needs = [
        part_of(strategy, Worker(Nobody(0, WORKERS), described(), 0, ahead=overlap)).needs(described().skeleton()).moved
        for overlap in (False, True)
    ]
    assert needs[1] - needs[0] >= loads[True][0].rounds[0].ahead > 0
    line = Line(8e4, 8e4)
    apart, beside = (Forecast(loads[each], WORKERS, STEPS, 8, line) for each in (False, True))
    assert beside.busiest_bytes == pytest.approx(apart.busiest_bytes, rel=0.05)  # of other rounds, a little
    hidden = apart.round_seconds - beside.round_seconds
    assert 0 < hidden <= line.seconds(max(load.steady.ahead for load in loads[True]), 0, 0)
    slow = Line(8.0, 8.0)  # so slow that steps hide next to nothing
    longest = Forecast(loads[True], WORKERS, STEPS, 8, slow).round_seconds
    assert longest == pytest.approx(Forecast(loads[False], WORKERS, STEPS, 8, slow).round_seconds, rel=0.05)


def rows(strategy: IST) -> list[tuple[int, ...]]:
    """What went ahead in every round, by worker."""
    training, accounts = make(strategy, True), [(0,) * WORKERS]
    for number in range(ROUNDS * STEPS):
        step(training, number)
        if (number + 1) % STEPS == 0:
            accounts.append(training.account().ahead_bytes)
    training.close()
    return [tuple(b - a for a, b in zip(*two, strict=True)) for two in pairwise(accounts)]
