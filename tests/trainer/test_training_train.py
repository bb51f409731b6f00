"""A loop by hand under Training gives the very bits of ``isthmus train``; a law of a test's own runs everywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from cases.laws import LAW_CASES, Window
from cases.loops import WAYS, in_turn, perceptron, same, sgd, take_step
from cases.strategies import ON_ANY
from isthmus import Training, lab, nets, train
from isthmus.partitions import Axis, Core
from isthmus.randomness import derived_seed, generator
from isthmus.strategies import IST
from isthmus.trainer import configure
from isthmus.trainer.task.setup import set_up

SETTING: dict[str, Any] = {
    "widths": (33, 18), "samples": 4 * 16 * 13, "local_steps": 5, "batch_size": 16, "seed": 3, "lr": 0.1,
    "clip": 1.0, "norm": "none",
}  # fmt: skip


def by_hand(flags: dict[str, Any], path: Path) -> None:
    """What `isthmus train` does, written as a script: its data, its order, its rates."""
    config = configure(**flags)
    setup = set_up(config, torch.device("cpu"))
    training = Training(
        setup.network.make, (torch.zeros(2, 64),), config.optimizer.make, config.strategy,
        local_steps=5, seed=3, keep_state=config.keeps_state,
    )  # fmt: skip
    share = setup.shares.of(training.worker, torch.device("cpu"))
    with training:
        for step in range(config.steps):
            torch.manual_seed(derived_seed(3, "train/noise", step // 5, training.worker))
            epoch, place = divmod(step, share.count // 16)
            order = generator(3, "train/order", epoch, training.worker).permutation(share.count)
            batch = share.batch(order[16 * place : 16 * (place + 1)])
            functional.cross_entropy(training.module(*batch.args), batch.targets).backward()
            clip_grad_norm_(training.module.parameters(), 1.0)
            for group in training.optimizer.param_groups:
                group["lr"] = config.lr_at(step)
            training.optimizer.step()
            training.optimizer.zero_grad()
    training.export(path)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("flags", "workers"),
    [
        *(({"strategy": name}, workers) for name in ON_ANY for workers in (2, 4)),
        *(({"law": name}, 4) for name in LAW_CASES if name not in ("weighted", "overlapping", "block")),
        ({"law": "overlapping", "minimum": 9}, 4),
        ({"law": "weighted", "capacities": (1, 3)}, 2),
        ({"law": "block", "core": 0.25, "optimizer": "adamw", "lr": 0.01}, 4),
        ({"strategy": "narrow", "core": 0.25}, 2),
        ({"strategy": "local-sgd", "keep_state": True, "schedule": "constant"}, 2),
    ],
    ids=str,
)
def test_a_loop_by_hand_is_isthmus_train(flags: dict[str, Any], workers: int, tmp_path: Path) -> None:
    flags = {**SETTING, **flags, "workers": workers}
    run = train(**flags, executor="serial", out=tmp_path / "run")
    assert run is not None
    WAYS["processes"](by_hand, workers, flags, tmp_path / "own.safetensors")
    assert same(load_file(tmp_path / "own.safetensors"), load_file(tmp_path / "run" / "model.safetensors"))


# ------------------------------------------------------------------- a law defined in a test (cases/laws.py)


def test_a_window_runs_in_training() -> None:
    def job() -> None:
        training = Training(perceptron(), (torch.zeros(2, 6),), sgd, law=Core(Window(), 0.25), local_steps=3)
        for step in range(7):
            take_step(training, step)
        training.close()
        if training.worker == 0:
            merged = training._members.part.merged(training._rounds.state)
            scale = merged.scales["2.weight"].tensor()[0]
            core = Core(Window(), 0.25).core(Axis("0", 12), 0)
            assert torch.equal(scale[torch.from_numpy(core)], torch.ones(len(core)))
            others = torch.from_numpy(np.setdiff1d(np.arange(12), core))
            assert (scale[others] < 1).all()

    in_turn(job, 3)


@pytest.mark.processes
def test_a_window_runs_in_isthmus_train(tmp_path: Path) -> None:
    """By name from the command line and as an object from Python, with the same bits; the report can draw it."""
    named = train(**SETTING, law="cases.laws:Window", core=0.25, workers=3, out=tmp_path / "named")
    own = train(**SETTING, strategy=IST(Core(Window(), 0.25)), workers=3, executor="serial", out=tmp_path / "own")
    assert named is not None
    assert own is not None
    assert named.summary["weights_sha256"] == own.summary["weights_sha256"]
    assert (named.config["law"], named.config["core"]) == ("cases.laws:Window", 0.25)
    assert named.config["law_label"]


def test_a_window_runs_in_the_lab() -> None:
    problem = lab.Quadratic.gaussian(workers=3, dim=6, seed=0)
    method = lab.IST(lab.Dealt(Window(), 3, 6), stepsize=0.01)
    exact = lab.theory.dynamics(problem, method, x0=[1.0] * 6, rounds=20)
    run = lab.simulate(problem, method, x0=[1.0] * 6, rounds=20, seeds=2000)
    assert exact.gap[-1] < 0.9 * exact.gap[0]
    assert (np.abs(run.mean_gap - exact.gap)[1:] < 5 * run.standard_error[1:]).all()


def test_the_lab_and_the_trainer_deal_the_same_units() -> None:
    """One Partition, one key: a round of the lab's sketch is the trainer's cut of an axis of that name."""
    coupling = nets.trace(perceptron(), (torch.zeros(2, 6),))
    axis = coupling.cut_axes[0]
    for number in range(3):
        partition = coupling.partition(3, 5, number, "uniform")
        sketch = lab.Permutation(3, axis.size)
        diagonals = sketch.sample(Axis(axis.name, axis.size).generator(5, number))
        for worker in range(3):
            assert np.array_equal(np.flatnonzero(diagonals[worker]), partition.of(worker)[axis.name])


def test_replace_of_a_configuration_is_checked_again() -> None:
    with pytest.raises(ValueError, match="`workers` must be at least 1"):
        replace(configure(), workers=0)
