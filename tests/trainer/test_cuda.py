"""On a GPU: the same loops give what they give on the CPU, and what torch alone gives. Skipped where there is none."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from cases.loops import WAYS, adamw, batch, in_turn, normed, perceptron, processes, same, sgd, state_of
from cases.strategies import ON_ANY
from isthmus import Training, cut, launch, merge, trace
from isthmus.nets import NetPartition
from isthmus.partitions import Core, Fixed, Rotated, Uniform
from isthmus.strategies import DDP, FSDP, IST, PostLocalSGD, Strategy
from isthmus.trainer.config import Faults
from isthmus.trainer.wire.group import worker_device

pytestmark = pytest.mark.skipif(not torch.cuda.device_count(), reason="there is no GPU")
GPU = "cuda:0"
SHAPES: dict[Callable[[], nn.Module], tuple[int, ...]] = {perceptron: (6,), normed: (1, 4, 4)}


@pytest.fixture(autouse=True)
def _exact() -> None:
    """Convolutions that give the same bits each time."""
    torch.backends.cudnn.deterministic = True


def steps(
    module: nn.Module, optimizer: torch.optim.Optimizer, numbers: range, shape: tuple[int, ...], worker: int = 0,
    half: bool = False, double: bool = False,
) -> list[float]:  # fmt: skip
    """A loop as people write it; with half precision, a scaler that skips steps too."""
    scaler, losses = torch.amp.GradScaler("cuda", init_scale=2.0**40, enabled=half), []
    device = next(module.parameters()).device
    for step in numbers:
        x, y = (leaf.to(device) for leaf in batch(worker, step, shape))
        with torch.autocast("cuda", dtype=torch.float16, enabled=half):
            loss = functional.cross_entropy(module(x.double() if double else x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("build", SHAPES)
@pytest.mark.parametrize("make", [sgd, adamw])
@pytest.mark.parametrize("half", [False, True], ids=["float32", "float16 and a scaler"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_one_worker_gives_the_bits_of_the_loop_alone(
    build: Callable[[], nn.Module], make: Callable[..., Any], half: bool, compiled: bool
) -> None:
    shape, network = SHAPES[build], build().to(GPU)
    if compiled and build is normed:
        pytest.skip("a compiled dropout draws other numbers after a change of the module's parameters")
    plain = copy.deepcopy(network)
    run: Any = (lambda module: torch.compile(module, backend="aot_eager")) if compiled else lambda module: module
    torch.manual_seed(0)
    expected = steps(run(plain), make(plain), range(20), shape, half=half)
    torch.manual_seed(0)
    training = Training(network, (torch.zeros(2, *shape, device=GPU),), make, local_steps=7)
    assert steps(run(training.module), training.optimizer, range(20), shape, half=half) == expected
    assert same(dict(training.module.named_parameters()), dict(plain.named_parameters()))
    with training.whole() as merged:
        assert merged is not None
        assert {p.device for p in merged.parameters()} == {torch.device(GPU)}
        assert same(dict(merged.named_parameters()), dict(plain.named_parameters()))


def few_rounds(device: str, build: Callable[[], nn.Module], changes: dict[str, Any], double: bool) -> dict[str, Tensor]:
    shape = SHAPES[build]
    torch.manual_seed(0)
    kind = torch.float64 if double else torch.float32
    network = build().to(device, kind)
    training = Training(
        network, (torch.zeros(2, *shape, dtype=kind, device=device),),
        **{"optimizer": sgd, "local_steps": 3, "faults": Faults(copies=False), **changes},
    )  # fmt: skip
    with training:
        steps(training.module, training.optimizer, range(12), shape, training.worker, double=double)
    with training.whole() as merged:
        assert merged is not None
        return {name: tensor.cpu() for name, tensor in state_of(merged).items()}


CHANGES: list[dict[str, Any]] = [
    *({"strategy": name} for name in ON_ANY),
    *({"strategy": IST(law)} for law in (Uniform(), Fixed(), Rotated(), Core(Uniform(), 0.25))),
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_gpu_gives_what_the_cpu_gives(changes: dict[str, Any]) -> None:
    """In double precision, to its rounding: sums are taken in another order."""
    there, here = (in_turn(few_rounds, 4, device, perceptron, changes, True)[0] for device in (GPU, "cpu"))
    for name, tensor in here.items():
        torch.testing.assert_close(there[name], tensor, rtol=1e-9, atol=1e-11)


@pytest.mark.processes
@pytest.mark.parametrize("changes", [*CHANGES, {"wire": "bf16"}], ids=str)
def test_threads_and_processes_give_the_same_bits(changes: dict[str, Any]) -> None:
    """Processes that share one GPU, joined by a group of our own."""
    assert worker_device().type == "cuda"
    states = [state for way in WAYS.values() for state in way(few_rounds, 3, GPU, perceptron, changes, False)]
    assert all(same(state, states[0]) for state in states)


@pytest.mark.processes
def test_what_is_sent_ahead_changes_no_bit() -> None:
    found = [processes(few_rounds, 3, GPU, perceptron, {"law": "uniform", "overlap": ahead}, False) for ahead in (0, 1)]
    assert same(found[0][0], found[1][0])


@pytest.mark.processes
@pytest.mark.parametrize("strategy", [DDP(), DDP(hook="fp16"), FSDP(), PostLocalSGD(start=3)], ids=str)
def test_torchs_own_strategies(strategy: Strategy) -> None:
    """Over gloo, which moves a GPU's tensors through the host."""
    found = processes(few_rounds, 2, GPU, perceptron, {"strategy": strategy}, False)
    assert same(found[0], found[1])
    if strategy in (DDP(), FSDP()):
        alike = in_turn(few_rounds, 2, GPU, perceptron, {"strategy": "data-parallel"}, False)[0]
        for name, tensor in alike.items():
            torch.testing.assert_close(found[0][name], tensor, rtol=1e-4, atol=1e-6)


def goes_on(folder: Path, strategy: Strategy | str) -> None:
    """With dropout, whose numbers the GPU draws."""
    shape = SHAPES[normed]

    def make() -> Training:
        training = Training(normed, (torch.zeros(2, *shape),), adamw, strategy, local_steps=3, device=GPU)
        training.recalibrate([batch(9, 0, shape)[0].to(GPU)])
        return training

    training = make()
    steps(training.module, training.optimizer, range(6), shape, training.worker)
    training.save(folder)
    expected = steps(training.module, training.optimizer, range(6, 12), shape, training.worker)
    again = make()
    again.resume(folder)
    assert steps(again.module, again.optimizer, range(6, 12), shape, again.worker) == expected
    with training.whole() as one, again.whole() as other:
        assert one is not None
        assert other is not None
        assert same(state_of(one), state_of(other))


@pytest.mark.parametrize("strategy", ["ist", "local-sgd", IST(Rotated())], ids=str)
def test_going_on_gives_the_same_bits(tmp_path: Path, strategy: Strategy | str) -> None:
    in_turn(goes_on, 1, tmp_path / "alone", strategy)
    if strategy == "ist":
        processes(goes_on, 2, tmp_path / "two", strategy)


def exports(path: Path) -> None:
    training = Training(perceptron, (torch.zeros(2, 6),), sgd, local_steps=3)
    assert training.device == torch.device(GPU)  # by itself, as there is one for every worker
    steps(training.module, training.optimizer, range(6), (6,), training.worker)
    training.export(path)
    with training.whole() as merged:
        assert merged is not None
        assert same(load_file(path), {name: tensor.cpu() for name, tensor in state_of(merged).items()})


def test_an_export_is_on_the_cpu(tmp_path: Path) -> None:
    in_turn(exports, 2, tmp_path / "model.safetensors")


def test_cut_and_merge_stay_there() -> None:
    network = normed().to(GPU).eval()
    coupling = trace(network, (torch.zeros(2, 1, 4, 4, device=GPU),), verify=True)
    partition: NetPartition = coupling.partition(3, seed=0, round=0)
    pieces = [cut(network, coupling, partition, worker) for worker in range(3)]
    assert all(tensor.device == torch.device(GPU) for piece in pieces for tensor in piece.module.parameters())
    before = state_of(network)
    merge(network, pieces)
    assert same(state_of(network), before)


def lives_on() -> int:
    """Be one of three, of which one is killed in the second round."""
    training = Training(perceptron, (torch.zeros(2, 6),), sgd, local_steps=3, device=GPU, faults=Faults(min_workers=2))
    if os.environ["TORCHELASTIC_RESTART_COUNT"] != "0":
        os._exit(1)
    for step in range(12):
        if training.seat == 1 and step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        steps(training.module, training.optimizer, range(step, step + 1), (6,), training.seat)
    left = training.workers
    training.close()
    return left


@pytest.mark.processes
def test_the_others_go_on_when_one_is_killed() -> None:
    assert launch(lives_on, workers=3) == 2


def with_nccl() -> None:
    dist.init_process_group("nccl", init_method="tcp://127.0.0.1:29641", rank=0, world_size=1)
    training = Training(perceptron, (torch.zeros(2, 6),), sgd, local_steps=3)
    steps(training.module, training.optimizer, range(6), (6,))
    with training.whole() as merged:
        assert merged is not None
    training.close()
    dist.destroy_process_group()


@pytest.mark.processes
def test_a_group_with_nccl_of_ones_own() -> None:
    """Of one: two of its workers cannot share a GPU."""
    code = "from trainer.test_cuda import with_nccl; with_nccl()"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert found.returncode == 0, found.stderr


def test_the_command_trains_there(tmp_path: Path) -> None:
    def isthmus(*arguments: str) -> None:
        found = subprocess.run(
            [sys.executable, "-m", "isthmus", *arguments], capture_output=True, text=True, cwd=tmp_path
        )
        assert found.returncode == 0, found.stderr

    few = ("--workers", "3", "--rounds", "3", "--local-steps", "5", "--device", "cuda", "--checkpoint-every", "2")
    for executor in ("serial", "processes"):
        isthmus("train", "--data", "digits", *few, "--executor", executor, "--out", executor)
        isthmus("check", executor)
        isthmus("export", executor, f"{executor}.safetensors")
    assert same(load_file(tmp_path / "serial.safetensors"), load_file(tmp_path / "processes.safetensors"))
