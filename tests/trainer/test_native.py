"""torch's own strategies: the weights and the bytes of ours, what torch's hooks save, and how they end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import isthmus
from cases.groups import run_group
from cases.loops import adamw, batch, in_turn, normed, processes, same, sgd, state_of
from cases.runs import trained
from cases.strategies import TORCH
from isthmus import Training
from isthmus.errors import InvalidInput, WorkerError
from isthmus.strategies import DDP, FSDP, DataParallel, LocalSGD, PostLocalSGD, Strategy
from isthmus.trainer import configure
from isthmus.trainer.plan.ahead import memory_plan
from isthmus.trainer.strategies.ddp import buckets
from isthmus.trainer.wire.native import all_gather, all_reduce

EXAMPLE = (torch.zeros(2, 6, dtype=torch.float64),)
STEPS, WORKERS = 8, 3


def wide() -> nn.Module:
    """In float64, so that rounding is far below anything else; its middle layer is gathered apart by FSDP."""
    layers = [nn.Linear(6, 200), nn.ReLU(), nn.Linear(200, 201), nn.ReLU(), nn.Linear(201, 3)]
    return nn.Sequential(*layers).double()


def steps(training: Training, numbers: range, clip: float | None = None, size: int = 2) -> None:
    for step in numbers:
        x, y = batch(training.worker, step, size=size)
        functional.cross_entropy(training.module(x.double()), y).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(training.module.parameters(), clip)
        training.optimizer.step()
        training.optimizer.zero_grad()


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest relative difference of a tensor."""
    assert one.keys() == other.keys()
    return max(float((tensor - other[name]).norm() / other[name].norm()) for name, tensor in one.items())


# ------------------------------------------------------------------- against ours, and each other

CASES: dict[str, tuple[Strategy, Any, float | None]] = {
    "ours": (DataParallel(), sgd, None),
    "ddp": (DDP(), sgd, None),
    "fsdp": (FSDP(), sgd, None),
    "ours, adamw and clip": (DataParallel(), adamw, 0.5),
    "ddp, adamw and clip": (DDP(), adamw, 0.5),
    "fsdp, adamw and clip": (FSDP(), adamw, 0.5),
    "fp16": (DDP("fp16"), sgd, None),
    "powersgd": (DDP("powersgd", 9, 2), sgd, None),  # 3 workers of 2 samples: no gradient has a rank above 6
    "powersgd of rank 1": (DDP("powersgd", 1, 2), sgd, None),
    "local": (LocalSGD(), sgd, None),
    "post-local": (PostLocalSGD(), sgd, None),
    "post-local, not yet": (PostLocalSGD(STEPS), sgd, None),
}


def all_cases() -> dict[str, Any]:
    """Every case, one after the other in the same processes."""
    found = {}
    for name, (strategy, make, clip) in CASES.items():
        training = Training(wide, EXAMPLE, make, strategy, local_steps=4)
        steps(training, range(STEPS), clip)
        with training.whole() as merged:
            assert merged is not None
            state = state_of(merged)
        part, account = training._members.part, training.account()
        module = part.module
        expected = part.step_traffic(module).times(STEPS) + part.round_traffic(module).times(STEPS / 4)
        moved = account.sent_bytes[training.worker], account.received_bytes[training.worker]
        waited = account.moving_seconds[training.worker], account.computing_seconds[training.worker]
        found[name] = (state, moved, (expected.sent, expected.received), account.memory_bytes, waited)
        training.close()
    return found


@pytest.fixture(scope="module")
def compared() -> list[dict[str, Any]]:
    return processes(all_cases, WORKERS)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("one", "other", "most"),
    [
        ("ddp", "ours", 1e-12),
        ("fsdp", "ddp", 1e-12),
        ("ddp, adamw and clip", "ours, adamw and clip", 1e-9),
        ("fsdp, adamw and clip", "ddp, adamw and clip", 1e-9),
        ("fp16", "ddp", 1e-2),
        ("powersgd", "ddp", 1e-9),
        ("post-local", "local", 1e-12),
        ("post-local, not yet", "ddp", 0.0),
    ],
)
def test_the_same_weights_to_rounding(compared: list[dict[str, Any]], one: str, other: str, most: float) -> None:
    assert distance(compared[0][one][0], compared[0][other][0]) <= most
    assert distance(compared[0]["powersgd of rank 1"][0], compared[0]["ddp"][0]) > 1e-3  # so large is a real difference


@pytest.mark.processes
@pytest.mark.parametrize("name", CASES)
def test_all_workers_have_the_same_network_and_bytes_are_as_said(compared: list[dict[str, Any]], name: str) -> None:
    """What torch hides is read at its sockets; the arithmetic of a step knows it to 2 %, where all steps are alike."""
    for worker in compared:
        assert same(worker[name][0], compared[0][name][0])
        if not name.startswith(("powersgd", "local", "post-local,")):
            for moved, expected in zip(worker[name][1], worker[name][2], strict=True):
                assert moved == pytest.approx(expected, rel=0.02)
        assert all(seconds > 0 for seconds in worker[name][4])


@pytest.mark.processes
def test_bytes_of_ddp_are_ours_and_hooks_save_what_they_should(compared: list[dict[str, Any]]) -> None:
    sent = {name: found[1][0] for name, found in compared[0].items()}
    assert sent["ddp"] == pytest.approx(sent["ours"], rel=0.02)
    assert sent["fp16"] == pytest.approx(sent["ours"] / 4, rel=0.02)  # of float64
    assert sent["fsdp"] == pytest.approx(2 * sent["ours"], rel=0.05)  # gathers once or twice, and no real scatter
    assert sent["post-local"] == pytest.approx(sent["local"], rel=0.02)
    assert sent["post-local, not yet"] == pytest.approx(sent["ddp"], rel=0.02)
    thin = compared[0]["powersgd of rank 1"]
    assert thin[1][0] == pytest.approx(sent["ddp"] / 4 + 3 / 4 * thin[2][0], rel=0.02)  # 2 steps of 8 are not shortened


@pytest.mark.processes
def test_fsdp_holds_its_share_and_ddp_all(compared: list[dict[str, Any]]) -> None:
    held = {name: found[3] for name, found in compared[0].items()}
    numbers = sum(parameter.numel() for parameter in wide().parameters())  # in one bucket
    room = 3 * (WORKERS - 1) * 8 * -(-numbers // WORKERS)  # for the others' gradients of its own share, three at a time
    assert held["ours"] == tuple(each + room for each in held["ddp"])
    assert all(each == pytest.approx(held["ddp"][0] / WORKERS, rel=0.02) for each in held["fsdp"])
    for name in ("ddp", "fsdp", "post-local", "powersgd"):
        plans = memory_plan(wide, EXAMPLE, sgd, CASES[name][0], workers=WORKERS)
        assert [each.held for each in plans] == list(held[name]), name


# ------------------------------------------------------------------- looking, saving, accumulating


def looked(strategy: str, path: Path) -> bool:
    training = Training(normed, (torch.zeros(2, 1, 4, 4),), sgd, strategy=strategy, local_steps=2)
    for step in range(3):
        x, y = batch(training.worker, step, (1, 4, 4))
        functional.cross_entropy(training.module(x), y).backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    with training.whole() as merged:
        assert merged is not None
        seen = state_of(merged)
        assert seen["1.running_var"].ne(1).all()
    with training.whole(on="root") as root:
        assert (root is None) == (training.worker != 0)
    training.export(path)
    training.close()
    assert list(seen) == list(normed().state_dict())  # under the network's own names
    return same(load_file(path), seen)


@pytest.mark.processes
@pytest.mark.parametrize("strategy", TORCH)
def test_all_workers_see_what_worker_0_saves(strategy: str, tmp_path: Path) -> None:
    assert all(processes(looked, 2, strategy, tmp_path / "model.safetensors"))


def resumed(folder: Path) -> list[bool]:
    """Two workers: the sum of two numbers is the same in any order, whatever buckets torch makes."""
    found = []
    for strategy in (DDP(), FSDP(), PostLocalSGD(6)):
        states = []
        for again in (False, True):
            training = Training(wide, EXAMPLE, adamw, strategy, local_steps=4)
            place = folder / strategy.name
            if again:
                training.resume(place)
            else:
                steps(training, range(4))
                training.save(place)
            kept = training.state_dict()
            assert training.steps == 4
            steps(training, range(4, 10))
            with training.whole() as merged:
                assert merged is not None
                states.append(state_of(merged))
            training.close()
        assert not any(type(leaf).__name__ == "DTensor" for leaf in torch.utils._pytree.tree_leaves(kept))
        found.append(same(*states))
    return found


@pytest.mark.processes
def test_going_on_from_a_checkpoint_gives_the_same_bits(tmp_path: Path) -> None:
    assert all(all(found) for found in processes(resumed, 2, tmp_path))


def accumulated() -> list[tuple[dict[str, Tensor], int]]:
    found = []
    for strategy in (DataParallel(), DDP(), FSDP()):
        training = Training(wide, EXAMPLE, sgd, strategy, local_steps=2)
        for step in range(2):
            for part in range(2):
                x, y = batch(training.worker, 2 * step + part)
                with contextlib.nullcontext() if part else training.no_sync():
                    functional.cross_entropy(training.module(x.double()), y).backward()
            training.optimizer.step()
            training.optimizer.zero_grad()
        sent = training.account().sent_bytes[training.worker]
        with training.whole() as merged:
            assert merged is not None
            found.append((state_of(merged), sent))
        training.close()
    return found


@pytest.mark.processes
def test_accumulated_gradients_are_averaged_once() -> None:
    (ours, bytes_ours), (ddp, bytes_ddp), (fsdp, _) = processes(accumulated, 2)[0]
    assert max(distance(ddp, ours), distance(fsdp, ours)) <= 1e-12
    assert bytes_ddp == pytest.approx(bytes_ours, rel=0.02)


class Left(nn.Module):
    """One layer is used by its weight alone, one not at all, and two share theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.used, self.idle = nn.Linear(6, 300), nn.Linear(300, 300), nn.Linear(300, 300)
        self.one, self.other, self.last = nn.Linear(300, 300), nn.Linear(300, 300), nn.Linear(300, 3)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = functional.linear(self.first(x), self.used.weight).relu()
        found: Tensor = self.last(self.other(self.one(x).relu()).relu())
        return found


def odd() -> list[dict[str, Tensor]]:
    found = []
    for strategy in (DataParallel(), DDP(), FSDP()):
        torch.manual_seed(torch.distributed.get_rank())  # every worker has made another network: worker 0's counts
        training = Training(Left().double(), EXAMPLE, sgd, strategy, local_steps=2)
        steps(training, range(2))
        with training.whole() as merged:
            assert merged is not None
            found.append(state_of(merged))
        training.close()
    return found


@pytest.mark.processes
def test_networks_that_torch_must_be_told_of() -> None:
    workers = processes(odd, 2)
    for found in workers:
        assert distance(found[1], workers[0][0]) <= 1e-12
        assert distance(found[2], workers[0][0]) <= 1e-12


# ------------------------------------------------------------------- ends


def uneven(strategy: str) -> str:
    training = Training(wide, EXAMPLE, sgd, strategy, local_steps=8)
    try:
        with training:
            steps(training, range(4 if training.worker == 0 else 3))
    except WorkerError as error:
        return f"{type(error).__name__}: {error}"
    return "ended"


@pytest.mark.processes
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_shorter_loop_is_one_line_and_no_hang(strategy: str) -> None:
    begun = time.monotonic()
    found = _broken(uneven, 2, strategy)
    assert found[1] == (
        "WorkerError: worker 0 makes another step while worker 1 has ended its loop: with torch's own strategies all "
        "workers must make the same number of steps"
    )
    assert found[0].startswith("LostPeer: worker 0 lost the connection to another worker in a step: ")
    assert time.monotonic() - begun < 30


def _broken(function: Callable[..., Any], workers: int, *arguments: Any) -> list[Any]:
    return run_group(function, workers, *arguments)


class Killed(nn.Linear):
    """Worker 1's process is killed in its third step."""

    def forward(self, x: Tensor) -> Tensor:
        self.calls = getattr(self, "calls", 0) + self.training
        if self.calls == 3 and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


def killed() -> nn.Module:
    return nn.Sequential(nn.Flatten(), Killed(64, 10))


@pytest.mark.processes
@pytest.mark.parametrize("strategy", TORCH)
def test_a_killed_worker_ends_the_others_in_one_line(strategy: str, tmp_path: Path) -> None:
    flags = {"data": "digits", "model": killed, "example": (torch.zeros(2, 64),), "workers": 3, "rounds": 9}
    start = {"start": 99} if strategy == "post-local-sgd" else {}
    begun = time.monotonic()
    with pytest.raises(WorkerError, match=r"^worker 1 was killed \(signal 9\) "):
        isthmus.train(**flags, strategy=strategy, **start, local_steps=5, out=tmp_path / "run")
    assert time.monotonic() - begun < 60


# ------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"strategy": "ddp", "executor": "serial"}, "`executor` must be processes with strategy 'ddp', got 'serial'"),
        (
            {"strategy": "ddp", "wire": "fp16"},
            "`wire` has no effect with strategy 'ddp', where torch does the sending: `hook` fp16 halves its bytes",
        ),
        (
            {"strategy": "fsdp", "wire": "bf16"},
            "`wire` has no effect with strategy 'fsdp', where torch does the sending",
        ),
        ({"strategy": "fsdp", "hook": "fp16"}, "`hook` has no effect with strategy 'fsdp'"),
        ({"strategy": "ddp", "start": 3}, "`start` has no effect with strategy 'ddp'"),
        ({"strategy": "ddp", "powersgd_rank": 3}, "`powersgd_rank` has no effect with hook 'none'"),
        ({"strategy": "ddp", "hook": "powersgd", "powersgd_start": 1}, "`powersgd_start` must be at least 2, got 1"),
        ({"strategy": "ddp", "hook": "powersgd", "powersgd_rank": 0}, "`powersgd_rank` must be at least 1, got 0"),
        ({"strategy": "ddp", "keep_state": True}, "`keep_state` has no effect with strategy 'ddp', which always "),
        ({"strategy": "post-local-sgd", "start": -1}, "`start` must be at least 0, got -1"),
        ({"strategy": "ddp", "law": "fixed"}, "`law` has no effect with strategy 'ddp'"),
        ({"strategy": DDP(), "hook": "fp16"}, "`hook` has no effect beside a strategy object"),
    ],
)
def test_what_has_no_effect_is_refused(flags: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidInput) as error:
        configure(**flags)
    assert str(error.value).startswith(line)


def test_flags_reach_the_strategy() -> None:
    assert configure(strategy="ddp", hook="powersgd", powersgd_rank=2).strategy == DDP("powersgd", 2, 10)
    assert configure(strategy="post-local-sgd", start=7).strategy == PostLocalSGD(7)
    assert DDP("powersgd").slug == "ddp-powersgd4"


def test_workers_of_one_process_are_refused() -> None:
    def job() -> None:
        Training(wide, EXAMPLE, sgd, "fsdp")

    with pytest.raises(InvalidInput, match="strategy 'fsdp' needs every worker in a process of its own"):
        in_turn(job, 2)


def test_a_ring_moves_every_byte_but_ones_own_part() -> None:
    assert all_reduce(1000, 1).sent == all_gather(1000, 1).sent == 0
    for workers in (2, 3, 8):
        assert all_reduce(1000, workers, headers=False).sent == pytest.approx(2000 * (workers - 1) / workers)
        assert all_gather(1000, workers, headers=False).received == pytest.approx(1000 * (workers - 1) / workers)
        assert all_reduce(10, workers).hops == 2 * all_gather(10, workers).hops == 2 * (workers - 1)


def test_buckets_are_those_that_torch_makes() -> None:
    """The last gradients first; a bucket is closed when it is full: 1 MiB the first time, 25 MiB after."""
    sizes = [1, 7 << 20, 1 << 18, 1, (1 << 18) - 1]
    parameters = [torch.empty(size, device="meta") for size in sizes]
    assert [[each.numel() for each in bucket] for bucket in buckets(parameters)] == [
        [(1 << 18) - 1, 1],
        [1 << 18, 7 << 20],
        [1],
    ]


@pytest.mark.processes
def test_powersgd_of_several_buckets_keeps_its_messages_apart(tmp_path: Path) -> None:
    """Each bucket has two all-reduces in a row; workers that began them in different orders mixed them up."""
    flags: dict[str, Any] = {"widths": (700, 700), "workers": 4, "local_steps": 15, "rounds": 2, "eval_every": 100}
    run = trained(tmp_path / "run", **flags, strategy="ddp", hook="powersgd", powersgd_start=2, executor="processes")
    assert run.status == "finished"
    assert run.rows[-1]["train_loss"] < run.rows[1]["train_loss"]


def beside_a_late_one() -> float:
    def network() -> nn.Module:
        return nn.Sequential(nn.Linear(784, 700), nn.ReLU(), nn.Linear(700, 700), nn.ReLU(), nn.Linear(700, 3))

    training = Training(network, (torch.zeros(2, 784),), sgd, DDP("powersgd", 4, 2), local_steps=8)
    for step in range(8):
        x, y = batch(training.worker, step, (784,))
        loss = functional.cross_entropy(training.module(x.float()), y)
        if training.worker == 1:
            time.sleep(LATE)
        loss.backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
    training.close()
    return float(training.account().computing_seconds[0])


LATE = 0.5  # seconds, in each of 8 steps, of which 6 have several all-reduces in a row


@pytest.mark.processes
def test_waiting_for_a_late_worker_between_buckets_is_no_computing() -> None:
    assert processes(beside_a_late_one, 2)[0] < 4 * LATE  # all 6 would be computing; a busy machine is slow
