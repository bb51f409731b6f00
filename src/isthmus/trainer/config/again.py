"""The configuration of an earlier run, to go on with it or to export it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from isthmus.errors import InvalidInput
from isthmus.records import Run, read_run, to_json
from isthmus.strategies import STRATEGIES
from isthmus.trainer.checkpoint.manifest import checkpoints
from isthmus.trainer.config.flags import FLAGS, PROCESSES, configure, record
from isthmus.trainer.config.run import TrainConfig

FOLDER = "checkpoints"  # of a run's folder
# What may be another when a run goes on, and what follows from it.
_FREE = ("workers", "executor", "device", "checkpoint_every", "keep_checkpoints", "spare", *PROCESSES)
_FOLLOWS = ("rounds", "samples", "out")
# What follows from the network where the law is chosen by it; a checkpoint knows.
_OF_LAWS = ("law", "minimum", "law_label", "law_meaning")


def go_on(folder: str | Path, **flags: Any) -> TrainConfig:
    """Return the configuration with which a run goes on, in the same folder.

    Args:
        folder: of the run.
        flags: as of ``isthmus train``; those that are None are not given. Number of workers, executor, device and what
            concerns checkpoints may differ from the run's. A run that was made from Python of objects without names
            needs what it was made of.

    Raises:
        InvalidInput: a run that is finished or has no checkpoint, or a flag that contradicts it.
        RecordError: not a run's folder.
    """
    run = _training(folder)
    if run.status == "finished":
        raise InvalidInput(f"{folder} is finished: there is nothing to go on with")
    return _configuration(run, flags)


def after_restart(config: TrainConfig) -> TrainConfig:
    """Return with what to go on where torchrun has started all workers again: from the last checkpoint of this run.

    The folder's run is this one if it is unfinished and its configuration the same; else nothing is changed.
    """
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    if not again or config.resume or config.out is None or not checkpoints(config.out / FOLDER):
        return config
    run = read_run(config.out)
    now = to_json(record(config))
    chooses = config.strategy.dealt is not None and config.strategy.dealt.chooses
    open_ = (*_OF_LAWS, "law_reason") if chooses else ()
    names = (now.keys() | run.config.keys()) - set(open_)
    own = run.status != "finished" and all(run.config.get(name) == now.get(name) for name in names)
    return replace(config, resume=True, replace=False) if own else config


def of_run(folder: str | Path) -> TrainConfig:
    """Return the configuration of a run, to do something with its checkpoints.

    Raises:
        InvalidInput: a run without checkpoints, or one that was made from Python of objects without names.
        RecordError: not a run's folder.
    """
    run = _training(folder, rows=False)  # whatever is wrong with them, the network can be had
    if run.command is None:
        raise InvalidInput(f"{folder} was made from Python of objects without names: export it there")
    return _configuration(run, {})


def _training(folder: str | Path, rows: bool = True) -> Run:
    run = read_run(folder, rows)
    if run.kind != "train":
        raise InvalidInput(f"{folder} must be a run of `isthmus train`, got one of `isthmus {run.kind}`")
    if not checkpoints(run.path / FOLDER):
        raise InvalidInput(f"{folder} has no checkpoint (see --checkpoint-every)")
    return run


def _configuration(run: Run, flags: Mapping[str, Any]) -> TrainConfig:
    given = {name: value for name, value in flags.items() if value is not None}
    for name in ("out", "replace"):
        if given.get(name):
            raise InvalidInput(f"`{name}` has no effect beside `resume`: the run goes on in its own folder")
    named = {} if run.command is None else _flags(run.config)
    if given.get("executor") == "serial":
        named = {name: value for name, value in named.items() if name not in PROCESSES}
    if "rounds" in given:
        named.pop("samples", None)
    if "samples" in given:
        named.pop("rounds", None)
    config = configure(**{**named, **given})
    now = to_json(record(config))
    open_ = _OF_LAWS if config.strategy.dealt is not None and config.strategy.dealt.chooses else ()
    for name, value in now.items():
        free = name in _FREE or name in open_ or (name in _FOLLOWS and name not in given)
        if not free and value != run.config.get(name):
            raise InvalidInput(f"`{name}` must be that of the run, {run.config.get(name)!r}, got {value!r}")
    return replace(config, out=run.path, resume=True, law_reason=str(run.config.get("law_reason") or ""))


def _flags(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags that make a recorded configuration again."""
    named = {name: value for name, value in recorded.items() if name in FLAGS and value is not None and name != "out"}
    if not STRATEGIES[named["strategy"]].restarts:
        named.pop("keep_state")
    each = named["local_steps"] * named["workers"] * named["batch_size"]
    named.pop("samples" if named["samples"] == named["rounds"] * each else "rounds")
    return named
