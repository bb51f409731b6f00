"""Many classes out of sparse inputs, generated: how much a class depends on is set by a rank."""

from __future__ import annotations

import numpy as np

from isthmus.data.dataset import Dataset
from isthmus.errors import InvalidInput, check_integer
from isthmus.randomness import generator

INPUTS, ACTIVE, SAMPLES = 1000, 8, 50_000
RANK = 64
_SHARPNESS = 6.0  # of the scores' softmax
_AT_ONCE = 2000  # samples


def many_classes(classes: int, rank: int = RANK, samples: int = SAMPLES, seed: int = 0) -> Dataset:
    """Return samples of 8 active inputs out of 1,000, whose class is drawn from a softmax of scores of a given rank::

        scores = 6 / sqrt(8 r) * (e_1 + ... + e_8) . c_v,    e and c standard normal in r dimensions

    A network with fewer than r units before its last layer cannot say all of that; with r small, a low-rank head can.

    Args:
        classes: number of classes V.
        rank: r.
        samples: number of samples m; the last tenth is the test part.
        seed: of vectors and samples.

    Returns:
        Features [m, 8] are the numbers of the active inputs, as an embedding bag takes them.

    Raises:
        InvalidInput: fewer than 2 classes, or a number below 1.
    """
    check_integer("classes", classes, at_least=2)
    check_integer("rank", rank, at_least=1)
    check_integer("samples", samples, at_least=10)
    random = generator(seed, "data/many")
    inputs, outputs = random.standard_normal((INPUTS, rank)), random.standard_normal((classes, rank))
    features = random.integers(0, INPUTS, (samples, ACTIVE)).astype(np.int32)
    noise, targets = generator(seed, "data/many/labels"), np.empty(samples, np.int64)
    for start in range(0, samples, _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        scores = inputs[features[part]].sum(1) @ outputs.T * (_SHARPNESS / np.sqrt(ACTIVE * rank))
        targets[part] = (scores + noise.gumbel(size=scores.shape)).argmax(1)
    name, cut = f"many:{classes}:{rank}", samples - samples // 10
    test = Dataset(name, features[cut:], targets[cut:], classes, (ACTIVE,))
    return Dataset(name, features[:cut], targets[:cut], classes, (ACTIVE,), test)


def read_many(place: str) -> Dataset:
    """Return what ``many:V`` or ``many:V:RANK`` names.

    Raises:
        InvalidInput: no numbers.
    """
    numbers = place.split(":")
    if len(numbers) > 2 or not all(each.isdecimal() for each in numbers):
        raise InvalidInput(f"`data` many:CLASSES:RANK must have one or two numbers, got {place!r}")
    return many_classes(*map(int, numbers))
