"""Several workers around a loop of their own: rounds, loops of unequal length, looking, saving, going on."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, load_model
from torch import Tensor, nn
from torch.nn import functional

from cases.laws import LAW_CASES
from cases.loops import WAYS, adamw, batch, in_turn, normed, perceptron, same, sgd, state_of, take_step
from cases.strategies import ON_ANY
from cases.trainable import Deep
from isthmus import Training, nets
from isthmus.errors import InvalidInput, WorkerError
from isthmus.nets.pieces.ownership import mean_of
from isthmus.partitions import Block, Core, Fixed, Law, Overlapping, Rotated, Uniform
from isthmus.strategies import IST, DataParallel, LocalSGD, Narrow, Strategy
from isthmus.trainer.config import Faults
from isthmus.trainer.membership.link import join

EVERY = [IST(Fixed()), IST(Core(Block(), 0.25)), LocalSGD(), Narrow(), DataParallel()]
EXAMPLE = (torch.zeros(2, 6),)


def name_of(value: Any) -> str:
    """Without the addresses that functions have in their texts."""
    return re.sub(" at 0x[0-9a-f]+", "", str(value))


def make(**changes: Any) -> Training:
    """Every worker has made the same network."""
    torch.manual_seed(3)
    return Training(perceptron(), **{"example": EXAMPLE, "optimizer": sgd, "local_steps": 4, **changes})


# ------------------------------------------------------------------- a run, whatever joins the workers


def whole_run(changes: dict[str, Any], steps: int) -> tuple[dict[str, Tensor], tuple[Any, ...]]:
    torch.manual_seed(0)
    training = make(**changes, faults=Faults(copies=False))  # which only workers that can be lost hold
    with training:
        for step in range(steps):
            take_step(training, step)
    with training.whole() as merged:
        assert merged is not None
        state = state_of(merged)
    account = training.account()
    return state, (account.sent_bytes, account.received_bytes, account.parameters, account.memory_bytes, account.steps)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("changes", "workers"),
    [
        *(({"strategy": name}, workers) for name in ON_ANY for workers in (2, 4)),
        ({"optimizer": adamw}, 1),
        *(({"law": law(4)}, 4) for name, law in LAW_CASES.items() if name != "block"),
        ({"law": Core(Uniform(), 0.25), "optimizer": adamw}, 2),
        ({"strategy": IST(Core(Block(), 0.3), scale="none"), "keep_state": False}, 2),
        ({"strategy": "narrow", "law": "uniform", "core": 0.25}, 2),
    ],
    ids=name_of,
)
def test_threads_and_processes_give_the_same_bits(changes: dict[str, Any], workers: int) -> None:
    found = [run(whole_run, workers, changes, 10) for run in WAYS.values()]
    states, costs = ([pair[side] for results in found for pair in results] for side in (0, 1))
    assert all(same(state, states[0]) for state in states)  # every worker sees the same network, too
    assert all(cost == costs[0] for cost in costs)
    assert not same(states[0], in_turn(whole_run, workers, changes, 0)[0][0])


# ------------------------------------------------------------------- rounds


def test_steps_are_counted_and_merged() -> None:
    def job() -> None:
        training = make()
        seen = []
        for step in range(9):
            take_step(training, step)
            seen.append((training.round, training.steps, training.merged))
        assert seen[2:5] == [(0, 3, False), (1, 4, True), (1, 5, False)]
        assert seen[8] == (2, 9, False)
        training.close()
        assert (training.round, training.steps, training.merged) == (3, 9, True)

    in_turn(job, 3)


def test_the_module_the_optimizer_and_the_parameters_stay_the_same_objects() -> None:
    """Also of residual blocks that a worker lacks in some rounds; options of a group stay with it."""

    def job() -> set[int]:
        torch.manual_seed(0)
        example, axes = (torch.zeros(2, 64),), ["block", "ffn"]
        training = Training(Deep(), example, adamw, law=Overlapping(1), cut=axes, local_steps=2)
        module, optimizer = training.module, training.optimizer
        everyone = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert len(everyone) == len(list(Deep().parameters()))
        held = set()
        for step in range(8):
            optimizer.param_groups[1]["lr"] = 0.001 * step
            x, _ = batch(training.worker, step, (64,))
            functional.cross_entropy(module(x), torch.zeros(8, dtype=torch.int64)).backward()
            assert {id(p) for p in module.parameters()} <= everyone
            held.add(sum(p.numel() for p in module.parameters()))
            optimizer.step()
            optimizer.zero_grad()
            assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.01]
            assert optimizer.param_groups[1]["lr"] == 0.001 * step
        assert (training.module, training.optimizer) == (module, optimizer)
        training.close()
        return held

    assert len(set.union(*in_turn(job, 3))) > 1  # pieces of several sizes


@pytest.mark.parametrize(("law", "kept"), [(Fixed(), True), (Uniform(), False)])
def test_momentum_stays_with_the_entries(law: Law, kept: bool) -> None:
    def job() -> None:
        training = make(law=law, optimizer=adamw)
        for step in range(4):
            take_step(training, step)
        training.open()
        state = training.optimizer.state
        steps = {name: state[p]["step"].item() if p in state else 0 for name, p in training.module.named_parameters()}
        assert steps["4.bias"] == 4  # all workers hold it, always
        assert steps["2.weight"] == (4 if kept else 0)
        training.close()

    in_turn(job, 2)


def test_without_keeping_state_every_round_starts_at_zero() -> None:
    def job() -> None:
        training = make(strategy="local-sgd", keep_state=False)
        for step in range(4):
            take_step(training, step)
        assert training.optimizer.state
        training.open()
        assert not training.optimizer.state
        training.close()

    in_turn(job, 2)


# ------------------------------------------------------------------- loops of unequal length


@pytest.mark.parametrize("strategy", EVERY, ids=str)
@pytest.mark.parametrize(
    ("way", "steps"),
    [*(("in turn", steps) for steps in [(9, 3, 0), (0, 5, 5), (4, 8, 12)]), *((way, (1, 1, 13)) for way in WAYS)],
    ids=str,
)
def test_loops_of_unequal_length_end_together(strategy: Strategy, steps: tuple[int, ...], way: str) -> None:
    results = WAYS[way](unequal, 3, strategy, steps)
    states, made, rounds = zip(*results, strict=True)
    assert made == steps
    assert all(same(state, states[0]) for state in states)
    assert len(set(rounds)) == 1
    assert rounds[0] >= -(-max(steps) // 4)


def unequal(strategy: Strategy, steps: tuple[int, ...]) -> tuple[dict[str, Tensor], int, int]:
    training = make(strategy=strategy)
    with training:
        for step in range(steps[training.worker]):
            take_step(training, step)
    with training.whole() as merged:
        assert merged is not None
        return state_of(merged), training.steps, training.round


def test_no_step_is_lost() -> None:
    """Under fixed pieces the merged network holds the very weights a worker had after its last, partial round."""

    def job() -> tuple[dict[str, Tensor], nets.Subnetwork]:
        training = make(strategy=IST(Fixed(), scale="none"))
        with training:
            for step in range((6, 11, 1)[training.worker]):
                take_step(training, step)
            piece = training._members.part._piece
            own = {name: tensor.clone() for name, tensor in piece.state().items()}
        with training.whole() as merged:
            assert merged is not None
            for name in ("0.weight", "0.bias", "2.bias"):
                assert torch.equal(piece.slice(name, dict(merged.named_parameters())[name]), own[name])
        return own, piece

    in_turn(job, 3)


@pytest.mark.parametrize("local_steps", [2, 4])
def test_data_parallel_replicas_never_differ(local_steps: int) -> None:
    """A worker that has ended, between rounds or in one, is sent the weights of the others; a mean of gradients is over
    those that step."""

    def job() -> list[dict[str, Tensor]]:
        training = make(strategy="data-parallel", local_steps=local_steps)
        seen = []
        for step in range((2, 6)[training.worker]):
            take_step(training, step)
            seen.append(state_of(training.module))
        training.close()
        return [*seen, state_of(training.module)]

    short, long = in_turn(job, 2)
    assert all(same(one, other) for one, other in zip(short[:2], long[:2], strict=True))
    assert same(short[-1], long[-1])
    alone = nn_after(long[1], range(2, 6))
    assert same(long[-1], alone)


def nn_after(state: dict[str, Tensor], steps: range) -> dict[str, Tensor]:
    """Worker 1 goes on alone, its momentum from two steps together with worker 0."""
    torch.manual_seed(3)
    network = perceptron()
    optimizer = sgd(network)
    for step in range(6):
        losses = [functional.cross_entropy(network(x), y) for x, y in (batch(w, step) for w in (0, 1) if w or step < 2)]
        grads = [torch.autograd.grad(loss, list(network.parameters()), retain_graph=True) for loss in losses]
        for parameter, *each in zip(network.parameters(), *grads, strict=True):
            parameter.grad = mean_of(each)
        optimizer.step()
        if step == 1:
            assert same(state_of(network), state)
    return state_of(network)


def test_a_step_that_a_gradient_scaler_skips_on_one_worker() -> None:
    def job() -> int:
        training = make(strategy="local-sgd")
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        for step in range(10):
            x, y = batch(training.worker, step)
            if training.worker == 1 and step in (2, 3):
                x = x * float("inf")
            scaler.scale(functional.cross_entropy(training.module(x), y)).backward()
            scaler.step(training.optimizer)
            scaler.update()
            training.optimizer.zero_grad()
        training.close()
        return training.steps

    assert in_turn(job, 2) == [10, 8]


def test_accumulated_gradients_are_averaged_once() -> None:
    """Inside no_sync nothing moves; the result is the mean of the sums."""

    def job(quiet: bool) -> tuple[dict[str, Tensor], int]:
        training = make(strategy="data-parallel")
        x, y = batch(training.worker, 0)
        if quiet:
            with training.no_sync():
                functional.cross_entropy(training.module(x), y).backward()
            assert training.account().sent_bytes == (0, 0)
        else:
            functional.cross_entropy(training.module(x), y).backward()
        x, y = batch(training.worker, 1)
        functional.cross_entropy(training.module(x), y).backward()
        grads = {name: p.grad.clone() for name, p in training.module.named_parameters()}
        training.optimizer.step()
        sent = training.account().sent_bytes[0]
        training.close()
        return grads, sent

    once, twice = in_turn(job, 2, True), in_turn(job, 2, False)
    for name, grad in once[0][0].items():
        assert torch.equal(grad, once[1][0][name])
        torch.testing.assert_close(grad, twice[0][0][name])
    assert twice[0][1] == 2 * once[0][1]


# ------------------------------------------------------------------- looking


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("strategy", ON_ANY)
def test_all_workers_see_what_worker_0_saves(way: str, strategy: str, tmp_path: Path) -> None:
    results = WAYS[way](look, 2, strategy, tmp_path / "model.safetensors")
    assert all(found for found in results)


def look(strategy: str, path: Path) -> bool:
    torch.manual_seed(1)
    training = Training(normed(), (torch.zeros(2, 1, 4, 4),), sgd, strategy=strategy, local_steps=2)
    for step in range(3):
        x, y = batch(training.worker, step, (1, 4, 4))
        functional.cross_entropy(training.module(x), y).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    before = state_of(training.module)
    with training.whole() as merged:
        assert merged is not None
        assert not merged.training
        seen = state_of(merged)
    with training.whole(on="root") as root:
        assert (root is None) == (training.worker != 0)
    after = state_of(training.module)
    training.export(path)
    training.close()
    saved = load_file(path)
    assert same({name: seen[name] for name in saved}, saved)
    if strategy != "narrow":
        load_model(normed(), path)  # the user's own class
    return strategy != "data-parallel" or same(before, after)  # the others have merged the last step


def test_looking_changes_nothing_that_is_trained() -> None:
    def job(look: bool) -> dict[str, Tensor]:
        training = make(law="uniform", core=0.25)
        for step in range(8):
            take_step(training, step)
            if look and training.merged:
                with training.whole(factor=2.0):
                    pass
                training.account()
                training.gather(1.0)
        training.close()
        with training.whole() as merged:
            assert merged is not None
            return state_of(merged)

    assert same(in_turn(job, 2, True)[0], in_turn(job, 2, False)[0])


def test_looking_inside_a_round_merges_it() -> None:
    def job() -> None:
        training = make()
        for step in range(2):
            take_step(training, step)
        assert training.gather(training.worker) == [[0.0], [1.0]]
        assert not training.merged
        with training.whole():
            pass
        assert (training.round, training.merged) == (1, True)
        training.close()

    in_turn(job, 2)


def test_scales_are_those_of_the_partition() -> None:
    def job() -> None:
        states = []
        for scale in ("none", "expected"):
            training = make(strategy=IST(Uniform(), scale=scale), local_steps=1)
            take_step(training, 0)
            with training.whole() as merged:
                assert merged is not None
                states.append(state_of(merged))
            assert training.scale == pytest.approx(1.0 if scale == "none" else 0.5)
            training.close()
        plain, used = states
        assert torch.equal(used["2.weight"], plain["2.weight"] * 0.5)
        assert torch.equal(used["0.weight"], plain["0.weight"])

    in_turn(job, 2)


@pytest.mark.parametrize("strategy", ["ist", "local-sgd"])
@pytest.mark.parametrize("given", [True, False])
def test_norm_statistics_are_measured_anew(given: bool, strategy: str) -> None:
    """On the batches that each worker has trained on last, or on those it is given: the mean over all of them."""

    def job() -> None:
        torch.manual_seed(1)
        training = Training(normed(), (torch.zeros(2, 1, 4, 4),), sgd, strategy=strategy, local_steps=2)
        batches = [batch(training.worker, step, (1, 4, 4)) for step in range(4)]
        for x, y in batches:
            functional.cross_entropy(training.module(x), y).backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        others = [batch(7 + training.worker, step, (1, 4, 4)) for step in range(3 - training.worker)]
        if given:
            training.recalibrate(others)
        with training.whole() as merged:
            assert merged is not None
            mine = [merged[0](x).mean((0, 2, 3)) for x, _ in (others if given else batches)]
            measured = merged[1].running_mean.clone()
        found = training.collect(*mine)
        assert len(found) == (2 if training.worker == 0 else 0)
        if found:
            torch.testing.assert_close(measured, torch.stack([*found[0], *found[1]]).mean(0))
        seen = training.collect(measured)
        assert not seen or torch.equal(seen[0][0], seen[1][0])
        training.close()

    in_turn(job, 2)


def test_a_batch_that_was_overwritten_is_not_measured_on() -> None:
    torch.manual_seed(1)
    training = Training(normed(), (torch.zeros(2, 1, 4, 4),), sgd, strategy="local-sgd", local_steps=2)
    buffer = torch.zeros(8, 1, 4, 4)
    for step in range(3):
        x, y = batch(0, step, (1, 4, 4))
        buffer.copy_(x)
        functional.cross_entropy(training.module(buffer), y).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    assert training._view.recent is not None
    assert len(training._view.recent.calls()) == 1
    with pytest.raises(InvalidInput, match="at least one batch"):
        training.recalibrate([])


def test_verify_compares_the_merged_network() -> None:
    def job() -> str | None:
        training = make()
        for step in range(5):
            take_step(training, step)
        verdict = training.verify()
        training.close()
        return None if verdict is None else verdict.summary()

    first, second = in_turn(job, 2)
    assert second is None
    assert "comparisons agree" in str(first)


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_cannot_be_written_is_said_on_every_worker(way: str, tmp_path: Path) -> None:
    assert WAYS[way](export_to, 2, tmp_path / "nowhere" / "model.safetensors") == [True, True]


def export_to(path: Path) -> bool:
    training = make()
    with pytest.raises((InvalidInput, WorkerError), match=r"folder that exists|worker 0 could not write"):
        training.export(path)
    with pytest.raises(InvalidInput, match=r"must end in \.safetensors"):
        training.export(path.with_suffix(".pt"))
    training.close()
    return not path.exists()


def test_workers_at_their_end_take_part_in_looking_and_counting(tmp_path: Path) -> None:
    def job() -> Any:
        training = make()
        take_step(training, 0)
        if training.worker == 1:
            training.close()
            return None
        account = training.account()
        with training.whole() as merged:
            assert merged is not None
        training.export(tmp_path / "model.safetensors")
        told = training.gather(5.0)
        training.close()
        return account.steps, told

    assert in_turn(job, 2)[0] == ((1, 1), [[5.0], []])


def test_the_account_is_that_of_the_tensors() -> None:
    """6-12-8-3 over two workers: pieces of 6-6-4-3, all float32, SGD with momentum; nothing else travels."""
    piece = 6 * 6 + 6 + 6 * 4 + 4 + 4 * 3 + 3
    shards = (6 * 6 + 6 + 12 * 4 + 4 + 8 * 2 + 2, 6 * 6 + 6 + 12 * 4 + 4 + 8 * 1 + 1)

    def job() -> Any:
        training = make(local_steps=2)
        for step in range(4):
            take_step(training, step)
        account = training.account()
        training.close()
        return account

    account = in_turn(job, 2)[0]
    assert account.sent_bytes == account.received_bytes == (2 * 4 * piece, 2 * 4 * piece)
    assert account.parameters == (piece, piece)
    assert account.memory_bytes == tuple(3 * 4 * piece + 4 * shard for shard in shards)
    assert account.steps == (4, 4)
    assert all(seconds > 0 for seconds in (*account.computing_seconds, *account.moving_seconds))


def test_a_loop_may_hold_its_last_loss_while_pieces_change_their_size() -> None:
    def job(hold: bool) -> dict[str, Tensor]:
        training = make(law=Core(Rotated(), 0.25), local_steps=2)  # pieces of 7 and of 8 units
        loss = None
        for step in range(8):
            if not hold:
                loss = None
            x, y = batch(training.worker, step)
            loss = functional.cross_entropy(training.module(x), y)
            loss.backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        with training.whole() as merged:
            assert merged is not None
            return state_of(merged)

    assert same(in_turn(job, 2, True)[0], in_turn(job, 2, False)[0])


# ------------------------------------------------------------------- going on


@pytest.mark.parametrize("strategy", [IST(Uniform()), *EVERY[1:]], ids=str)
@pytest.mark.parametrize("stop", [4, 6], ids=["between rounds", "inside a round"])
def test_a_training_goes_on_to_the_same_bits(strategy: Strategy, stop: int) -> None:
    def job() -> dict[str, Tensor]:
        training = make(strategy=strategy, optimizer=adamw)
        file = io.BytesIO()
        for step in range(10):
            if step == stop:
                torch.save(training.state_dict(), file)
            take_step(training, step)
        with training.whole() as merged:
            assert merged is not None
            expected = state_of(merged)
        torch.manual_seed(99)  # another network: everything comes from the file
        again = Training(perceptron(), EXAMPLE, adamw, strategy, local_steps=4)
        file.seek(0)
        again.load_state_dict(torch.load(file, weights_only=True))
        assert (again.steps, again.round) == (stop, stop // 4)
        for step in range(stop, 10):
            take_step(again, step)
        with again.whole() as merged:
            assert merged is not None
            assert same(state_of(merged), expected)
        with pytest.raises(InvalidInput, match="was saved with seed 0, this training has 1"):
            make(strategy=strategy, seed=1).load_state_dict(again.state_dict())
        return expected

    in_turn(job, 2)


# ------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": None}, "`optimizer` must be a function of the module"),
        ({"optimizer": lambda module: 3}, "`optimizer` must return a torch optimizer, got int"),
        ({"example": None}, "`example` must be a call of the network"),
        ({"strategy": "isst"}, "did you mean 'ist'"),
        ({"law": "blok"}, "did you mean 'block'"),
        ({"strategy": "local-sgd", "law": "block"}, "`law` has no effect with strategy 'local-sgd'"),
        ({"strategy": LocalSGD(), "core": 0.5}, "`core` has no effect beside a strategy object"),
        ({"strategy": "data-parallel", "cut": ["hidden"]}, "`cut` has no effect with strategy 'data-parallel'"),
        ({"local_steps": 0}, "`local_steps` must be at least 1"),
        ({"seed": -1}, "`seed` must be at least 0"),
        ({"device": "cpu"}, "`device` has no effect on a module"),
    ],
    ids=name_of,
)
def test_bad_input_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        make(**changes)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"local_steps": 5}, {"law": "uniform"}, {"strategy": "narrow"}], ids=str
)
@pytest.mark.parametrize("way", WAYS)
def test_workers_that_disagree_are_refused_on_every_one(way: str, changes: dict[str, Any]) -> None:
    name, value = next(iter(changes.items()))
    for message in WAYS[way](disagree, 2, changes):
        assert message.startswith(f"`{name}` must be the same on all workers: worker 1 has {value!r}, worker 0 has ")


def disagree(changes: dict[str, Any]) -> str:
    first = join().index == 0
    try:
        make(**({} if first else changes))
    except InvalidInput as error:
        return str(error)
    return "accepted"


def test_workers_that_do_different_things_are_told() -> None:
    def job() -> None:
        training = make()
        if training.worker == 0:
            training.export("model.safetensors")
        else:
            with training.whole():
                pass

    with pytest.raises(WorkerError, match=r"worker 1 has called whole\(\) while worker 0 has called export\(\)"):
        in_turn(job, 2)


def test_a_worker_that_leaves_is_missed() -> None:
    def job() -> None:
        training = make()
        take_step(training, 0)
        if training.worker == 0:
            training.close()

    with pytest.raises(WorkerError, match=r"worker 1 ended while worker 0 waits for it: .* training.close\(\)"):
        in_turn(job, 2)


def test_training_after_the_end_is_refused() -> None:
    training = make()
    training.close()
    with torch.no_grad():
        training.module(EXAMPLE[0])
    with pytest.raises(InvalidInput, match="training is closed"):
        training.module(EXAMPLE[0])


# ------------------------------------------------------------------- what may be passed


class Encoder(nn.Module):
    """Takes a dictionary with a mask and, or not, labels; returns its own loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner, self.outer = nn.Embedding(20, 8), nn.Linear(8, 16), nn.Linear(16, 3)

    def forward(self, tokens: Tensor, mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        mean = (self.embed(tokens) * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        logits = self.outer(functional.relu(self.inner(mean)))
        loss = {} if labels is None else {"loss": functional.cross_entropy(logits, labels)}
        return {**loss, "logits": logits}


def words(size: int, length: int) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(size)
    tokens = torch.randint(0, 20, (size, length), generator=random)
    return {"tokens": tokens, "mask": (tokens > 2).float(), "labels": tokens[:, 0] % 3}


@pytest.mark.parametrize("factory", [True, False])
def test_dictionaries_masks_labels_and_a_loss_of_its_own(factory: bool) -> None:
    def job() -> None:
        network: Callable[[], nn.Module] | nn.Module = Encoder if factory else Encoder()
        training = Training(network, words(2, 5), sgd, local_steps=2)
        for size in (4, 3, 5, 2):  # other batches and lengths than the example's
            training.module(**words(size, 4 + size))["loss"].backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        with training.whole() as merged:
            assert isinstance(merged, Encoder)
            assert merged(**words(4, 6))["loss"].isfinite()
        training.close()

    in_turn(job, 2)


def test_a_function_is_called_for_real_once_by_every_worker() -> None:
    made: list[tuple[int, str]] = []

    class Noted(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3))
            made.append((join().index, self[0].weight.device.type))

    def job() -> None:
        training = Training(Noted, EXAMPLE, sgd, local_steps=2)
        for step in range(2):
            take_step(training, step)
        training.close()

    in_turn(job, 3)
    assert [worker for worker, device in made if device == "cpu"] == [0, 1, 2]
    assert {worker for worker, device in made if device == "meta"} == {0, 1, 2}


def test_a_function_gives_the_same_weights_for_every_number_of_workers() -> None:
    def job() -> dict[str, Tensor]:
        training = Training(perceptron, EXAMPLE, sgd, strategy="local-sgd", seed=7)
        with training.whole() as merged:
            assert merged is not None
            return state_of(merged)

    found = [*in_turn(job, 1), *in_turn(job, 3)]
    assert all(same(state, found[0]) for state in found)


def test_networks_that_start_apart_start_from_worker_0() -> None:
    def job(strategy: str) -> dict[str, Tensor]:
        torch.manual_seed(torch.initial_seed() % 1000 + join().index)
        training = Training(perceptron(), EXAMPLE, sgd, strategy=strategy)
        return state_of(training.module)

    first, second = in_turn(job, 2, "local-sgd")
    assert same(first, second)


class Tied(nn.Module):
    """Tied weights, a buffer that is not saved, and a tensor that is no buffer at all."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner = nn.Embedding(20, 8), nn.Linear(8, 12)
        self.back, self.head = nn.Linear(12, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("places", torch.arange(8.0), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.back(functional.relu(self.inner(self.embed(tokens).mean(1) + self.places))))


class Plain(Tied):
    def __init__(self) -> None:
        super().__init__()
        self.factor = torch.tensor(0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) * self.factor


@pytest.mark.parametrize("network", [Tied, Plain])
@pytest.mark.parametrize("strategy", ["ist", "local-sgd"])
def test_every_worker_sees_tied_weights_and_constants(network: type[nn.Module], strategy: str) -> None:
    """Where a function makes the network, the others fill a shell; it computes what worker 0's computes."""

    def job() -> Tensor:
        tokens = torch.arange(12).reshape(3, 4)
        training = Training(network, (tokens,), sgd, strategy=strategy, local_steps=1)
        training.module(tokens).sum().backward()
        training.optimizer.step()
        with training.whole() as merged:
            assert isinstance(merged, Tied)
            assert merged.head.weight is merged.embed.weight
            result = merged(tokens).detach().clone()
        training.close()
        return result

    first, second = in_turn(job, 2)
    assert torch.equal(first, second)


def test_shares_are_disjoint_and_even() -> None:
    def job() -> list[int]:
        training = make()
        share = training.share(list(range(20)))
        training.close()
        return list(share)

    shares = in_turn(job, 3)
    assert sorted(x for share in shares for x in share) == list(range(20))
    assert sorted(map(len, shares)) == [6, 7, 7]
