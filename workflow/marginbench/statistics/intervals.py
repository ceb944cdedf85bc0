"""Confidence intervals of means, paired differences and shares.

The unit of an interval is what would be drawn again: trainings (seeds) when a study has enough of them, items (prompts,
documents) when it has one training only. With few seeds Student's t is used, never a percentile bootstrap, which covers
far less than it says at 3 to 5 seeds (docs/decisions/0040-statistics.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

MIN_SEEDS = 3
"""Fewest trainings from which an interval over seeds is made. With 2 the t quantile is 12.7 and says nothing."""

OVER_SEEDS = "seeds"
OVER_ITEMS = "items"
NO_INTERVAL = "none"


@dataclass(frozen=True)
class Interval:
    """A mean with its two-sided confidence interval.

    `low` and `high` are None where no interval can be made; `se` is the standard error of the mean (None likewise);
    `n` counts the units and `how` names them: "seeds", "items" or "none".
    """

    mean: float
    low: float | None
    high: float | None
    se: float | None
    n: int
    how: str

    def shifted(self, by: float) -> "Interval":
        """The same interval moved by a known constant."""
        move = [None if value is None else value + by for value in (self.low, self.high)]
        return Interval(self.mean + by, move[0], move[1], self.se, self.n, self.how)


def _values(values: Sequence[float] | np.ndarray | pd.Series, name: str) -> np.ndarray:
    array = np.asarray(values, dtype=float)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name}: expected a non-empty list of numbers, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: value {int(np.argmin(np.isfinite(array)))} is not a finite number")
    return array


def _level(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    return confidence


def t_interval(mean: float, se: float, n: int, confidence: float, how: str = OVER_ITEMS) -> Interval:
    """Student's t interval from a mean, its standard error and the number of units (n - 1 degrees of freedom)."""
    if se < 0 or not math.isfinite(se) or not math.isfinite(mean):
        raise ValueError(f"mean {mean} with standard error {se}: both must be finite, the second not negative")
    if n < 2:
        raise ValueError(f"{n} units: a standard error needs at least 2")
    half = float(stats.t.ppf((1 + _level(confidence)) / 2, n - 1)) * se
    return Interval(mean, mean - half, mean + half, se, n, how)


def mean_interval(
    values: Sequence[float], confidence: float, how: str = OVER_ITEMS, weights: Sequence[float] | None = None
) -> Interval:
    """Student's t interval of the mean of independent units: mean +- t_{n-1} sd / sqrt(n), sd with n - 1.

    With `weights` (bytes of a document, say) the mean is weighted and its SE is the linearised one of a ratio,
    sqrt(n / (n - 1) sum w^2 (x - mean)^2) / sum w (Cochran 1977, 2.11), which equal weights turn into sd / sqrt(n).
    One unit gives the mean without an interval. Raises ValueError on empty or non-finite values, weights not above 0.
    """
    array = _values(values, "values")
    n = len(array)
    weight = np.ones(n) if weights is None else _values(weights, "weights")
    if len(weight) != n or not (weight > 0).all():
        raise ValueError(f"{len(weight)} weights for {n} values: one above 0 is needed for each")
    # `average` sums in another order than `mean`; unweighted means should be exactly those of the long table.
    mean = float(array.mean() if weights is None else np.average(array, weights=weight))
    if n == 1:
        return Interval(mean, None, None, None, 1, NO_INTERVAL)
    se = math.sqrt(n / (n - 1) * float((weight**2 * (array - mean) ** 2).sum())) / float(weight.sum())
    return t_interval(mean, se, n, confidence, how)


def seeds_interval(per_seed: Sequence[float], confidence: float) -> Interval:
    """Interval over trainings: t_{S-1} on one value per seed; fewer than MIN_SEEDS give the mean alone."""
    array = _values(per_seed, "per_seed")
    if len(array) < MIN_SEEDS:
        return Interval(float(array.mean()), None, None, None, len(array), NO_INTERVAL)
    return mean_interval(array, confidence, OVER_SEEDS)


def paired_difference(
    a: Sequence[float] | pd.Series,
    b: Sequence[float] | pd.Series,
    confidence: float,
    how: str = OVER_ITEMS,
    weights: pd.Series | None = None,
) -> Interval:
    """Interval of mean(a - b) over units that both have: SE = sd(a - b) / sqrt(n) (Miller 2024, arXiv 2411.00640).

    Two Series are matched by index, and must hold the same one; two plain lists are matched by position. `weights` is
    indexed as `a`.
    """
    if isinstance(a, pd.Series) and isinstance(b, pd.Series):
        for name, series in (("a", a), ("b", b)):
            if not series.index.is_unique:
                raise ValueError(f"{name}: {series.index[series.index.duplicated()][0]!r} occurs more than once")
        only_one = sorted(map(str, a.index.symmetric_difference(b.index)))
        if only_one:
            raise ValueError(f"not paired: {len(only_one)} units are on one side only, the first is {only_one[0]!r}")
        b = b.loc[a.index]
        weights = None if weights is None else weights.loc[a.index]
    x, y = _values(a, "a"), _values(b, "b")
    if len(x) != len(y):
        raise ValueError(f"not paired: {len(x)} values against {len(y)}")
    return mean_interval(x - y, confidence, how, weights)


def paired_seeds_difference(
    a: Sequence[float] | pd.Series, b: Sequence[float] | pd.Series, confidence: float
) -> Interval:
    """`paired_difference` with trainings as units: no interval below MIN_SEEDS."""
    difference = paired_difference(a, b, confidence, OVER_SEEDS)
    if difference.n >= MIN_SEEDS:
        return difference
    return Interval(difference.mean, None, None, None, difference.n, NO_INTERVAL)


def wilson_interval(k: float, n: int, confidence: float) -> Interval:
    """Wilson's score interval of a share k / n (Wilson 1927); stays in [0, 1] and is not empty at k = 0 or k = n.

    `k` may be fractional: a sum of per-question shares. `se` is that of the plain share, sqrt(p (1 - p) / n).
    """
    if n < 1 or not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is not a share")
    z = float(stats.norm.ppf((1 + _level(confidence)) / 2))
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # The exact bounds are 0 at k = 0 and 1 at k = n; rounding must not push them past the share itself.
    low, high = min(max(0.0, centre - half), p), max(min(1.0, centre + half), p)
    return Interval(p, low, high, math.sqrt(p * (1 - p) / n), n, OVER_ITEMS)


def headline_interval(
    per_seed: Sequence[float],
    item_se: Sequence[float | None],
    items: Sequence[int],
    confidence: float,
    share: bool = False,
) -> Interval:
    """The interval that a table shows for one cell, from one value, item-level SE and item count per seed.

    At least MIN_SEEDS seeds: t over seeds. One seed: item-level interval of that training (Wilson for shares), which
    says nothing about training again. Two seeds: the mean alone.
    """
    array = _values(per_seed, "per_seed")
    if not len(array) == len(item_se) == len(items):
        raise ValueError(f"{len(array)} values, {len(item_se)} standard errors and {len(items)} counts do not match")
    if len(array) > 1:
        return seeds_interval(array, confidence)
    mean, se, n = float(array[0]), item_se[0], int(items[0])
    if share and n >= 1:
        return wilson_interval(min(max(mean * n, 0.0), n), n, confidence)
    if se is None or not math.isfinite(se) or n < 2:
        return Interval(mean, None, None, None, n, NO_INTERVAL)
    return t_interval(mean, float(se), n, confidence)
