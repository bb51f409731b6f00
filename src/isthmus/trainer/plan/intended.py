"""What a worker of the command's own loop does with its module, said before it does it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from isthmus.nets.models.sampled import Sampled
from isthmus.trainer.local.loop import autocast
from isthmus.trainer.observe.evaluate import PARTS, calibration
from isthmus.trainer.plan.plan import Work
from isthmus.trainer.plan.traffic import Nobody
from isthmus.trainer.strategies import Worker, part_of
from isthmus.trainer.task.examples import Batch
from isthmus.trainer.task.hollow import NOWHERE
from isthmus.trainer.task.objective import objective_of
from isthmus.trainer.task.setup import Setup


def intended(setup: Setup, index: int, workers: int, worker: int | None = None) -> Work:
    """Return what a worker does: steps on batches of its share, evaluations on the test part.

    Args:
        setup: of the run.
        index: of the worker whose share of the data it is; the first, where they are not dealt.
        workers: number of workers.
        worker: whose classes they are told by, where every worker has its own; by default the same.
    """
    config, shares, device = setup.config, setup.shares, setup.network.device
    # Made anew: a loss may remember what it has seen, and the run's is to see the run only.
    made = deepcopy(objective_of(config.evaluation.loss, config.evaluation.metric))
    objective = replace(made, labels=setup.objective.labels)
    step, parts = config.step, shares.parts
    share, held_out, test = (part(NOWHERE) for part in (partial(shares.of, index), shares.held_out, shares.test))
    size = step.batch_size // step.accumulate
    trained = shares.train(parts[index][:size], device).batch(np.arange(min(size, len(parts[index]))))
    if config.strategy.by_class:
        thought = Worker(Nobody(index if worker is None else worker, workers), setup.network, config.seed)
        trained = replace(trained, targets=part_of(config.strategy, thought).targets(trained.targets))
    tested = test.batch(next(test.pieces(parts=PARTS)))
    measured = share.batch(next(calibration(share, workers)))

    def loss(module: nn.Module, batch: Batch | None = None) -> Tensor:
        chosen = trained.without_values(device) if batch is None else batch
        if isinstance(module, Sampled):
            chosen = replace(chosen, targets=module.tell(chosen.targets))
        with autocast(step.autocast, device):
            return objective.training_loss(module, chosen)

    def look(network: nn.Module) -> Any:
        if any(True for _ in network.buffers()):  # statistics of norms
            batch = measured.without_values(device)
            network(*batch.args, **batch.kwargs)
        batch = tested.without_values(device)
        with autocast(step.autocast, device):
            output = network(*batch.args, **batch.kwargs)
        objective.tested(output, batch)

    def gradients(module: nn.Module) -> None:
        for _ in range(step.accumulate):
            (loss(module, trained) / step.accumulate).backward()
        if step.clip is not None:
            clip_grad_norm_(module.parameters(), step.clip)

    data = share.held_bytes * len(parts) // workers + held_out.held_bytes + test.held_bytes
    return Work(config.optimizer.make, loss, look, data, gradients, step.accumulate, device)
