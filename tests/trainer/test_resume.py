"""Saving and going on: the same bits as the training that was not disturbed."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from cases.laws import LAW_CASES, OWN_CASES
from cases.loops import WAYS, adamw, batch, in_turn, normed, perceptron, same, sgd, state_of
from cases.records import without_end
from cases.runs import trained, without_times
from isthmus import Training
from isthmus.cli import main
from isthmus.errors import DataError, InvalidInput, WorkerError
from isthmus.partitions import Core, Fixed, Rotated
from isthmus.records import Run, read_run
from isthmus.strategies import IST, DataParallel, DiLoCo, LocalSGD, Narrow, Strategy
from isthmus.trainer.membership.link import join

EXAMPLE = (torch.zeros(2, 6),)
IMAGES = (torch.zeros(2, 1, 4, 4),)
WORKERS = 2
STRATEGIES = {
    **{f"ist-{name}": IST(law(WORKERS)) for name, law in {**LAW_CASES, **OWN_CASES}.items()},
    "ist-core": IST(Core(Rotated(), 0.25)),
    "local-sgd": LocalSGD(),
    "narrow": Narrow(),
    "data-parallel": DataParallel(),
    "diloco": DiLoCo(),
    "diloco-streaming": DiLoCo(fragments=3),
}


def make(strategy: Strategy, optimizer: Any = sgd, images: bool = False, **changes: Any) -> Training:
    network, example = (normed, IMAGES) if images else (perceptron, EXAMPLE)
    return Training(network, example, optimizer, strategy, **{"local_steps": 3, **changes})


def steps(training: Training, numbers: range, images: bool = False) -> list[float]:
    """Make some steps, with dropout where the network has it; return the losses."""
    losses = []
    for step in numbers:
        x, y = batch(training.worker, step, (1, 4, 4) if images else (6,))
        loss = functional.cross_entropy(training.module(x), y)
        loss.backward()
        training.optimizer.step()
        training.optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def standing(training: Training) -> dict[str, Any]:
    """All that a worker has at the end: weights, moments, options, what it sent, its next random number."""
    moments = training.optimizer.state_dict()
    sent = training.account().sent_bytes
    with training.whole() as merged:
        assert merged is not None
        weights = state_of(merged)
    return {"weights": weights, "moments": moments, "sent": sent, "steps": training.steps, "next": torch.rand(2)}


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def goes_on(folder: Path, strategy: Strategy, optimizer: Any, images: bool = False, wire: str | None = None) -> None:
    """Save after two rounds, go on for two; then do so again from the checkpoint, with another network to begin."""
    torch.manual_seed(5 + join().index)
    calls = [batch(9, number, (1, 4, 4))[0] for number in range(2)] if images else None
    training = make(strategy, optimizer, images, wire=wire)
    training.recalibrate(calls)
    before = steps(training, range(6), images)
    training.save(folder, extra={"losses": before})
    losses = steps(training, range(6, 12), images)
    expected = standing(training)
    torch.manual_seed(77)
    again = make(strategy, optimizer, images, wire=wire)
    again.recalibrate(calls)
    steps(again, range(2), images)
    assert again.resume(folder) == {"losses": before}
    assert (again.round, again.steps) == (2, 6)
    assert steps(again, range(6, 12), images) == losses
    assert_equal(standing(again), expected)


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_going_on_gives_the_same_bits(tmp_path: Path, strategy: Strategy) -> None:
    in_turn(goes_on, WORKERS, tmp_path, strategy, adamw)


@pytest.mark.parametrize("strategy", [IST(Fixed()), IST(Rotated()), LocalSGD(), DataParallel()], ids=str)
def test_so_it_does_with_dropout_and_statistics_of_norms(tmp_path: Path, strategy: Strategy) -> None:
    in_turn(goes_on, WORKERS, tmp_path, strategy, adamw, True)


@pytest.mark.parametrize("wire", [None, "bf16"])
@pytest.mark.parametrize("strategy", [IST(Fixed()), IST(Rotated()), LocalSGD(), DataParallel()], ids=str)
def test_so_it_does_with_sgd_and_where_numbers_travel_short(tmp_path: Path, strategy: Strategy, wire: str) -> None:
    in_turn(goes_on, WORKERS, tmp_path, strategy, sgd, False, wire)


@pytest.mark.processes
def test_processes_save_the_same_files_and_go_on(tmp_path: Path) -> None:
    for name, way in WAYS.items():
        way(goes_on, WORKERS, tmp_path / name, IST(Fixed()), adamw)
    one, other = (sorted((tmp_path / name / "checkpoint-000002").iterdir()) for name in WAYS)
    for mine, theirs in zip(one[1:], other[1:], strict=True):  # in the manifest are seconds
        assert mine.read_bytes() == theirs.read_bytes()


# ------------------------------------------------------------------- a loop of one's own


def test_a_user_saves_what_is_theirs(tmp_path: Path) -> None:
    def job() -> None:
        training = make(IST())
        schedule = torch.optim.lr_scheduler.StepLR(training.optimizer, 1, 0.5)
        scaler = torch.amp.GradScaler("cpu")
        steps(training, range(3))
        schedule.step()
        extra = {"schedule": schedule, "scaler": scaler, "order": torch.arange(3) + training.worker, "epoch": 1}
        training.save(tmp_path, extra)
        again = make(IST())
        found = again.resume(tmp_path)
        other = torch.optim.lr_scheduler.StepLR(again.optimizer, 1, 0.5)
        other.load_state_dict(found["schedule"])
        assert other.state_dict() == schedule.state_dict()
        assert found["scaler"] == scaler.state_dict()
        assert torch.equal(found["order"], torch.arange(3) + training.worker)
        assert found["epoch"] == 1
        assert again.optimizer.param_groups[0]["lr"] == 0.05

    in_turn(job, 2)


def test_saving_inside_a_round_merges_it_and_before_the_first_step_is_fine(tmp_path: Path) -> None:
    def job() -> None:
        training = make(IST(Fixed()))
        training.save(tmp_path / "first")
        steps(training, range(4))
        assert not training.merged
        training.save(tmp_path / "inside")
        assert training.merged
        rest = steps(training, range(4, 8))
        again = make(IST(Fixed()))
        again.resume(tmp_path / "inside")
        assert (again.round, again.steps) == (2, 4)
        assert steps(again, range(4, 8)) == rest
        start = make(IST(Fixed()), seed=0)
        start.resume(tmp_path / "first")
        assert (start.round, start.steps) == (0, 0)

    in_turn(job, 2)


def test_a_worker_at_its_end_saves_its_share_too(tmp_path: Path) -> None:
    def job() -> None:
        training = make(IST(Fixed()))
        steps(training, range(3 if join().index else 6))
        if join().index == 0:
            training.save(tmp_path, keep=3)
        training.close()

    in_turn(job, 3)
    names = sorted(path.name for path in (tmp_path / "checkpoint-000002").iterdir())
    assert names[1:] == [f"shard-{worker:05d}-of-00003.safetensors" for worker in range(3)]


def test_what_is_damaged_is_named_and_the_one_before_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def save() -> list[float]:
        training = make(LocalSGD())
        for number in (0, 3):
            steps(training, range(number, number + 3))
            training.save(tmp_path)
        return steps(training, range(6, 7))

    def go_on() -> int:
        training = make(LocalSGD())
        training.resume(tmp_path)
        return training.round

    in_turn(save, 2)
    shard = tmp_path / "checkpoint-000002" / "shard-00001-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-3])
    with caplog.at_level(logging.WARNING, "isthmus"):
        assert in_turn(go_on, 2) == [1, 1]
    lines = [record.getMessage() for record in caplog.records if record.name == "isthmus"]
    assert len(lines) == 1
    assert lines[0].startswith(f"isthmus: {shard} is torn: it has ")
    assert lines[0].endswith("; going on from checkpoint-000001")
    (tmp_path / "checkpoint-000001" / "checkpoint.json").unlink()
    with pytest.raises(DataError, match=r"is torn: .*; .*checkpoint\.json cannot be read"):
        in_turn(go_on, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "the checkpoint was saved with seed 0, this training has 1"),
        ({"local_steps": 4}, "the checkpoint was saved with local_steps 3, this training has 4"),
        ({"strategy": IST(Rotated())}, "the checkpoint was saved with strategy "),
        ({"images": True}, "the checkpoint was saved of another network: names or shapes of its tensors differ"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    def save() -> None:
        make(IST(Fixed())).save(tmp_path)

    def go_on() -> None:
        make(**{"strategy": IST(Fixed()), **changes}).resume(tmp_path)

    in_turn(save, 2)
    with pytest.raises(InvalidInput, match=message):
        in_turn(go_on, 2)


def test_misuse_is_refused(tmp_path: Path) -> None:
    def save(folder: str, keep: int = 2, close: bool = False) -> None:
        training = make(IST())
        if close and training.worker:
            training.close()
        training.save(tmp_path / (folder if training.worker else "one"), keep=keep)

    with pytest.raises(InvalidInput, match="`keep` must be at least 1, got 0"):
        in_turn(save, 2, "one", 0)
    with pytest.raises(InvalidInput, match="`folder`, `keep` and `parents` must be the same on all workers"):
        in_turn(save, 2, "two")

    def resume() -> None:
        training = make(IST())
        training.close() if training.worker else training.resume(tmp_path)

    with pytest.raises(InvalidInput, match="training is closed"):
        in_turn(resume, 2)
    (tmp_path / "file").write_text("")

    def write() -> None:
        make(IST()).save(tmp_path / "file" / "below")

    with pytest.raises(WorkerError, match=r"worker 0 could not save: .*Not a directory"):
        in_turn(write, 2)


@pytest.mark.parametrize("workers", [1, 3, 6])
@pytest.mark.parametrize("strategy", [IST(Fixed(), scale="none"), LocalSGD(), Narrow(), DataParallel()], ids=str)
def test_another_number_of_workers_goes_on_from_the_same_weights(
    tmp_path: Path, strategy: Strategy, workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    def weights(training: Training) -> dict[str, Tensor]:
        with training.whole() as merged:
            assert merged is not None
            return state_of(merged)

    def save() -> dict[str, Tensor]:
        training = make(strategy, adamw)
        steps(training, range(6))
        training.save(tmp_path)
        return weights(training)

    def go_on() -> tuple[dict[str, Tensor], int, list[float]]:
        training = make(strategy, adamw, seed=0)
        training.resume(tmp_path)
        assert training.optimizer.param_groups[1]["lr"] == 0.003
        return weights(training), training.round, steps(training, range(6, 12))

    if isinstance(strategy, Narrow):  # as wide as one piece: another network with another number of workers
        in_turn(save, 4)
        with pytest.raises(InvalidInput, match=f"`workers` must be 4, as many as wrote the checkpoint.*got {workers}"):
            in_turn(go_on, workers)
        return
    expected = in_turn(save, 4)[0]
    with caplog.at_level(logging.WARNING, "isthmus"):
        results = in_turn(go_on, workers)
    assert all(same(found, expected) and round == 2 for found, round, _ in results)
    assert all(loss < 3 for *_, losses in results for loss in losses)
    said = [record.getMessage() for record in caplog.records if record.name == "isthmus"]
    assert len(said) == 1
    assert f"was written by 4 workers, now there are {workers}: units, shares of the data" in said[0]
    assert ("moments start at zero" in said[0]) == isinstance(strategy, IST)


# ------------------------------------------------------------------- isthmus train --resume, isthmus export

RUN: dict[str, Any] = {
    "widths": (33, 18), "rounds": 6, "local_steps": 3, "batch_size": 16, "seed": 3, "lr": 0.1, "eval_every": 2,
    "workers": 4, "checkpoint_every": 2,
}  # fmt: skip
RUNS = [
    {},
    {"law": "fixed", "optimizer": "adamw", "scale": "readout", "wire": "bf16"},
    {"law": "cases.laws:Window", "core": 0.25, "keep_state": True},
    {"strategy": "data-parallel", "samples": 4 * 16 * 17, "rounds": None},
    {"model": "cases.trainable:digits", "widths": None, "workers": 2},
]


def cut_short(run: Run, folder: Path, last: int) -> Path:
    """The folder of a run as a kill would have left it: no summary, checkpoints to one, a torn row."""
    shutil.copytree(run.path, folder)
    without_end(folder)
    for path in (folder / "checkpoints").iterdir():
        if int(path.name[-6:]) > last:
            shutil.rmtree(path)
    with (folder / "rows.jsonl").open("a") as rows:
        rows.write('{"round": 7, "sam')
    return folder


@pytest.mark.parametrize("flags", RUNS, ids=str)
def test_a_run_goes_on_to_the_same_bits_and_its_checkpoints_are_exported(tmp_path: Path, flags: dict[str, Any]) -> None:
    run = trained(tmp_path / "run", **{**RUN, **flags})
    folder = cut_short(run, tmp_path / "cut", 4)
    again = trained_again(folder)
    assert without_times(again) == without_times(run)
    assert [row["seconds"] for row in again.rows] == sorted(row["seconds"] for row in again.rows)
    assert (folder / "model.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()
    times = ("seconds", "compute_seconds", "communicate_seconds", "wait_seconds", "hops", "planned")
    assert {**again.summary, **dict.fromkeys(times)} == {**run.summary, **dict.fromkeys(times)}
    main(["export", str(folder), str(tmp_path / "out.safetensors")])
    assert (tmp_path / "out.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()
    main(["export", str(folder), str(tmp_path / "out.safetensors"), "--checkpoint", "4"])
    assert (tmp_path / "out.safetensors").read_bytes() != (run.path / "model.safetensors").read_bytes()


def trained_again(folder: Path, *flags: str) -> Run:
    main(["train", "--resume", str(folder), *flags])
    return read_run(folder)


@pytest.mark.processes
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    """All its processes are killed at once, wherever they are; to the bits of a run that is never saved."""
    flags = {**RUN, "workers": 2, "law": "fixed", "rounds": 30, "eval_every": 10, "checkpoint_every": 1}
    words = [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", *listed(value))]
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "isthmus", "train", *words, "--out", str(folder)]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoints/checkpoint-00000[3-9]")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert read_run(folder).status == "unfinished"
    again = trained_again(folder, "--executor", "serial", "--checkpoint-every", "7")
    run = trained(tmp_path / "undisturbed", **{**flags, "checkpoint_every": 0})
    assert not (run.path / "checkpoints").exists()
    assert without_times(again) == without_times(run)
    assert (folder / "model.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()


def listed(value: Any) -> list[str]:
    return [str(each) for each in (value if isinstance(value, tuple) else (value,))]


@pytest.mark.parametrize("workers", ["3", "6"])
def test_a_run_goes_on_with_other_workers(tmp_path: Path, workers: str) -> None:
    run = trained(tmp_path / "run", **{**RUN, "eval_every": 1, "local_steps": 10})
    again = trained_again(cut_short(run, tmp_path / "cut", 4), "--workers", workers)
    assert again.status == "finished"
    assert [row["round"] for row in again.rows] == list(range(7))
    assert without_times(again)[:5] == without_times(run)[:5]
    assert [len(row["sent_bytes"]) for row in again.rows] == [4] * 5 + [int(workers)] * 2
    assert again.config["workers"] == int(workers)
    losses = [row["train_loss"] for row in again.rows[1:]]
    assert max(losses[4:]) < losses[0]  # it does not begin anew
    assert again.rows[5]["test_accuracy"] > again.rows[1]["test_accuracy"]


def test_what_contradicts_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "run", **RUN)
    cut = cut_short(run, tmp_path / "cut", 4)
    shutil.copytree(cut, tmp_path / "none")
    shutil.rmtree(tmp_path / "none" / "checkpoints")
    capsys.readouterr()  # the plan of the run above
    for words, line in [
        (["train", "--resume", str(run.path)], f"{run.path} is finished: there is nothing to go on with"),
        (["train", "--resume", str(tmp_path / "none")], f"{tmp_path / 'none'} has no checkpoint (see --checkpoint-ev"),
        (["train", "--resume", str(tmp_path)], f"{tmp_path} is not a run of isthmus: cannot read config.json"),
        (["train", "--resume", str(cut), "--lr", "0.2"], "`lr` must be that of the run, 0.1, got 0.2"),
        (["train", "--resume", str(cut), "--rounds", "7"], "`rounds` must be that of the run, 6, got 7"),
        (["train", "--resume", str(cut), "--out", "x"], "`out` has no effect beside `resume`"),
        (["train", "--resume", str(cut), "--law", "fixed"], "`law` must be that of the run, 'block', got 'fixed'"),
        (["train", "--checkpoint-every", "-1"], "`checkpoint_every` must be at least 0, got -1"),
        (["export", str(run.path), "model.bin"], "`path` must end in .safetensors, got 'model.bin'"),
        (["export", str(run.path), "m.safetensors", "--checkpoint", "3"], "`checkpoint` must be one of 4, 6, got 3"),
        (["export"], "`run` must be given"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 1
        assert said[0].startswith(f"isthmus: {line}")
    assert read_run(cut).status == "unfinished"
