"""A configuration from flags: the names of the command line, each given or not; and back again.

What is not given has the default of its concern. A flag that would have no effect with the others is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from isthmus.errors import InvalidInput, check_choice
from isthmus.partitions import LAWS, Auto, Core, Law, Mixed, law_of
from isthmus.strategies import STRATEGIES, Strategy
from isthmus.trainer.config.evaluation import Evaluation, check_scale
from isthmus.trainer.config.faults import Faults
from isthmus.trainer.config.model import Own, Perceptron
from isthmus.trainer.config.optimize import OPTIMIZERS, SGD, OptimizerChoice, OwnOptimizer
from isthmus.trainer.config.run import TrainConfig
from isthmus.trainer.config.saving import Saving
from isthmus.trainer.config.schedule import SCHEDULES, Cosine, Schedule
from isthmus.trainer.config.step import Step

_PERCEPTRON = ("widths", "activation", "norm")
_DEALING = ("law", "core", "capacities", "minimum")
_STEP = ("batch_size", "accumulate", "clip", "autocast")
_RUN = (
    "data", "features", "init", "cut", "verify", "keep_state", "wire", "overlap", "workers", "rounds", "samples",
    "local_steps", "seed", "executor", "device",
)  # fmt: skip
_SAVING = {"checkpoint_every": "every", "keep_checkpoints": "keep"}
PROCESSES = ("min_workers", "deadline", "join_timeout", "copies")  # of workers that can be lost
_FAULTS = (*PROCESSES, "spare")
_PLACE = ("out", "replace")
OPTIONS = tuple(
    dict.fromkeys(
        field.name
        for kind in STRATEGIES.values()
        for field in dataclasses.fields(kind)
        if field.name not in ("law", "scale")
    )
)  # of strategies, beside how they deal and scale
FLAGS = (
    "data", "features", "model", "example", "init", "cut", "verify", *_PERCEPTRON, "strategy", *_DEALING, "scale",
    *OPTIONS, "optimizer", "lr", "momentum", "weight_decay", "keep_state", "schedule", "warmup", *_STEP, "loss",
    "metric", "eval_every", "wire", "overlap", "workers", "rounds", "samples", "local_steps", "seed", "executor",
    "device", *_SAVING, *_FAULTS, *_PLACE,
)  # fmt: skip


def configure(**flags: Any) -> TrainConfig:
    """Return the configuration of some flags; those that are None are not given.

    Args:
        flags: by the names in :data:`FLAGS`; ``isthmus train --help`` says what each does. From Python, ``model``,
            ``data``, ``strategy``, ``law``, ``optimizer``, ``loss`` and ``metric`` may be objects.

    Raises:
        InvalidInput: a flag that does not exist, breaks its rule, or would have no effect.

    >>> configure(strategy="ist", law="uniform", workers=2).strategy
    IST(law=Uniform(), scale='expected')
    """
    given = {name: value for name, value in flags.items() if value is not None}
    for name in given:
        check_choice("flag", name, FLAGS)
    strategy = _strategy(given)
    if not strategy.restarts:
        _refuse(given, ("keep_state",), f"with strategy {strategy.name!r}, which always keeps it")
    if given.get("executor") == "serial":
        _refuse(given, PROCESSES, "with executor 'serial', whose workers are one process")
        if strategy.dealt is not None and strategy.dealt.measures:
            raise InvalidInput("`capacities` auto has no effect with executor 'serial': its workers are as fast")
    _refuse(given, ("samples",) if "rounds" in given else (), "beside `rounds`: it is a budget instead of them")
    return TrainConfig(
        model=_model(given),
        strategy=strategy,
        optimizer=_optimizer(given),
        schedule=_schedule(given),
        step=Step(**_only(given, _STEP)),
        evaluation=_evaluation(given),
        saving=Saving(**{_SAVING[name]: value for name, value in _only(given, _SAVING).items()}),
        faults=Faults(**_only(given, _FAULTS)),
        **_only(given, (*_RUN, *_PLACE)),
    )


def record(config: TrainConfig) -> dict[str, Any]:
    """Return the flags of a configuration with all values as they take effect; those without effect are None."""
    optimizer, step, evaluation = config.optimizer, config.step, config.evaluation
    values: dict[str, Any] = dict.fromkeys(FLAGS)
    values |= {name: getattr(config, name) for name in (*_RUN, "out")}
    values |= {"data": config.data_shown, "features": "standardized" if config.standardizes else "raw"}
    values |= _model_record(config.model)
    chosen = config.strategy.record()
    values |= ({"core": 0.0} if "law" in chosen else {}) | chosen
    dealt = config.strategy.dealt
    law = dealt.law if isinstance(dealt, Core) else dealt  # the core is recorded beside it
    if "law" in chosen and law is not None and law.name not in (Auto.name, *LAWS):  # the report does not know it
        values |= {"law_label": law.label, "law_meaning": law.meaning}
    if config.law_reason:
        values["law_reason"] = config.law_reason
    if evaluation.readout:
        values["scale"] = "readout"
    values |= {"optimizer": optimizer.name, "schedule": config.schedule.name, "warmup": config.schedule.warmup}
    if not isinstance(optimizer, OwnOptimizer):
        values |= dataclasses.asdict(optimizer)
    values |= {"lr": config.peak_lr, "keep_state": config.keeps_state or not config.strategy.restarts}
    values |= dataclasses.asdict(step)
    values |= {"loss": _shown(evaluation.loss), "metric": _shown(evaluation.metric), "eval_every": evaluation.every}
    values |= {name: getattr(config.saving, field) for name, field in _SAVING.items()}
    values |= dataclasses.asdict(config.faults)
    values |= dict.fromkeys(PROCESSES) if config.executor == "serial" else {}
    values |= {
        "rounds": -(-config.steps // config.local_steps),
        "samples": config.steps * config.workers * step.batch_size,
    }
    values.pop("replace")
    values.pop("example")
    return values


def command(config: TrainConfig) -> list[str] | None:
    """Return the command line that repeats a run; None where something in it is an object that has no name."""
    own = (config.data, config.evaluation.loss, config.evaluation.metric)
    own += (config.model.model,) if isinstance(config.model, Own) else ()
    if isinstance(config.optimizer, OwnOptimizer) or any(not isinstance(each, str | None) for each in own):
        return None
    if isinstance(config.model, Own) and config.model.example is not None:
        return None
    values = record(config)
    for name in ("rounds" if config.samples is not None else "samples", "law_label", "law_meaning", "law_reason"):
        values.pop(name, None)
    if not _named(config.strategy) or not set(values) <= set(FLAGS):  # or has numbers that no flag sets
        return None
    words = ["isthmus", "train"]
    for name, value in values.items():
        if value is None or (name == "keep_state" and not config.strategy.restarts):
            continue
        words.append(f"--{name.replace('_', '-')}")
        words += [str(each) for each in (value if isinstance(value, list | tuple) else [value])]
    return words


def _named(strategy: Strategy) -> bool:
    """Return whether the command line finds a strategy and its law by their names."""
    law = strategy.dealt
    settable = law is None or set(law.record()) <= set(_DEALING)  # else it has a number that no flag of laws sets
    return settable and (law is None or _by_name(law)) and STRATEGIES.get(strategy.name) is type(strategy)


def _by_name(law: Law) -> bool:
    inner = law.law if isinstance(law, Core) else law
    if isinstance(inner, Mixed):
        return all(_by_name(each) for _, each in inner.laws)
    module, _, kind = law.name.partition(":")
    return law.name in (Auto.name, *LAWS) or (module != "__main__" and kind.isidentifier())


def _model(given: Mapping[str, Any]) -> Perceptron | Own:
    if "model" not in given:
        _refuse(given, ("example",), "without `model`")
        return Perceptron(**_only(given, _PERCEPTRON))
    _refuse(given, _PERCEPTRON, "with `model`: it is of the perceptron that is trained without one")
    return Own(given["model"], given.get("example"))


def _strategy(given: Mapping[str, Any]) -> Strategy:
    named = given.get("strategy", "ist")
    if isinstance(named, Strategy):
        searched = given.get("scale") == "readout" and hasattr(named, "scale")
        _refuse(given, (*_DEALING, *OPTIONS, *(() if searched else ("scale",))), "beside a strategy object")
        return named
    kind = STRATEGIES[check_choice("strategy", named, STRATEGIES)]
    fields = {field.name for field in dataclasses.fields(kind)}
    without = [*(() if "law" in fields else _DEALING), *(n for n in ("scale", *OPTIONS) if n not in fields)]
    _refuse(given, without, f"with strategy {named!r}")
    values: dict[str, Any] = _only(given, OPTIONS)
    if any(name in given for name in _DEALING):
        default = kind().dealt
        assert default is not None
        law: Law | str = given.get("law", default)
        values["law"] = law_of(law, **_only(given, ("core", "capacities", "minimum")))
    if "scale" in given:
        scale = check_scale(given["scale"])
        values["scale"] = "expected" if scale == "readout" else scale
    return kind(**values)


def _optimizer(given: Mapping[str, Any]) -> OptimizerChoice:
    named = given.get("optimizer", SGD.name)
    if not isinstance(named, str):
        _refuse(given, ("lr", "momentum", "weight_decay"), "beside an optimizer of one's own, which has its own")
        return OwnOptimizer(named)
    kind = OPTIMIZERS[check_choice("optimizer", named, OPTIMIZERS)]
    fields = {field.name for field in dataclasses.fields(kind)}
    _refuse(given, [name for name in ("momentum",) if name not in fields], f"with optimizer {named!r}")
    return kind(**_only(given, ("lr", "momentum", "weight_decay")))


def _schedule(given: Mapping[str, Any]) -> Schedule:
    kind = SCHEDULES[check_choice("schedule", given.get("schedule", Cosine.name), SCHEDULES)]
    return kind(**_only(given, ("warmup",)))


def _evaluation(given: Mapping[str, Any]) -> Evaluation:
    return Evaluation(given.get("eval_every"), given.get("scale") == "readout", given.get("loss"), given.get("metric"))


def _only(given: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: given[name] for name in names if name in given}


def _refuse(given: Mapping[str, Any], names: Iterable[str], why: str) -> None:
    for name in names:
        if name in given:
            raise InvalidInput(f"`{name}` has no effect {why}")


def _model_record(model: Perceptron | Own) -> dict[str, Any]:
    return {"model": model.shown} if isinstance(model, Own) else dataclasses.asdict(model)


def _shown(value: str | Callable[..., Any] | None) -> str | None:
    """Return the name of a function, or of an object's class."""
    if value is None or isinstance(value, str):
        return value
    return str(getattr(value, "__qualname__", type(value).__name__))
