"""Capacities that are measured: slow workers hold less, all deal alike, and the course is that of the same numbers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cases.loops import batch, in_turn, same, state_of
from cases.twins import network, plain, traced, trained
from isthmus import Training, launch
from isthmus.cli.train import _by_speed
from isthmus.errors import InvalidInput
from isthmus.nets import trace
from isthmus.nets.graph.example import example_of
from isthmus.nets.pieces.merge import merge
from isthmus.nets.pieces.subnetwork import blank, build
from isthmus.partitions import Core, Law, Weighted, law_of
from isthmus.partitions.weighted import balance, shares
from isthmus.strategies import IST, Narrow
from isthmus.trainer.config import Faults, configure
from isthmus.trainer.config.flags import command
from isthmus.trainer.local.flops import flops
from isthmus.trainer.task.effort import efforts

WORKERS, ROUNDS, STEPS, MEASURED = 3, 6, 2, 3  # the first three rounds are dealt equally
AUTO = Weighted("auto")


def make(law: Law, elastic: bool = False) -> Training:
    torch.set_num_threads(1)
    faults = Faults(min_workers=1) if elastic else None
    return Training(network(), (torch.zeros(2, 6),), plain, IST(law, scale="none"), local_steps=STEPS, faults=faults)


def steps(training: Training, slow: tuple[float, ...], first: int, last: int) -> None:
    """Make steps, a worker as long as is said."""
    for step in range(first * STEPS, last * STEPS):
        x, y = batch(training.seat, step)
        functional.cross_entropy(training.module(x), y).backward()
        time.sleep(slow[training.seat])
        training.optimizer.step()
        training.optimizer.zero_grad()


def course(law: Law, slow: tuple[float, ...], elastic: bool = False) -> dict[str, Any]:
    training = make(law, elastic)
    steps(training, slow, 0, ROUNDS)
    held = [len(indices[0]) for name, indices in training._members.part._piece.indices.items() if name == "0.bias"]
    with training.whole() as merged:
        found = {name: p.detach().clone() for name, p in merged.named_parameters()}
    told = training.gather(*training.capacities)
    training.close()
    return {"weights": found, "capacities": training.capacities, "told": told, "held": held[0]}


def launched(law: Law, slow: tuple[float, ...]) -> dict[str, Any]:
    found = course(law, slow, elastic=True)
    return found | {"weights": {name: value.numpy() for name, value in found["weights"].items()}}


def twin(capacities: tuple[float, ...], core: float = 0.0) -> dict[str, Tensor]:
    """Return the weights of a course with given capacities from a round on; one process holds everything."""
    whole, coupling = network(), traced()
    for number in range(ROUNDS):
        now = capacities if number >= MEASURED else (1.0,) * WORKERS
        partition = coupling.partition(WORKERS, 0, number, law_of("weighted", core=core, capacities=now))
        steps = range(number * STEPS, (number + 1) * STEPS)
        pieces = trained(whole, partition, range(WORKERS), steps)
        merge(whole, pieces)
    return state_of(whole)


@pytest.mark.parametrize("core", [0.0, 0.25])
def test_slow_workers_get_less_and_the_course_is_that_of_the_recorded_capacities(core: float) -> None:
    law = Core(AUTO, core) if core else AUTO
    found = in_turn(course, WORKERS, law, (0.01, 0.16, 0.04))
    (first, *others) = found
    capacities = first["capacities"]
    assert capacities[0] == 1.0 > capacities[2] > capacities[1]
    assert others[0]["held"] < first["held"]  # of few units: between the two it may come out even on a busy machine
    assert others[0]["held"] <= others[1]["held"] <= first["held"]
    assert all(tuple(told) == capacities for told in first["told"])
    assert all(same(each["weights"], twin(capacities, core)) for each in found)


def test_over_processes_too() -> None:
    found = launch(launched, AUTO, (0.01, 0.16, 0.04), workers=WORKERS, elastic=True)
    assert found is not None
    capacities = found["capacities"]
    assert capacities[0] == 1.0 > capacities[2] > capacities[1]
    assert all(tuple(told) == capacities for told in found["told"])
    assert same({name: torch.from_numpy(value) for name, value in found["weights"].items()}, twin(capacities))


def one_is_killed(slow: tuple[float, ...]) -> dict[str, Any]:
    """Be one worker until the one that is killed, once capacities are known, has come back and trained with them."""
    training = make(AUTO, elastic=True)
    again = os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"
    began = training.capacities
    back = 0.0
    while back < 2:
        if training.seat == 1 and training.round == MEASURED + 1 and not again:
            os.kill(os.getpid(), signal.SIGKILL)
        steps(training, slow, training.round, training.round + 1)
        back += again or any(event.what == "joined" for event in training.events)
        back = min(each[0] for each in training.gather(back))
    held = training.module.get_parameter("0.bias").numel()
    told = training.gather(*(training.capacities or ()), training.seat, float(again and began is not None), held)
    training.close()
    return {"told": told, "events": [(event.what, event.seat) for event in training.events]}


def test_a_worker_that_comes_back_is_told() -> None:
    """And as it now stands last among the workers, capacities must go by seat."""
    found = launch(one_is_killed, (0.01, 0.16, 0.02), workers=WORKERS, elastic=True)
    assert found is not None
    assert found["events"] == [("lost", 1), ("joined", 1)]
    first, second, last = (told for told in sorted(found["told"], key=lambda told: told[WORKERS]))
    assert first[:WORKERS] == second[:WORKERS] == last[:WORKERS]
    assert [told[-2] for told in (first, second, last)] == [0.0, 1.0, 0.0]
    assert first[-1] > last[-1] > second[-1]


def test_a_resumed_training_deals_as_before(tmp_path: Path) -> None:
    def first() -> tuple[float, ...] | None:
        training = make(AUTO)
        steps(training, (0.005, 0.02, 0.01), 0, MEASURED + 1)
        training.save(tmp_path / "kept")
        training.close()
        return training.capacities

    def again() -> tuple[tuple[float, ...] | None, bool]:
        training = make(AUTO)
        training.resume(tmp_path / "kept")
        known = training.capacities
        steps(training, (0.0,) * WORKERS, MEASURED + 1, ROUNDS)
        with training.whole() as merged:
            found = {name: p.detach().clone() for name, p in merged.named_parameters()}
        training.close()
        assert known is not None
        return known, same(found, twin(known))

    saved = in_turn(first, WORKERS)
    assert saved[0] is not None
    assert in_turn(again, WORKERS) == [(saved[0], True)] * WORKERS


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("slow", [(1.0, 2.0, 4.0), (3.0, 1.0, 1.0), (1.0, 1.0, 1.0)])
def test_all_workers_need_about_as_long(power: float, slow: tuple[float, ...]) -> None:
    def work(capacities: Any) -> list[float]:
        return [(units / 600) ** power for units in shares(600, capacities)]

    equal = work([1.0] * 3)
    capacities = balance([slowness * each for slowness, each in zip(slow, equal, strict=True)], work)
    times = [slowness * each for slowness, each in zip(slow, work(capacities), strict=True)]
    assert max(times) <= 1.05 * min(times)
    assert max(capacities) == 1.0


CONVOLUTIONS = (
    nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 48, 3, stride=2, padding=1), nn.ReLU(),
    nn.Flatten(), nn.Linear(48 * 16, 10),
)  # fmt: skip
ATTENDING = (nn.Embedding(50, 32), nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), nn.Linear(32, 50))


@pytest.mark.parametrize(
    ("layers", "x"),
    [(CONVOLUTIONS, torch.zeros(16, 1, 8, 8)), (ATTENDING, torch.zeros(2, 7, dtype=torch.int64))],
    ids=["convolutions", "attention"],
)
def test_operations_are_those_of_the_parameters_whatever_the_piece(
    layers: tuple[nn.Module, ...], x: Tensor
) -> None:
    """Counted on an equal piece, they give what is executed of others, but for what no parameter goes into."""
    whole = nn.Sequential(*layers)
    coupling = trace(whole, (x,))

    def piece(capacities: tuple[float, ...], worker: int) -> nn.Module:
        units = coupling.partition(2, 0, 1, Weighted(capacities)).of(worker)
        return build(whole, coupling, units).module

    found = efforts(piece((1.0, 1.0), 0).to("meta"), coupling.example)
    for capacities in ((1.0, 1.0), (1.0, 3.0)):
        for worker in range(2):
            made = piece(capacities, worker)
            expected = sum(p.numel() * (found[name] - 1) / 3 for name, p in made.named_parameters())
            attends = [p for name, p in made.named_parameters() if "out_proj.weight" in name]
            attention = sum(4 * 2 * 7 * 7 * p.shape[1] for p in attends)
            assert flops(lambda made=made: made(x))[1] == round(expected) + attention  # type: ignore[misc]


def test_convolutions_are_dealt_so_that_all_need_about_as_long() -> None:
    """Numbers alone would leave the fastest with half as much again as others: it is a convolution that takes long."""
    whole, x, slow = nn.Sequential(*CONVOLUTIONS), torch.zeros(16, 1, 8, 8), (1.0, 2.0, 4.0)
    coupling = trace(whole, (x,))

    def made(capacities: Any) -> list[int]:
        partition = coupling.partition(3, 0, 0, Weighted(tuple(capacities)))
        pieces = [build(whole, coupling, partition.of(worker)).module for worker in range(3)]
        return [flops(lambda piece=piece: piece(x).sum().backward())[1] for piece in pieces]  # type: ignore[misc]

    def work(capacities: Any) -> list[float]:
        partition = coupling.partition(3, 0, 0, Weighted(tuple(capacities)))
        read, empty = blank(coupling, torch.device("meta"))
        pieces = [build(read, empty, partition.of(worker)).module for worker in range(3)]
        found = efforts(pieces[0], coupling.example)
        return [sum(p.numel() * found[name] for name, p in piece.named_parameters()) for piece in pieces]

    equal = made([1.0] * 3)
    capacities = balance([each * slowness for each, slowness in zip(equal, slow, strict=True)], work)
    times = [each * slowness for each, slowness in zip(made(capacities), slow, strict=True)]
    assert max(times) <= 1.07 * min(times)
    assert max(each * slowness for each, slowness in zip(equal, slow, strict=True)) >= 2.1 * max(times)


def test_the_table_at_the_end_says_what_was_measured() -> None:
    assert _by_speed({"capacities": [1.0, 0.65, 0.4]}) == [("capacities as measured, by worker", "1, 0.65, 0.4")]
    assert _by_speed({"capacities": None}) == _by_speed({}) == []


def test_a_network_that_cannot_be_counted_goes_by_its_numbers_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) if x.sum().item() > 0 else x

    network, x = Asks(), torch.ones(2, 3)
    found = efforts(network.to("meta"), example_of(network, (x,), {}))
    assert found == {"layer.weight": 1.0, "layer.bias": 1.0}
    assert "capacities go by how many numbers a piece has, not by its operations (" in caplog.text


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InvalidInput, match="'serial': its workers are as fast"):
        configure(law="weighted", capacities="auto", executor="serial")
    with pytest.raises(InvalidInput, match="auto has no effect with strategy 'narrow'"):
        Narrow(AUTO)
    with pytest.raises(InvalidInput, match="must be numbers or auto, got 'fast'"):
        law_of("weighted", capacities="fast")


def test_the_word_is_recorded_and_makes_the_law_again() -> None:
    law = Core(AUTO, 0.25)
    assert law_of(**law.record()) == law
    assert law.measures
    assert law.measured((1.0, 0.5)) == Core(Weighted((1.0, 0.5)), 0.25)
    assert not law.measured((1.0, 0.5)).measures
    assert Weighted((1.0, 2.0)).measured((1.0, 1.0)) == Weighted((1.0, 2.0))
    words = command(configure(law="weighted", capacities="auto", core=0.25))
    assert words is not None
    assert words[words.index("--capacities") + 1] == "auto"
