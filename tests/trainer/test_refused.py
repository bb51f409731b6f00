"""A block that is no numbers, or far too large, is left out; the others' merge is that of a twin without it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import TensorDataset

from cases.loops import WAYS, batch, in_turn, normed, perceptron, same, state_of
from cases.twins import network, plain, traced, trained
from isthmus import Training, launch, train
from isthmus.nets.pieces.merge import merge, zero_cross_blocks
from isthmus.partitions import Core, Law, law_of
from isthmus.records import read_run
from isthmus.strategies import IST, DiLoCo, LocalSGD, Narrow, Strategy
from isthmus.trainer.config import Faults
from isthmus.trainer.rounds.sound import MOST, fault, norm

WORKERS, ROUNDS, STEPS = 3, 5, 2
Spoils = dict[tuple[int, int], float]  # (round, worker) -> what its last weight becomes; or is multiplied by, if finite


def job(
    strategy: Strategy, spoils: Spoils, wire: str | None = None, looks: bool = False, elastic: bool = False
) -> dict[str, Any]:
    torch.set_num_threads(1)
    faults = Faults(copies=True, min_workers=1) if elastic else None
    training = Training(network(), (torch.zeros(2, 6),), plain, strategy, local_steps=STEPS, wire=wire, faults=faults)
    courses = []
    for step in range(ROUNDS * STEPS):
        x, y = batch(training.seat, step)
        functional.cross_entropy(training.module(x), y).backward()
        spoil = spoils.get((step // STEPS, training.seat)) if step % STEPS == STEPS - 1 else None
        if spoil is not None:
            with torch.no_grad():
                weights = list(training.module.parameters())[-2]
                weights.mul_(spoil) if abs(spoil) < float("inf") else weights[0, 0].fill_(spoil)
        training.optimizer.step()
        training.optimizer.zero_grad()
        if looks and step % STEPS == STEPS - 1:
            with training.whole() as merged:
                courses.append({name: p.detach().clone() for name, p in merged.named_parameters()})
    with training.whole() as merged:
        found = {name: p.detach().clone() for name, p in merged.named_parameters()}
    events = [(event.what, event.round, event.seat, event.text) for event in training.events]
    training.close()
    return {"weights": found, "events": events, "courses": courses}


def launched(*arguments: Any) -> dict[str, Any]:
    found = job(*arguments, elastic=True)
    return found | {"weights": {name: value.numpy() for name, value in found["weights"].items()}}


def twin(law: Law, spoils: Spoils) -> dict[str, Tensor]:
    """Return the weights of a course in which the spoilt blocks are not merged; one process holds everything."""
    whole, coupling = network(), traced()
    if law.zero_cross_blocks:
        zero_cross_blocks(whole, coupling, coupling.partition(WORKERS, 0, 0, law))
    for number in range(ROUNDS):
        partition = coupling.partition(WORKERS, 0, number, law)
        steps = range(number * STEPS, (number + 1) * STEPS)
        pieces = trained(whole, partition, range(WORKERS), steps)
        merge(whole, [piece for seat, piece in enumerate(pieces) if (number, seat) not in spoils])
    return state_of(whole)


SPOILS: Spoils = {(1, 0): float("nan"), (2, 1): float("inf"), (2, 2): -1e9}


@pytest.mark.parametrize(
    ("way", "law"),
    [("in turn", law_of("block")), ("in turn", law_of("fixed")), *((way, Core(law_of("fixed"), 0.25)) for way in WAYS)],
    ids=str,
)
def test_the_others_merge_without_it_and_it_goes_on_with_the_next_round(way: str, law: Law) -> None:
    """Looked at every round: what stays with a worker under a fixed law is home then."""
    found = WAYS[way](job, WORKERS, IST(law, scale="none"), SPOILS, None, True)
    expected = twin(law, SPOILS)
    for each in found:
        assert same(each["weights"], expected)
        assert [event[:3] for event in each["events"]] == [("refused", *where) for where in SPOILS]
        texts = [event[3] for event in each["events"]]
        assert texts[:2] == ["a NaN in 4.weight", "an infinity in 4.weight"]
        assert texts[2].startswith("its norm is ")
        assert texts[2].endswith(" when the round was opened, most of it in 4.weight")


def test_what_stayed_with_it_comes_back_from_its_neighbours_copy() -> None:
    law = Core(law_of("fixed"), 0.25)
    found = launch(launched, IST(law, scale="none"), SPOILS, workers=WORKERS, elastic=True)
    assert found is not None
    assert same({name: torch.from_numpy(value) for name, value in found["weights"].items()}, twin(law, SPOILS))


@pytest.mark.parametrize("spoils", [{(0, 1): float("nan")}, {(2, 1): float("nan")}], ids=["first", "later"])
@pytest.mark.parametrize("law", ["block", "fixed"])
def test_with_a_shorter_wire(law: str, spoils: Spoils) -> None:
    """What never travels under a fixed law keeps all its digits. Rounding makes 3e-4, another course 7e-3 and more."""
    found = in_turn(job, WORKERS, IST(law_of(law), scale="none"), spoils, "bf16", True)
    expected = twin(law_of(law), spoils)
    for each in found:
        assert len(each["events"]) == 1
        assert all((value - expected[name]).abs().max() < 1e-3 for name, value in each["weights"].items())


@pytest.mark.parametrize("wire", [None, "bf16"])
@pytest.mark.parametrize("strategy", [LocalSGD(), Narrow(), DiLoCo(fragments=2)], ids=["local-sgd", "narrow", "diloco"])
def test_rivals_take_the_others_mean(strategy: Strategy, wire: str | None) -> None:
    """Two of three are refused: the mean is the third's own, by whatever way the first two have been spoilt."""
    ways = [
        in_turn(job, WORKERS, strategy, {(1, 0): one, (1, 2): other}, wire)
        for one, other in itertools.permutations((float("nan"), float("-inf"), 1e12), 2)
    ]
    weights = [each["weights"] for found in ways for each in found]
    assert all(same(each, weights[0]) for each in weights)
    assert all(bool(value.isfinite().all()) for value in weights[0].values())
    assert not same(weights[0], in_turn(job, WORKERS, strategy, {}, wire)[0]["weights"])


def test_when_all_are_bad_they_are_merged_as_they_are() -> None:
    spoils = {(1, seat): float("nan") for seat in range(WORKERS)}
    for each in in_turn(job, WORKERS, LocalSGD(), spoils):
        assert each["events"] == []
        assert bool(each["weights"]["4.weight"].isnan().any())


def test_it_is_said_when_a_worker_is_refused_again_and_again() -> None:
    spoils = {(number, 1): float("nan") for number in range(ROUNDS)}
    (first, *_) = in_turn(job, WORKERS, LocalSGD(), spoils)
    assert [event[3].partition(", ")[2] for event in first["events"]] == [
        "", "", *(f"{count} rounds in a row" for count in (3, 4, 5))
    ]  # fmt: skip


def test_momentum_and_running_statistics_of_a_refused_block_are_forgotten() -> None:
    def steps() -> tuple[bool, bool]:
        torch.manual_seed(7)
        training = Training(
            normed(), (torch.zeros(2, 1, 4, 4),), lambda m: torch.optim.SGD(m.parameters(), 0.1, 0.9), local_steps=1
        )
        for step in range(3):
            x, y = batch(training.worker, step, (1, 4, 4))
            if step == 1 and training.worker == 1:
                x = x * float("nan")
            functional.cross_entropy(training.module(x), y).backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        momenta = [entry["momentum_buffer"] for entry in training.optimizer.state.values()]
        everything = [*training.module.parameters(), *training.module.buffers(), *momenta]
        assert [event.text for event in training.events] == ["a NaN in 0.weight"]
        training.close()
        return all(bool(tensor.isfinite().all()) for tensor in everything), len(momenta) > 0

    assert in_turn(steps, 2) == [(True, True)] * 2


@pytest.mark.parametrize("began", [0.0, 3.0])
def test_the_bound_is_the_stated_one(began: float) -> None:
    most = MOST * (1 + began)
    assert fault({"w": torch.tensor([most * 0.999], dtype=torch.float64)}, began) is None
    assert fault({"w": torch.tensor([most * 1.001], dtype=torch.float64)}, began) is not None
    assert fault({"w": torch.full((3,), 1e30)}, began) is not None  # its square is no float32
    assert fault({"n": torch.tensor([1 << 60])}, began) is None
    assert norm({"w": torch.tensor([3.0]), "h": torch.tensor([4.0], dtype=torch.float16)}) == 5.0


def test_the_row_has_the_loss_of_the_others_and_the_event_that_of_the_refused(tmp_path: Path) -> None:
    inputs, targets = batch(0, 0, size=16)
    inputs[3] = float("nan")
    data = TensorDataset(inputs, targets), TensorDataset(*batch(0, 1))
    train(
        data=data, model=perceptron, example=(torch.zeros(2, 6),), strategy="local-sgd", executor="serial", workers=2,
        rounds=2, local_steps=2, batch_size=4, out=tmp_path / "run",
    )  # fmt: skip
    run = read_run(tmp_path / "run")
    assert run.status == "finished"
    assert all(0 < row["train_loss"] < 3 for row in run.rows[1:])
    assert [(event["event"], event["round"]) for event in run.events] == [("refused", 0)]
    assert run.events[0]["text"] == "a NaN in 0.weight (its loss: nan)"
