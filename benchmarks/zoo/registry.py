"""The networks that isthmus' own tests cut (`tests/cases`), for the gallery; the tests judge them."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from cases.networks import NETWORKS as WRITTEN
from cases.networks import Network
from cases.networks_further import FURTHER
from cases.networks_more import UNSEEN
from cases.networks_more_transformers import UNSEEN_TRANSFORMERS
from cases.networks_transformers import TRANSFORMERS
from zoo.public import Call, Public


def _public(network: Network) -> Public:
    def call(batch: int, size: int) -> Call:
        return network.inputs(batch), dict(network.kwargs)

    return Public(f"tests: {network.name}", "tests", network.build, call, (0, 0), single=True, judged=False)


NETWORKS = tuple(map(_public, [*WRITTEN, *TRANSFORMERS, *UNSEEN, *UNSEEN_TRANSFORMERS, *FURTHER]))
