"""How good the pieces of a ResNet are alone, and merged, under two laws: where a stream is shared, merging can hurt.

    python -m benchmarks.pieces_alone
"""

from __future__ import annotations

import numpy as np
import torch
import tyro
from torch import nn

import isthmus
from isthmus.nets import recalibrate
from isthmus.trainer import TrainConfig, configure
from isthmus.trainer.executors.in_turn import run_in_turn
from isthmus.trainer.local.loop import Loop
from isthmus.trainer.task.examples import Batch
from isthmus.trainer.task.setup import set_up

TESTED, CALIBRATED = 2000, 4096


def main(data: str = "idx:/usr/share/datasets/fashion-mnist", samples: int = 12_000, workers: int = 2) -> None:
    """Train, then score the pieces of the last round and the merged network on the first 2,000 test images."""
    for law in ("block", "uniform"):
        config = configure(
            model="examples.networks:resnet",
            data=data,
            features="standardized",
            samples=samples,
            workers=workers,
            law=law,
            lr=0.1,
        )
        *alone, merged = run_in_turn(scores, [(config,)] * workers)[0]
        print(f"{law}: pieces alone {', '.join(f'{score:.1%}' for score in alone)}; merged {merged:.1%}")


def scores(config: TrainConfig) -> list[float]:
    """Be one worker; return the accuracy of every worker's piece, and then, on worker 0, of the merged network."""
    setup = set_up(config, torch.device("cpu"))
    settings = {"optimizer": config.optimizer.make, "strategy": config.strategy, "local_steps": config.local_steps}
    with isthmus.Training(setup.network, seed=config.seed, **settings) as training:
        share, test = setup.shares.of(training.worker, training.device), setup.shares.test(training.device)
        loop = Loop(config, training, setup.objective, share)
        for number, steps in enumerate(config.steps_by_round):
            loop.round(number, steps)
        training.merge()
        batches = [share.batch(positions) for positions in share.pieces(CALIBRATED)]
        tested = [test.batch(positions) for positions in test.pieces(TESTED)]
        recalibrate(training.module, batches, lambda batch: training.module(*batch.args))
        alone = [score for (score,) in training.gather(accuracy(training.module, tested))]
        training.recalibrate([(batch.args, {}) for batch in batches])
        with training.whole(on="root") as model:
            return alone if model is None else [*alone, accuracy(model, tested)]


def accuracy(network: nn.Module, batches: list[Batch]) -> float:
    """Return the share of targets that have the largest logit."""
    network.eval()
    with torch.no_grad():
        return float(np.mean(torch.cat([network(*each.args).argmax(1) == each.targets for each in batches]).numpy()))


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
