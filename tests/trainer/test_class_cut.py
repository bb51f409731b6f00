"""The cut of the classes: the very bits of small networks trained by hand, and scores that are log P(v | x)."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cases.loops import WAYS, in_turn, sgd
from cases.runs import trained
from isthmus import Training, launch
from isthmus.data import load
from isthmus.errors import InvalidInput, WorkerError
from isthmus.nets import trace
from isthmus.nets.models.block_softmax import BlockSoftmax, ClassPiece, best_temperature, load_block_softmax
from isthmus.partitions.classes import Other
from isthmus.randomness import generator
from isthmus.strategies import ClassCut
from isthmus.trainer import configure, memory_plan
from isthmus.trainer.config import Faults
from isthmus.trainer.task.routed import Routed, routed, routed_feed
from isthmus.trainer.task.setup import set_up

WORKERS, CLASSES, BATCH, STEPS = 3, 10, 8, 12
EXAMPLE = (torch.zeros(2, 6),)
CPU = torch.device("cpu")


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def data(samples: int = 300) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 6, generator=random)
    return x, (x @ torch.randn(6, CLASSES, generator=random)).argmax(1)


def train(training: Training, steps: int = STEPS, own_share: float | None = None) -> None:
    x, y = data()
    batches = training.batches(y, BATCH, own_share)
    for _, batch in zip(range(steps), batches, strict=False):
        functional.cross_entropy(training.module(x[batch]), training.targets(y[batch])).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()


def job(strategy: ClassCut, folder: str | None = None) -> dict[str, Any]:
    training = Training(network(), EXAMPLE, sgd, strategy, local_steps=5)
    train(training)
    x, _ = data()
    with training.whole() as merged, torch.no_grad():
        assert merged is not None
        found: dict[str, Any] = {"weights": {name: p.detach().clone() for name, p in merged.named_parameters()}}
        found |= {"shares": {n: b.clone() for n, b in merged.named_buffers() if n.endswith(("prior", "drawn"))}}
        found["scores"] = merged(x)
    if folder is not None:
        training.export(f"{folder}/model.safetensors")
    account = training.account()
    training.close()
    return found | {"sent": torch.tensor(account.sent_bytes), "most": torch.tensor(account.memory_bytes)}


# ------------------------------------------------------------------- the naive twin


def small(whole: nn.Module, units: Any, deal: Any, worker: int) -> nn.Module:
    """One piece by hand: rows of the hidden layer, columns of the last one, rows of the own classes, zeros below."""
    own, others = deal.owned(worker), deal.units(worker)
    first, last = whole[0], whole[2]  # type: ignore[index]
    piece = nn.Sequential(nn.Linear(6, len(units)), nn.ReLU(), nn.Linear(len(units), len(own) + others))
    larger = torch.tensor(len(units) / first.out_features, dtype=torch.float64).rsqrt().float()
    with torch.no_grad():
        piece[0].weight.copy_(first.weight[units])
        piece[0].bias.copy_(first.bias[units])
        piece[2].weight.zero_()
        piece[2].bias.zero_()
        piece[2].weight[: len(own)] = last.weight[own][:, units] * larger
        piece[2].bias[: len(own)] = last.bias[own]
    return piece


def by_hand(strategy: ClassCut, batches: Callable[[int, int], tuple[Tensor, Tensor]], steps: int) -> list[nn.Module]:
    """All pieces, each trained in a loop of its own."""
    whole, deal = network(), strategy.deal(CLASSES, WORKERS, 0)
    partition = trace(whole, EXAMPLE).partition(WORKERS, 0, 0, "block")
    pieces = []
    for worker in range(WORKERS):
        piece = small(whole, partition.of(worker)["0"], deal, worker)
        optimizer, right = sgd(piece), torch.from_numpy(deal.targets(worker))
        for step in range(steps):
            x, y = batches(worker, step)
            functional.cross_entropy(piece(x), right[y]).backward()
            optimizer.step()
            optimizer.zero_grad()
        pieces.append(piece)
    return pieces


def routed_for(strategy: ClassCut, worker: int) -> Routed:
    _, y = data()
    order = generator(0, "data/share").permutation(len(y))
    rest = np.sort(order[worker::WORKERS])
    return routed(strategy.deal(CLASSES, WORKERS, 0), worker, y.numpy(), rest, BATCH, strategy.share, 0)


GATES = [ClassCut(), ClassCut(own_share=0.5, owners=2), ClassCut(foreign_buckets=3), ClassCut(gate="worker")]


@pytest.mark.parametrize("strategy", GATES, ids=lambda each: each.slug)
def test_pieces_are_those_of_loops_by_hand_to_the_bit_and_the_merged_network_says_what_they_say(
    strategy: ClassCut, tmp_path: Path
) -> None:
    x, y = data()
    found = in_turn(job, WORKERS, strategy, str(tmp_path))

    def batches(worker: int, step: int) -> tuple[Tensor, Tensor]:
        chosen = routed_for(strategy, worker).at(step)
        return x[chosen], y[chosen]

    pieces = by_hand(strategy, batches, STEPS)
    for worker, piece in enumerate(pieces):
        for name, parameter in piece.named_parameters():
            assert torch.equal(found[0]["weights"][f"pieces.{worker}.body.{name}"], parameter.detach())
    assert all(torch.equal(each["scores"], found[0]["scores"]) for each in found)
    assert all(int(each["sent"].sum()) == 0 for each in found)

    expected = scores_by_hand(strategy, pieces, x)
    assert (found[0]["scores"] - expected).abs().max() < 1e-6
    again = load_block_softmax(tmp_path / "model.safetensors", network(), EXAMPLE)
    with torch.no_grad():
        assert torch.equal(again(x), found[0]["scores"])


def scores_by_hand(strategy: ClassCut, pieces: list[nn.Module], x: Tensor) -> Tensor:
    """log p_owner(v | x), other classes raised, in double precision; normalised over all classes."""
    deal = strategy.deal(CLASSES, WORKERS, 0)
    total, count = torch.zeros(len(x), CLASSES, dtype=torch.float64), torch.zeros(CLASSES)
    gate = None
    for worker, piece in enumerate(pieces):
        own, chosen = deal.owned(worker), routed_for(strategy, worker)
        with torch.no_grad():
            z = piece(x).double()
        if not len(own):
            gate = z.log_softmax(1)[:, deal.group]
            continue
        if deal.units(worker):
            share = chosen.own_count / BATCH
            prior = float(np.isin(data()[1].numpy(), own).mean())
            drawn = share + (1 - share) * prior
            assert (chosen.prior, chosen.drawn) == (prior, drawn)
            z[:, len(own) :] += math.log(drawn / (1 - drawn)) - math.log(prior / (1 - prior))
        total[:, own] += z.log_softmax(1)[:, : len(own)]
        count[own] += 1
    scores = total / count
    return (scores if gate is None else scores + gate).log_softmax(1)


def test_processes_give_the_same_bits() -> None:
    one, other = (way(job, WORKERS, ClassCut()) for way in WAYS.values())
    assert torch.equal(one[0]["scores"], other[1]["scores"])
    assert one[0]["weights"].keys() == other[2]["weights"].keys()
    assert all(torch.equal(tensor, other[2]["weights"][name]) for name, tensor in one[0]["weights"].items())


def test_the_command_trains_the_same_pieces(tmp_path: Path) -> None:
    """``isthmus train``: its data, its loop, its schedule."""
    flags: dict[str, Any] = {
        "strategy": "class-cut", "workers": 2, "own_share": 0.5, "widths": (8,), "norm": "none", "rounds": 3,
        "local_steps": 4, "batch_size": 16, "schedule": "constant", "warmup": 0.0, "eval_every": 3,
    }  # fmt: skip
    run = trained(tmp_path / "run", **flags)
    setup = set_up(configure(**flags), CPU)
    whole, deal = setup.network.make(), ClassCut(own_share=0.5).deal(10, 2, 0)
    partition = setup.network.coupling.partition(2, 0, 0, "block")
    from safetensors.torch import load_file

    saved = load_file(tmp_path / "run" / "model.safetensors")
    for worker in range(2):
        units, own = partition.of(worker)["hidden.0"], deal.owned(worker)
        piece = nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, len(own) + 1))
        with torch.no_grad():
            piece[0].weight.copy_(whole.hidden[0].weight[units])
            piece[0].bias.copy_(whole.hidden[0].bias[units])
            piece[2].weight.zero_()
            piece[2].bias.zero_()
            larger = torch.tensor(0.5).double().rsqrt().float()
            piece[2].weight[: len(own)] = whole.output.weight[own][:, units] * larger
        feed, _ = routed_feed(setup.shares, deal, worker, 16, 0.5, 0, CPU)
        optimizer, right = setup.config.optimizer.make(piece), torch.from_numpy(deal.targets(worker))
        for step in range(12):
            batch = feed.examples.batch(feed.at(step))
            functional.cross_entropy(piece(whole.standardize(*batch.args)), right[batch.targets]).backward()
            for group in optimizer.param_groups:
                group["lr"] = setup.config.lr_at(step)
            optimizer.step()
            optimizer.zero_grad()
        for name, there in (("hidden.0", 0), ("output", 2)):
            assert torch.equal(saved[f"pieces.{worker}.body.{name}.weight"], piece[there].weight)
    assert run.summary["sent_bytes"] == [0, 0]
    assert all(planned["rounds"][1]["traffic"]["sent"] == 0 for planned in _loads(flags))
    assert all(0 < each < 64 * 4 * 1437 for each in run.summary["routed_bytes"])


def _loads(flags: dict[str, Any]) -> list[dict[str, Any]]:
    from isthmus.trainer.plan.intended import intended
    from isthmus.trainer.plan.load import load_of
    from isthmus.trainer.plan.steps import Speed
    from isthmus.trainer.plan.traffic import Nobody
    from isthmus.trainer.strategies import Worker
    from isthmus.trainer.task.hollow import hollow

    setup = set_up(configure(**flags), CPU)
    worker = Worker(Nobody(0, 2), setup.network, 0)
    speed = Speed(1.0, "given")
    work = intended(setup, 0, 2)
    return [load_of(setup.config.strategy, worker, hollow(setup.network), work, lambda _: speed).record()]


def test_the_plan_holds_what_the_account_counts() -> None:
    found = in_turn(job, WORKERS, ClassCut())
    plans = memory_plan(network(), (torch.zeros(BATCH, 6),), sgd, ClassCut(), workers=WORKERS)
    assert [plan.held for plan in plans] == found[0]["most"].tolist()


# ------------------------------------------------------------------- consistency, by enumeration


@pytest.mark.parametrize("owners", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_at_the_optimum_of_every_piece_the_score_is_the_logarithm_of_the_probability(owners: int, share: float) -> None:
    """Four inputs, five classes, noisy labels, classes a hundred times rarer than others: pieces that have the exact
    conditional distribution of what they are trained on give log P(v | x)."""
    random = np.random.default_rng(1)
    joint = random.dirichlet(np.ones(4))[:, None] * random.dirichlet([0.01, 0.3, 1, 3, 3], 4)
    truth = joint / joint.sum(1, keepdims=True)
    deal = ClassCut(owners=owners).deal(5, 3, 0)
    pieces = {}
    for worker in range(3):
        own, right = deal.owned(worker), deal.targets(worker)
        prior = joint[:, own].sum()
        drawn = share + (1 - share) * prior
        inside = np.zeros(5)
        inside[own] = 1 / prior
        sampled = share * joint * inside + (1 - share) * joint  # what batches are drawn from
        table = np.stack([sampled[:, right == unit].sum(1) for unit in range(len(own) + deal.units(worker))], 1)
        body = nn.Embedding.from_pretrained(torch.from_numpy(np.log(table)))
        shares = (torch.tensor(each, dtype=torch.float64) for each in (prior, drawn))
        pieces[worker] = ClassPiece(body, torch.from_numpy(own), *shares)
    merged = BlockSoftmax(pieces, 5)
    sums, count = merged._sums((torch.arange(4),), {})
    assert np.allclose((sums / count).exp().numpy(), truth, rtol=1e-12)  # before they are normalised: nothing is left
    assert np.allclose(merged(torch.arange(4)).exp().numpy(), truth, rtol=1e-12)
    lost = BlockSoftmax({0: pieces[0], 1: pieces[1]}, 5)
    scores = lost(torch.arange(4)).exp().numpy()
    here = [each for each in range(5) if each not in lost.absent]
    assert np.allclose(scores[:, here], truth[:, here], rtol=1e-6)  # of the others what is left of 1, evenly
    assert bool(lost.absent) == (owners == 1)


def test_the_best_temperature_undoes_one() -> None:
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(4000, 5, generator=random).log_softmax(1)
    targets = torch.multinomial(scores.exp(), 1, generator=random)[:, 0]
    assert best_temperature((scores * 2).log_softmax(1), targets) == pytest.approx(2.0, rel=0.2)


# ------------------------------------------------------------------- routing


def test_a_batch_holds_the_share_of_own_classes_and_what_is_sent_is_counted() -> None:
    _, y = data()
    for strategy in (ClassCut(own_share=0.75), ClassCut(own_share=0.0), ClassCut(gate="worker")):
        for worker in range(WORKERS):
            chosen, own = routed_for(strategy, worker), strategy.deal(CLASSES, WORKERS, 0).owned(worker)
            rest = set(chosen.rest.tolist())
            for step in range(40):
                batch = chosen.at(step)
                assert len(batch) == BATCH
                assert np.isin(y[batch[: chosen.own_count]], own).all()
                assert set(batch[chosen.own_count :].tolist()) <= rest
            assert chosen.sent == len(set(chosen.positions.tolist()) - set(chosen.had.tolist()))
            assert (chosen.sent == 0) == (strategy.own_share == 0.0)


def test_the_share_that_is_found_best_trains_the_same_bits_as_where_it_is_given(tmp_path: Path) -> None:
    """Nothing of the trials is left: weights, statistics, momentum and rows are those of a run without them."""
    flags: dict[str, Any] = {
        "strategy": "class-cut", "workers": 2, "widths": (8,), "rounds": 4, "local_steps": 3, "batch_size": 16,
        "eval_every": 4,
    }  # fmt: skip
    tried = trained(tmp_path / "auto", **flags)
    share = tried.summary["own_share"]
    given = trained(tmp_path / "given", **flags, own_share=share)
    assert share in (0.5, 0.75, 0.9)
    assert tried.summary["weights_sha256"] == given.summary["weights_sha256"]
    assert [row["samples"] for row in tried.rows] == [row["samples"] for row in given.rows]
    assert (tried.config["own_share"], given.config["own_share"]) == ("auto", share)


def test_of_a_pool_everything_is_taken_once_before_anything_is_taken_again() -> None:
    chosen = routed_for(ClassCut(own_share=0.75), 1)
    taken = np.concatenate([chosen.at(step)[: chosen.own_count] for step in range(200)])
    counts = np.unique(taken, return_counts=True)[1]
    assert len(counts) == len(chosen.own)
    assert counts.max() - counts.min() <= 1


# ------------------------------------------------------------------- several targets a sample


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.out = nn.Embedding(CLASSES, 4), nn.Linear(4, 12), nn.Linear(12, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.hidden(self.embed(tokens)).relu())


def test_next_tokens_at_every_position() -> None:
    tokens = torch.randint(0, CLASSES, (40, 6), generator=torch.Generator().manual_seed(0))
    after = torch.where(tokens % 2 == 0, (tokens + 1) % CLASSES, -100)  # some positions do not count

    def reads() -> tuple[Tensor, float]:
        training = Training(Reader, (tokens[:2],), sgd, "class-cut", local_steps=10)
        for batch in training.batches(after, 4):
            loss = functional.cross_entropy(
                training.module(tokens[batch]).flatten(0, 1), training.targets(after[batch]).flatten()
            )
            loss.backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        with training.whole() as merged, torch.no_grad():
            assert merged is not None
            found, drawn = merged(tokens), float(merged.pieces["0"].drawn)  # type: ignore[union-attr]
        training.close()
        return found, drawn

    found = in_turn(reads, 2)
    own = ClassCut().deal(CLASSES, 2, 0).owned(0)
    counted = after[after >= 0].numpy()
    assert found[0][0].shape == (40, 6, CLASSES)
    assert found[0][1] == np.isin(counted, own).mean()  # nothing is routed: no score is raised


def test_several_labels_are_each_by_itself() -> None:
    """Without a gate pieces are those of binary losses over their own labels; with one they are refused."""
    x, y = data()
    labels = functional.one_hot(y, CLASSES).float()

    def labelled() -> Tensor:
        training = Training(network(), EXAMPLE, sgd, ClassCut(gate="none"), local_steps=10)
        for batch in training.batches(labels, BATCH):
            wanted = training.targets(labels[batch])
            functional.binary_cross_entropy_with_logits(training.module(x[batch]), wanted).backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        with training.whole() as merged, torch.no_grad():
            assert merged is not None
            scores = merged(x)
            own = training.deal.owned(training.worker)  # type: ignore[union-attr]
            assert torch.equal(scores[:, own], training.module.eval()(x))
        with pytest.raises(InvalidInput, match="`gate` must be 'other' or 'worker' where every sample has one class"):
            training.targets(y)
        training.close()
        return scores

    assert in_turn(labelled, 2)[0].shape == (len(x), CLASSES)


# ------------------------------------------------------------------- workers that are lost


def dies(strategy: ClassCut, killed: int) -> dict[str, Any] | None:
    """Worker ``killed`` ends in the third round, and does not come back."""
    if os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
        return None
    torch.set_num_threads(1)
    training = Training(network(), EXAMPLE, sgd, strategy, local_steps=4, faults=Faults(min_workers=1))
    x, y = data()
    batches = training.batches(y, BATCH)
    for step, batch in zip(range(16), (b for _ in range(9) for b in batches), strict=False):
        if step == 10 and training.seat == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        functional.cross_entropy(training.module(x[batch]), training.targets(y[batch])).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    with training.whole() as merged, torch.no_grad():
        assert merged is not None
        scores, absent = merged(x), list(merged.absent)  # type: ignore[arg-type]
    events = [(event.what, event.seat) for event in training.events]
    training.close()
    return {"scores": scores.numpy(), "absent": absent, "events": events}


@pytest.mark.processes
@pytest.mark.parametrize("owners", [1, 2])
def test_a_lost_worker_costs_its_copies_and_no_more(owners: int) -> None:
    """What the others score of classes they own is what it is without the loss, renormalised; with one owner the
    classes that are gone are named."""
    strategy = ClassCut(owners=owners)
    found = launch(dies, strategy, 1, workers=WORKERS)
    assert found is not None
    gone = strategy.deal(CLASSES, WORKERS, 0).owned(1).tolist() if owners == 1 else []
    assert found["absent"] == gone
    assert (("absent", 1) in found["events"]) == (owners == 1)
    assert np.isfinite(found["scores"]).all()
    assert np.allclose(np.exp(found["scores"]).sum(1), 1, rtol=1e-5)


def test_a_lost_worker_costs_less_than_a_point_where_every_class_has_two_owners() -> None:
    """Digits: each of the three pieces taken away from the merged network, which two owners have been averaged in."""
    found = load("digits")
    x, y = torch.from_numpy(found.features).float(), torch.from_numpy(found.targets)
    held_out = torch.arange(len(y)) % 4 == 0

    def learns() -> nn.Module:
        torch.manual_seed(3)
        whole = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, CLASSES))
        training = Training(whole, (torch.zeros(2, 64),), sgd, ClassCut(owners=2), local_steps=100)
        batches = training.batches(y[~held_out], 16)
        for _, batch in zip(range(600), (each for _ in range(30) for each in batches), strict=False):
            loss = functional.cross_entropy(training.module(x[~held_out][batch]), training.targets(y[~held_out][batch]))
            loss.backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        with training.whole() as merged:
            kept = deepcopy(merged)
        training.close()
        assert kept is not None
        return kept

    def accuracy(network: nn.Module) -> float:
        with torch.no_grad():
            return float((network(x[held_out]).argmax(1) == y[held_out]).double().mean())

    merged = in_turn(learns, WORKERS)[0]
    whole, pieces = accuracy(merged), dict(merged.pieces.items())
    assert whole > 0.95
    costs = []
    for lost in pieces:
        left = BlockSoftmax({int(seat): piece for seat, piece in pieces.items() if seat != lost}, CLASSES)
        assert left.absent == ()
        costs.append(whole - accuracy(left))
    assert np.mean(costs) < 0.01


# ------------------------------------------------------------------- saving, refusing


def test_training_goes_on_from_a_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    def course(saved: bool) -> Tensor:
        training = Training(network(), EXAMPLE, sgd, "class-cut", local_steps=4)
        x, y = data()
        batches = training.batches(y, BATCH)
        if saved:
            batches.load_state_dict(training.resume(tmp_path / "half")["batches"])
        for number, batch in enumerate(batches):
            if number >= (4 if saved else 8):
                break
            functional.cross_entropy(training.module(x[batch]), training.targets(y[batch])).backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
            if number == 3 and not saved:
                training.save(tmp_path / "half", {"batches": batches})
        with training.whole() as merged, torch.no_grad():
            assert merged is not None
            scores = merged(x)
        training.close()
        return scores

    first = in_turn(course, WORKERS, False)
    assert torch.equal(in_turn(course, WORKERS, True)[0], first[0])
    with pytest.raises(InvalidInput, match=r"`workers` must be 3, as many as wrote the checkpoint.*got 2"):
        in_turn(course, 2, True)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(CLASSES, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embed(tokens) @ self.embed.weight.T


@pytest.mark.parametrize(
    ("make", "example", "flags", "said"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 2)), EXAMPLE, {},
         "`workers` must be at most the number of classes, 2"),
        (Tied, (torch.zeros(2, dtype=torch.int64),), {}, "last layer has a row a class: its scores are looked up by"),
        (network, EXAMPLE, {"wire": "bf16"}, "`wire` has no effect with strategy 'class-cut'"),
        (network, EXAMPLE, {"law": "fixed"}, "`law` has no effect with strategy 'class-cut'"),
    ],
)  # fmt: skip
def test_what_cannot_be_cut_is_one_line(make: Any, example: Any, flags: dict[str, Any], said: str) -> None:
    with pytest.raises((InvalidInput, WorkerError), match=said):
        in_turn(lambda: Training(make, example, sgd, "class-cut", **flags), WORKERS)


def test_targets_that_do_not_fit_are_one_line() -> None:
    training = Training(network(), EXAMPLE, sgd, "class-cut")
    with pytest.raises(InvalidInput, match="targets with several labels a sample need `gate` 'none'"):
        training.targets(torch.zeros(2, CLASSES))
    with pytest.raises(InvalidInput, match="a target is 10, but the network has 10 classes"):
        training.targets(torch.tensor([1, 10]))
    with pytest.raises(InvalidInput, match=r"batches\(\) has no effect with strategy 'ist'"):
        Training(network(), EXAMPLE, sgd).batches([0, 1], 1)
    assert Training(network(), EXAMPLE, sgd).targets(7) == 7


def test_one_worker_owns_all_and_trains_as_without_isthmus() -> None:
    x, y = data()
    training, plain = Training(network(), EXAMPLE, sgd, "class-cut"), network()
    train(training, 10)
    optimizer, chosen = sgd(plain), training.batches(y, BATCH).routed
    for step in range(10):
        batch = chosen.at(step)
        functional.cross_entropy(plain(x[batch]), y[batch]).backward()
        optimizer.step()
        optimizer.zero_grad()
    with training.whole() as merged, torch.no_grad():
        assert merged is not None
        assert torch.allclose(merged(x), plain(x).log_softmax(1), atol=1e-6)
        assert torch.equal(merged.get_parameter("pieces.0.body.2.weight"), plain[2].weight)  # type: ignore[index]
    assert Other().units(0, 0, 1) == 0
