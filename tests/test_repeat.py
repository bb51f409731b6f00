"""The command that a run records repeats it: the same rows but times, the same weights."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import isthmus
from cases.runs import TIMES
from isthmus.cli import main
from isthmus.records import Run, read_run

SMALL = ["--workers", "2", "--rounds", "2", "--local-steps", "2", "--batch-size", "8"]
NARROW = ["--widths", "24", "--executor", "serial"]
COMMANDS: dict[str, list[str]] = {
    "flags": ["train", *SMALL, *NARROW, "--law", "uniform", "--core", "0.25", "--scale", "readout", "--wire", "bf16",
              "--optimizer", "adamw", "--lr", "1e-3", "--weight-decay", "0.01", "--keep-state", "True", "--clip", "0.5",
              "--accumulate", "2", "--schedule", "constant", "--warmup", "0", "--eval-every", "1",
              "--checkpoint-every", "1", "--keep-checkpoints", "1"],
    "several values": ["train", *SMALL, "--widths", "24", "16", "--executor", "serial", "--law", "weighted",
                       "--capacities", "2", "1", "--cut", "hidden", "--seed", "3"],
    "a budget of samples": ["train", "--workers", "2", "--samples", "100", "--batch-size", "8", "--local-steps", "3",
                            *NARROW, "--strategy", "local-sgd", "--momentum", "0"],
    "an equals sign": ["train", *SMALL, *NARROW, "--strategy=narrow", "--activation=tanh", "--norm=none"],
    "an own network": ["train", *SMALL, "--executor", "serial", "--model", "cases.trainable:digits"],
    "processes": ["train", *SMALL, "--widths", "24"],
    "analyze": ["analyze", "--workers", "2", "--dim", "4", "--rounds", "5", "--seeds", "8", "--seed", "3"],
    "figure": ["analyze", "--figure", "remark-1"],
    "compare": ["compare", "--workers", "2", "--dim", "4", "--rounds", "20", "--seeds", "4", "--processes", "1",
                "--methods", "gd", "ist"],
}  # fmt: skip


def without_times(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in run.rows]


def repeat(run: Run, out: Path) -> Run:
    """Run what a run's record says, as a shell would read it, but into another folder."""
    recorded = json.loads((run.path / "config.json").read_text())["command"]
    words = shlex.split(recorded)
    assert words[0] == "isthmus"
    words[words.index("--out") + 1] = str(out)
    main(words[1:])
    return read_run(out)


def assert_same(one: Run, other: Run) -> None:
    assert without_times(one) == without_times(other)
    assert len(one.rows) > 0
    assert one.summary.get("weights_sha256") == other.summary.get("weights_sha256")
    left, right = ({**run.config, "out": None} for run in (one, other))
    assert left == right


@pytest.mark.parametrize("words", COMMANDS.values(), ids=COMMANDS)
def test_the_recorded_command_repeats_the_run(tmp_path: Path, words: list[str]) -> None:
    first = tmp_path / "it's a \"run\" of $HOME; ls *"
    main([*words, "--out", str(first)])
    assert_same(read_run(first), repeat(read_run(first), tmp_path / "second"))


def test_data_from_a_place_with_spaces_and_quotes(tmp_path: Path) -> None:
    place = tmp_path / "it's \"so\" $1.txt"
    place.write_text("".join(f"{n % 2} 1:{n % 7} 2:{n % 5}\n" for n in range(80)))
    words = ["train", *SMALL, *NARROW, "--data", f"libsvm:{place}"]
    main([*words, "--out", str(tmp_path / "first")])
    assert_same(read_run(tmp_path / "first"), repeat(read_run(tmp_path / "first"), tmp_path / "second"))


def test_a_run_from_python_records_the_command_that_repeats_it(tmp_path: Path) -> None:
    run = isthmus.train(
        data="digits", widths=(24,), strategy="ist", law="fixed", core=0.25, workers=2, rounds=2, local_steps=2,
        batch_size=8, executor="serial", out=tmp_path / "a run", spare=tmp_path / "a spare",
    )  # fmt: skip
    assert run is not None
    assert_same(run, repeat(run, tmp_path / "second"))
