"""Codes of classes: the very bits of small networks trained by hand, and the sum of what they say of each class."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cases.loops import WAYS, in_turn, sgd
from cases.many import BATCH, CLASSES, EXAMPLE, batch, network
from cases.runs import trained
from isthmus import Training, launch
from isthmus.errors import InvalidInput, WorkerError
from isthmus.nets import trace
from isthmus.nets.models.code_softmax import load_code_softmax
from isthmus.partitions.codes import Code
from isthmus.strategies import HashedCodes, Mach, Strategy
from isthmus.trainer import configure, memory_plan
from isthmus.trainer.config import Faults
from isthmus.trainer.task.fitting import Fitting

WORKERS, STEPS = 3, 12


def job(strategy: Strategy, folder: str | None = None) -> dict[str, Any]:
    training = Training(network(), EXAMPLE, sgd, strategy, local_steps=5)
    for step in range(STEPS):
        x, y = batch(training.seat, step)
        wanted = training.targets(y)
        scores = training.module(x)
        functional.cross_entropy(scores.flatten(0, -2), wanted.flatten()).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    with training.whole() as merged, torch.no_grad():
        assert merged is not None
        found: dict[str, Any] = {"weights": {name: p.detach().clone() for name, p in merged.named_parameters()}}
        found["scores"] = merged(batch(9, 9)[0])
    if folder is not None:
        training.export(f"{folder}/model.safetensors")
    account = training.account()
    training.close()
    return found | {"sent": torch.tensor(account.sent_bytes), "most": torch.tensor(account.memory_bytes)}


# ------------------------------------------------------------------- the naive twin


def small(units: Any, rows: int) -> nn.Module:
    whole: Any = network()
    piece = nn.Sequential(nn.Linear(6, len(units)), nn.ReLU(), nn.Linear(len(units), rows))
    larger = torch.tensor(len(units) / 12, dtype=torch.float64).rsqrt().float()
    first = np.arange(rows) % CLASSES
    with torch.no_grad():
        piece[0].weight.copy_(whole[0].weight[units])
        piece[0].bias.copy_(whole[0].bias[units])
        piece[2].weight.copy_(whole[2].weight[first][:, units] * larger if len(units) < 12 else whole[2].weight[first])
        piece[2].bias.copy_(whole[2].bias[first])
    return piece


def by_hand(seat: int, width: int, code: Code) -> nn.Module:
    """One piece in a loop of its own: a loss over buckets a table, or a binary loss a bit."""
    sets = trace(network(), EXAMPLE).partition(WORKERS, 0, 0, "block").held["0"]
    order = np.concatenate([sets[(seat + step) % WORKERS] for step in range(WORKERS)])
    piece = small(np.sort(order[:width]), code.units)
    symbols, optimizer = torch.from_numpy(code.of(seat)), sgd(piece)
    for step in range(STEPS):
        x, y = batch(seat, step)
        scores = piece(x)
        if code.pinned:
            loss = functional.binary_cross_entropy_with_logits(scores, symbols[:, y].T.float())
        else:
            tables = scores.split(code.symbols, 1)
            loss = sum(functional.cross_entropy(z, symbols[t][y]) for t, z in enumerate(tables)) / len(tables)  # type: ignore[assignment]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return piece


CASES = [
    (Mach(20), 7, Code(CLASSES, 20, 1, WORKERS, 0), True),
    (Mach(5, tables=2, width=0.5), 6, Code(CLASSES, 5, 2, WORKERS, 0), False),
    (HashedCodes(6, width=1.0), 12, Code(CLASSES, 2, 6, WORKERS, 0, pinned=True), False),
]


@pytest.mark.parametrize(("strategy", "width", "code", "exact"), CASES, ids=lambda each: getattr(each, "slug", ""))
def test_pieces_are_those_of_loops_by_hand_and_the_merged_network_sums_what_they_say(
    strategy: Strategy, width: int, code: Code, exact: bool, tmp_path: Path
) -> None:
    """One table: to the bit. Several: a sum of losses in another order, to rounding."""
    found = in_turn(job, WORKERS, strategy, str(tmp_path))
    x, total = batch(9, 9)[0], torch.zeros(BATCH, CLASSES, dtype=torch.float64)
    for seat in range(WORKERS):
        piece, symbols = by_hand(seat, width, code), code.of(seat)
        for name, parameter in piece.named_parameters():
            mine = found[0]["weights"][f"pieces.{seat}.body.{name}"]
            assert torch.equal(mine, parameter) if exact else torch.allclose(mine, parameter, atol=1e-6)
        with torch.no_grad():
            scores = piece(x).double()
        for table in range(code.tables):
            for v in range(CLASSES):
                s = int(symbols[table, v])
                if code.pinned:
                    total[:, v] += functional.logsigmoid(scores[:, table] * (2 * s - 1))
                else:
                    z = scores[:, table * code.symbols : (table + 1) * code.symbols]
                    total[:, v] += z.log_softmax(1)[:, s]
    redundancy = max(1, WORKERS * code.tables * math.log(code.symbols) / math.log(CLASSES))
    assert (found[0]["scores"] - (total / redundancy).log_softmax(1)).abs().max() < 1e-5
    assert all(torch.equal(each["scores"], found[0]["scores"]) for each in found)
    assert all(int(each["sent"].sum()) == 0 for each in found)
    again = load_code_softmax(tmp_path / "model.safetensors", network(), EXAMPLE)
    with torch.no_grad():
        assert torch.equal(again(x), found[0]["scores"])
        assert torch.allclose(again(x).exp().sum(1), torch.ones(BATCH), atol=1e-5)


@pytest.mark.processes
def test_processes_give_the_same_bits() -> None:
    one, other = (way(job, WORKERS, Mach(5, tables=2)) for way in WAYS.values())
    assert torch.equal(one[0]["scores"], other[1]["scores"])
    assert all(torch.equal(tensor, other[2]["weights"][name]) for name, tensor in one[0]["weights"].items())


@pytest.mark.parametrize("strategy", [Mach(10), Mach(5, 2), HashedCodes(6)], ids=lambda each: each.slug)
def test_a_worker_holds_no_more_than_narrow_and_one_unit_more_would_be_more(strategy: Strategy) -> None:
    plans = memory_plan(network(), (torch.zeros(BATCH, 6),), sgd, strategy, workers=WORKERS)
    narrow = memory_plan(network(), (torch.zeros(BATCH, 6),), sgd, "narrow", workers=WORKERS)[0]
    fitting = Fitting(trace(network(), EXAMPLE), WORKERS, 0, strategy.name)
    rows = {"mach-b10": 10, "mach-b5-t2": 10, "hashed-codes-b6": 6}[strategy.slug]
    assert 4 * fitting.limit == narrow.piece == 4 * (4 * 6 + 4 + 4 * CLASSES + CLASSES)
    width = next(w for w in range(12, 0, -1) if 7 * w + rows * w + rows <= fitting.limit)
    assert [plan.piece for plan in plans] == [4 * (7 * width + rows * width + rows)] * WORKERS
    assert [plan.held for plan in plans] == in_turn(job, WORKERS, strategy)[0]["most"].tolist()


def last(strategy: Strategy) -> int:
    return len(Training(network(), EXAMPLE, sgd, strategy).module.get_parameter("2.weight"))


def test_what_is_left_open_fills_the_memory_of_narrow() -> None:
    found = in_turn(lambda: last(Mach(width=0.5)), WORKERS)
    fitting = Fitting(trace(network(), EXAMPLE), WORKERS, 0, "mach")
    assert found == [max(b for b in range(2, CLASSES + 1) if 6 * 7 + b * 7 <= fitting.limit)] * WORKERS
    both = in_turn(lambda: last(Mach()), WORKERS)
    assert both == [CLASSES // 4] * WORKERS


# ------------------------------------------------------------------- codes


def test_tables_are_drawn_by_seed_and_number_and_split_the_classes_evenly() -> None:
    one = Code(101, 7, 3, 4, seed=5)
    assert np.array_equal(np.concatenate([one.of(worker) for worker in range(4)]),
                          np.concatenate([Code(101, 7, 2, 6, seed=5).of(worker) for worker in range(6)]))  # fmt: skip
    for worker in range(4):
        for table in one.of(worker):
            assert np.ptp(np.bincount(table, minlength=7)) <= 1
    assert not np.array_equal(one.of(0)[0], one.of(0)[1])
    assert not np.array_equal(one.of(0)[0], Code(101, 7, 3, 4, seed=6).of(0)[0])
    assert one.alike == 0
    pairs = Code(8, 2, 1, 2, seed=0)
    keys = [tuple(pairs.of(w)[0][v] for w in range(2)) for v in range(8)]
    assert pairs.alike == sum(keys.count(key) > 1 for key in keys) > 0


def test_at_the_optimum_classes_come_in_the_order_of_their_probabilities_where_one_leads() -> None:
    """Tables with the exact probabilities of their buckets: the likeliest class leads once there are enough of them."""
    truth = np.full(60, 0.4 / 59)
    truth[17] = 0.6
    code = Code(60, 6, 1, 12, seed=0)
    score = np.zeros(60)
    for worker in range(12):
        symbols = code.of(worker)[0]
        score += np.log(np.bincount(symbols, weights=truth))[symbols]
    assert score.argmax() == 17


# ------------------------------------------------------------------- the command, sequences, losses


def test_the_command_trains_both_and_plans_what_it_counts(tmp_path: Path) -> None:
    common: dict[str, Any] = {"workers": 2, "widths": (16,), "rounds": 3, "local_steps": 4, "batch_size": 16}
    for number, flags in enumerate([{"strategy": "mach", "buckets": 4}, {"strategy": "hashed-codes", "bits": 8}]):
        run = trained(tmp_path / str(number), **common, **flags)
        assert run.summary["sent_bytes"] == [0, 0]
        assert "routed_bytes" not in run.summary
        assert run.summary["planned"]["held_bytes"] == run.summary["worker_memory_bytes"]
        again = trained(tmp_path / f"{number}again", **common, **flags)
        assert again.summary["weights_sha256"] == run.summary["weights_sha256"]


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.out = nn.Embedding(CLASSES, 4), nn.Linear(4, 12), nn.Linear(12, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.hidden(self.embed(tokens)).relu())


def test_next_tokens_at_every_position_and_those_that_do_not_count() -> None:
    tokens = torch.randint(0, CLASSES, (8, 6), generator=torch.Generator().manual_seed(0))
    after = torch.where(tokens % 2 == 0, (tokens + 1) % CLASSES, -100)

    def reads() -> tuple[Tensor, Tensor, Tensor]:
        training = Training(Reader, (tokens[:2],), sgd, Mach(5, tables=2), local_steps=10)
        wanted, scores = training.targets(after), training.module(tokens)
        functional.cross_entropy(scores.flatten(0, -2), wanted.flatten()).backward()
        training.optimizer.step()
        with training.whole() as merged, torch.no_grad():
            assert merged is not None
            found = merged(tokens)
        training.close()
        return scores.detach(), wanted, found

    scores, wanted, found = in_turn(reads, 2)[1]
    assert (scores.shape, wanted.shape, found.shape) == ((8, 6, 2, 5), (8, 6, 2), (8, 6, CLASSES))
    assert ((wanted < 0) == (after < 0).unsqueeze(-1)).all()
    symbols = torch.from_numpy(Code(CLASSES, 5, 2, 2, 0).of(1))
    assert torch.equal(wanted[after >= 0], symbols[:, after[after >= 0]].T)


def dies(killed: int) -> dict[str, Any] | None:
    """Worker ``killed`` ends in the third round, and does not come back."""
    if os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
        return None
    torch.set_num_threads(1)
    training = Training(network(), EXAMPLE, sgd, Mach(20), local_steps=4, faults=Faults(min_workers=1))
    for step in range(STEPS):
        if step == 10 and training.seat == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        x, y = batch(training.seat, step)
        functional.cross_entropy(training.module(x), training.targets(y)).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    with training.whole() as merged, torch.no_grad():
        assert merged is not None
        scores, pieces = merged(batch(9, 9)[0]), sorted({n.split(".")[1] for n, _ in merged.named_parameters()})
    training.close()
    return {"scores": scores.numpy(), "pieces": pieces}


@pytest.mark.processes
def test_a_lost_worker_is_an_opinion_less() -> None:
    found = launch(dies, 1, workers=WORKERS)
    assert found is not None
    assert found["pieces"] == ["0", "2"]
    x, total = batch(9, 9)[0], torch.zeros(BATCH, CLASSES)
    for seat in (0, 2):
        code = CASES[0][2]
        piece = by_hand(seat, 7, code)
        with torch.no_grad():
            total += piece(x).log_softmax(1)[:, torch.from_numpy(code.of(seat)[0])]
    total = total * math.log(CLASSES) / (2 * math.log(20))  # two opinions are left
    assert np.allclose(found["scores"], total.log_softmax(1).numpy(), atol=1e-5)


# ------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Mach(1), "`buckets` must be at least 2, got 1"),
        (lambda: Mach("many"), "`buckets` must be auto or a number, got 'many'"),
        (lambda: Mach(width="wide"), "`width` must be memory or a number above 0, at most 1, got 'wide'"),
        (lambda: HashedCodes(0), "`bits` must be at least 1, got 0"),
        (lambda: in_turn(lambda: Training(network(), EXAMPLE, sgd, Mach(41)), 2),
         "`buckets` must be at most the number of classes, 40, got 41"),
        (lambda: in_turn(lambda: Training(network(), EXAMPLE, sgd, Mach(40, tables=9)), 2),
         "strategy 'mach' cannot have as few parameters as narrow has here"),
        (lambda: configure(strategy="local-sgd", buckets=4), "`buckets` has no effect with strategy 'local-sgd'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(make: Any, said: str) -> None:
    with pytest.raises((InvalidInput, WorkerError), match=said):
        make()


def test_targets_that_do_not_fit_are_one_line() -> None:
    training = Training(network(), EXAMPLE, sgd, Mach(4))
    with pytest.raises(InvalidInput, match=r"strategy 'mach' needs one class number a target, got torch\.float32"):
        training.targets(torch.zeros(2, CLASSES))
    with pytest.raises(InvalidInput, match="a target is 40, but the network has 40 classes"):
        training.targets(torch.tensor([1, 40]))
