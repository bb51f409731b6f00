"""The rival of equal cost: local SGD on a dense network as wide as the subnetwork a worker of IST would hold."""

from __future__ import annotations

from isthmus.nets.mlp import MLPSpec
from isthmus.partitions import partition_at
from isthmus.train.config import TrainConfig
from isthmus.train.round import Worker
from isthmus.train.strategies.local_sgd import LocalSGD


def narrow(spec: MLPSpec, worker: Worker) -> LocalSGD:
    """Return one worker of local SGD on the narrow network."""
    return LocalSGD(narrow_spec(spec, worker.config), worker)


def narrow_spec(spec: MLPSpec, config: TrainConfig) -> MLPSpec:
    """Return the network with the hidden widths of the largest subnetwork, the core included."""
    partitions = (
        partition_at("fixed", width, config.workers, config.seed, f"hidden{layer}", core=config.core)
        for layer, width in enumerate(spec.widths)
    )
    return spec.with_widths([max(partition.sizes) for partition in partitions])
