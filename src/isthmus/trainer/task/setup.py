"""What every worker makes of a configuration before the first round: the data and the network, checked together."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from isthmus.errors import InvalidInput, IsthmusError
from isthmus.factories import load_factory
from isthmus.nets.graph.example import Example, example_of
from isthmus.nets.models.mlp import MLP, MLPSpec, initialize
from isthmus.nets.models.standardize import Standardize
from isthmus.strategies import ClassCut
from isthmus.trainer.config import Own, Perceptron, TrainConfig
from isthmus.trainer.task.classes import deal_classes, grouped
from isthmus.trainer.task.drawn import Drawn
from isthmus.trainer.task.examples import Batch
from isthmus.trainer.task.items import item_shares
from isthmus.trainer.task.network import Network, given, in_evaluation, made_by, outline_of, started_from
from isthmus.trainer.task.objective import Objective, chosen, logits_of, objective_of
from isthmus.trainer.task.shares import Shares
from isthmus.trainer.task.tables import Tables, read_tables
from isthmus.trainer.wire.group import place_for, worker_device


@dataclass(frozen=True, eq=False)
class Setup:
    """A run's data, network and objective.

    Attributes:
        config: what they were made of.
        shares: the data, and whose it is.
        network: what is trained.
        objective: loss and metric.
        front: what standardizes features outside of the network; its constants are kept with it.
    """

    config: TrainConfig
    shares: Shares
    network: Network
    objective: Objective
    front: Standardize | None = field(default=None)


def set_up(config: TrainConfig, device: torch.device | None = None) -> Setup:
    """Return the data and the network of a run, checked together.

    Args:
        config: of the run.
        device: where to train, whatever the configuration says.

    Raises:
        InvalidInput: data and network that do not fit each other, a network with too few units for the workers, or a
            device that is not here.
        DataError: missing or malformed files.
    """
    asked = worker_device() if config.device is None else place_for(config.device)
    here = asked if device is None else device
    objective = objective_of(config.evaluation.loss, config.evaluation.metric)
    if isinstance(config.model, Perceptron):
        setup = _perceptron(config, config.model, objective, here)
    else:
        setup = _own(config, config.model, objective, here)
    if isinstance(config.strategy, ClassCut):
        cut = grouped(config.strategy, setup.shares, config.workers, config.seed)
        config = replace(config, strategy=cut)
        setup = replace(setup, config=config)
        deal_classes(cut, setup.network.coupling, config.workers, config.seed)
    if config.strategy.by_class and not setup.network.coupling.cut_axes:
        return setup
    strategy, why = setup.network.chosen(config.strategy)
    if strategy is not config.strategy:
        config = replace(config, strategy=strategy, law_reason=why)
        setup = replace(setup, config=config)
    if config.strategy.dealt is not None and (isinstance(config.model, Own) or config.cut):
        # a perceptron's own axes are known to do
        setup.network.coupling.partition(config.workers, config.seed, 0, config.strategy.dealt)
    return setup


def _perceptron(config: TrainConfig, model: Perceptron, objective: Objective, device: torch.device) -> Setup:
    if not config.tabular:
        raise InvalidInput("`model` must name or be a network to train on datasets of one's own, got none")
    tables = read_tables(config)
    if tables.train.sparse:
        raise InvalidInput(
            f"`model` must name a network of (numbers, values) to train on the sparse features of "
            f"{config.data_shown!r}, got none"
        )
    spec = MLPSpec(tables.train.dim, model.widths, tables.train.classes, model.activation, model.norm)
    front = tables.standardization() if config.standardizes else Standardize.identity(spec.inputs)

    def make() -> nn.Module:
        network = initialize(MLP(spec), config.seed)
        network.standardize.mean.copy_(front.mean)
        network.standardize.deviation.copy_(front.deviation)
        return network.to(device)

    call = example_of(MLP(spec, "meta"), (torch.zeros(2, spec.inputs, device="meta"),), None)
    initial = Drawn(spec, config.seed, {"standardize.mean": front.mean, "standardize.deviation": front.deviation})
    outline = outline_of(MLP(spec, "meta"))
    network = Network(call, make, lambda: MLP(spec, "meta"), device, outline, lambda: initial, config.cut)
    if config.init is not None:
        network = started_from(network, config.init)
    return Setup(config, tables.shares(call), network, _for_targets(objective, config, tables))


def _for_targets(objective: Objective, config: TrainConfig, tables: Tables) -> Objective:
    """Return the objective for class numbers, or for labels.

    Raises:
        InvalidInput: a class cut whose gate needs one class a sample, or that needs several labels.
    """
    labelled = tables.train.labelled
    if isinstance(config.strategy, ClassCut):
        config.strategy.gating.check_labels(labelled)
    return replace(objective, labels=labelled)


def _own(config: TrainConfig, model: Own, objective: Objective, device: torch.device) -> Setup:
    network = _network(config, model, device)
    skeleton = network.skeleton()
    if not any(parameter.requires_grad for parameter in skeleton.parameters()):
        raise InvalidInput("`model` must have a parameter that is trained: it has none, or all of them are frozen")
    if not config.tabular:
        setup = Setup(config, item_shares(config), network, objective)
        _check_items(setup)
        return setup
    shape = network.example.tensors[0].shape
    tables = read_tables(config, shape[1] if len(shape) == 2 else None)
    _check_inputs(tables, network)
    if config.standardizes and tables.test.sparse:
        raise InvalidInput(f"`features` would make the sparse features of {config.data_shown!r} dense: scale the file")
    if config.standardizes and (tables.test.graph is not None or not network.example.tensors[0].is_floating_point()):
        raise InvalidInput(f"`features` has no effect on {config.data_shown!r}: tokens and nodes have no scale")
    front = tables.standardization() if config.standardizes else None
    tables = tables if front is None else tables.standardized(front)
    objective = _for_targets(objective, config, tables)
    setup = Setup(config, tables.shares(network.example), network, objective, front)
    _check_outputs(setup, skeleton, tables)
    return setup


def _network(config: TrainConfig, model: Own, device: torch.device) -> Network:
    if isinstance(model.model, nn.Module):
        if config.init is not None:
            raise InvalidInput("`init` has no effect on a module: load the file into it, or pass a function")
        # every worker its own: workers of one process, or of processes that share its memory, would train the same
        return replace(given(model.model, model.example, config.cut), make=lambda: deepcopy(model.model))
    factory = load_factory(model.model) if isinstance(model.model, str) else model.model
    if not callable(factory):
        raise InvalidInput(f"`model` must be MODULE:FACTORY, a network or a function, got {type(model.model).__name__}")
    called = f"`model` {model.model!r}" if isinstance(model.model, str) else "`model`"
    made = made_by(factory, model.example, config.seed, device, config.cut, called)
    return made if config.init is None else started_from(made, config.init)


def _check_inputs(tables: Tables, network: Network) -> None:
    data, tensors = tables.test, network.example.tensors
    if data.sparse:
        _check_bags(tables, network)
        return
    wanted, what = (1, "a batch") if data.graph is None else (2, "the features of all nodes and the adjacency")
    if len(tensors) != wanted:
        raise InvalidInput(
            f"`model` must take {what} when trained on {data.name!r}: {wanted} tensors in its example call, "
            f"got {len(tensors)}"
        )
    if data.graph is None and tensors[0].dim() < 2:
        raise InvalidInput(
            f"`model` must take a batch, [samples, ...], got an example call with a tensor of shape "
            f"{tuple(tensors[0].shape)}: add a batch dimension"
        )
    if data.numeric and not tensors[0].is_floating_point():
        raise InvalidInput(
            f"`model` takes whole numbers (tokens) in its example call, but those of {data.name!r} are real numbers"
        )
    shape = tuple(tensors[0].shape[1:])
    if data.graph is None and math.prod(shape) != data.dim:
        raise InvalidInput(
            f"`model` takes samples of shape {shape} in its example call, but those of {data.name!r} have {data.dim} "
            f"numbers ({' x '.join(map(str, data.shape))}): give it an example call that fits"
        )


def _check_bags(tables: Tables, network: Network) -> None:
    """Refuse a network that does not take the numbers of sparse features and their values."""
    data, tensors = tables.test, network.example.tensors
    shapes = {tuple(tensor.shape[1:]) for tensor in tensors}
    kinds = [tensor.dtype.is_floating_point for tensor in tensors]
    if kinds != [False, True] or len(shapes) != 1 or tensors[0].dim() != 2:
        got = ", ".join(f"{tuple(each.shape)} of {str(each.dtype).removeprefix('torch.')}" for each in tensors)
        raise InvalidInput(
            f"`model` must take (numbers, values) of the sparse features of {data.name!r}, both [samples, entries], "
            f"whole numbers and real ones, in its example call; got {got}"
        )
    longest = max(part.longest for part in (tables.train, tables.held_out, tables.test))
    if tensors[0].shape[1] < longest:
        raise InvalidInput(
            f"`model` takes {tensors[0].shape[1]} entries a sample in its example call, but one of {data.name!r} has "
            f"{longest}: give it an example call that fits"
        )


def _check_outputs(setup: Setup, skeleton: nn.Module, tables: Tables) -> None:
    """Run the skeleton on two samples; on the meta device this costs nothing.

    A network that reads values in its forward cannot be checked there; what is wrong with it is seen by the workers.
    """
    data, network = tables.test, setup.network
    device = network.example.tensors[0].device
    few = np.arange(min(2, data.samples))
    batch = setup.shares.train(setup.shares.parts[0][: len(few)], device).batch(few)
    try:
        with torch.no_grad(), in_evaluation(skeleton) as checked:
            output = checked(*batch.args, **batch.kwargs)
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        said = " ".join(str(error).split())
        if "meta tensor" in said:
            return
        raise InvalidInput(f"`model` cannot be run on {data.name!r}: {said}") from error
    if setup.objective.loss is not None:
        return
    logits, count = logits_of(chosen(output, batch)), len(batch.numbers) * data.targets_each
    fits = logits.dim() > 1 and logits[..., 0].numel() == count and logits.shape[-1] >= data.classes
    if not fits:
        raise InvalidInput(
            f"`model` must return {data.classes} logits for each of {count} targets of {data.name!r}, "
            f"got shape {tuple(logits.shape)}"
        )


def _check_items(setup: Setup) -> None:
    """Make one batch of two samples, and compute its loss for real where that is possible."""
    network, shares = setup.network, setup.shares
    skeleton = network.skeleton()
    device = next(skeleton.parameters()).device
    few = np.arange(min(2, len(shares.parts[0])))
    batch = shares.train(shares.parts[0], device).batch(few)
    if setup.config.strategy.cuts:
        _check_call(network.example, batch)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), in_evaluation(skeleton) as checked:
            setup.objective.training_loss(checked, batch)
    except IsthmusError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        if "meta" in said:
            return
        raise InvalidInput(f"`model` cannot be run on a batch of `data`: {type(error).__name__}: {said}") from error


def _check_call(example: Example, batch: Batch) -> None:
    """Refuse an example call that batches do not fit."""
    for shown, called in zip(example.tensors, example.tensors_of(batch.args, batch.kwargs), strict=True):
        if shown.dim() != called.dim():
            raise InvalidInput(
                f"`example` must be a call with a batch, as `data` gives a tensor of shape {tuple(called.shape)}, "
                f"got one of shape {tuple(shown.shape)}: does it lack a batch dimension?"
            )
