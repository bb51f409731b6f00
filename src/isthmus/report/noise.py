"""Whether two strategies' accuracies differ by more than chance: only then is the difference a headline."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy.special import stdtrit

from isthmus.report.curves import Curve
from isthmus.report.plots import number

_UNKNOWN = 0.01  # without the number of test samples, differences below one point count as chance
_LEVEL = 0.975  # two-sided 95 %


def is_noise(one: Curve, other: Curve) -> bool:
    """Return whether the difference of mean test accuracies is within its own error, at 95 %.

    With several seeds of both, the error is the standard error of the difference over seeds (Welch's t); otherwise the
    sampling error of the test sets, binomial in their numbers of targets; where those are unknown, one point.
    """
    mine, theirs = _known(one), _known(other)
    difference = abs(statistics.fmean(mine) - statistics.fmean(theirs))
    if min(len(mine), len(theirs)) > 1:
        return difference <= _seed_error(mine, theirs)
    targets = [_test_targets(one), _test_targets(other)]
    if None in targets:
        return difference < _UNKNOWN
    return difference <= _sampling_error((*mine, *theirs), [count for count in targets if count is not None])


def _known(one: Curve) -> list[float]:
    return [score for score in one.accuracy() if score is not None]


def _test_targets(one: Curve) -> float | None:
    """The fewest targets that a run of the curve was tested on, None where one does not say."""
    counts = [number(run.summary.get("test_targets")) for run in one.runs]
    known = [count for count in counts if count is not None and count >= 1]
    return min(known) if len(known) == len(counts) else None


def _seed_error(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """Half the width of Welch's confidence interval for the difference of two means."""
    parts = [(statistics.variance(scores) / len(scores), len(scores) - 1) for scores in (mine, theirs)]
    squared = sum(part for part, _ in parts)
    if squared == 0:
        return 0.0
    freedom = squared**2 / sum(part**2 / freedom for part, freedom in parts)
    return float(stdtrit(freedom, _LEVEL)) * math.sqrt(squared)


def _sampling_error(scores: Sequence[float], targets: Sequence[float]) -> float:
    """The same for two proportions of ``targets`` samples each, where both have the same chance."""
    chance = min(max(statistics.fmean(scores), 0.0), 1.0)
    error = math.sqrt(chance * (1 - chance) * sum(1 / count for count in targets))
    return statistics.NormalDist().inv_cdf(_LEVEL) * error
