"""How good the pieces of a ResNet are alone, and merged, under two laws: where a stream is shared, merging can hurt.

    python -m benchmarks.pieces_alone
"""

from __future__ import annotations

import numpy as np
import torch
import tyro
from isthmus.trainer.evaluate import Evaluator
from isthmus.trainer.exchange import Meter
from isthmus.trainer.executors.serial import one_thread, step_together
from isthmus.trainer.loop import make_worker
from isthmus.trainer.setup import set_up

from isthmus.trainer import TrainConfig
from isthmus.trainer.strategies import STRATEGIES, Whole


def main(data: str = "idx:/usr/share/datasets/fashion-mnist", samples: int = 12_000, workers: int = 2) -> None:
    """Train, then score the pieces of the last round and the merged network on the first 2,000 test images."""
    for law in ("block", "uniform"):
        config = TrainConfig(
            model="examples.networks:resnet", data=data, samples=samples, workers=workers, law=law, lr=0.1
        )
        setup, device = set_up(config), torch.device("cpu")
        members = [make_worker(setup, index, device) for index in range(workers)]
        parts = [STRATEGIES["ist"](member) for member in members]
        step_together([part.start() for part in parts], [Meter() for _ in parts])
        for number, steps in enumerate(config.steps_by_round):
            step_together([part.round(number, steps) for part in parts], [Meter() for _ in parts])
        test = setup.samples(setup.shards.test.take(np.arange(2000)), device)
        evaluate = Evaluator(setup.network, members[0].samples, test, test, False)
        alone = ", ".join(f"{evaluate(Whole(part.trained)).accuracy:.1%}" for part in parts)
        print(f"{law}: pieces alone {alone}; merged {evaluate(parts[0].whole()).accuracy:.1%}")


if __name__ == "__main__":
    with one_thread():
        tyro.cli(main, description=__doc__)
