"""Two models on the same items: McNemar's exact test, and non-inferiority against a margin stated beforehand."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import stats

Verdict = Literal["pass", "fail", "inconclusive"]


def mcnemar_exact(lost: int, gained: int) -> float:
    """Two-sided exact p of McNemar's test: is an item that changed as likely to be lost as gained?

    `lost` and `gained` count the items that only the first, only the second model got right. 1 where none changed.
    """
    if min(lost, gained) < 0:
        raise ValueError(f"counts of items below 0: {lost}, {gained}")
    changed = lost + gained
    return float(stats.binomtest(lost, changed, 0.5).pvalue) if changed else 1.0


def paired_se(differences: Sequence[float] | np.ndarray) -> float | None:
    """sd(d) / sqrt(n) of paired differences, sd with n - 1; None for fewer than 2 (Miller 2024, arXiv 2411.00640)."""
    values = np.asarray(differences, dtype=float)
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def non_inferior(difference: float, se: float | None, n: int, margin: float, alpha: float = 0.05) -> Verdict:
    """Whether a model is no worse than another by more than `margin` (higher is better, `margin` above 0).

    pass: the one-sided lower bound of the difference lies above -margin; fail: the upper bound lies below it;
    inconclusive otherwise, and where there is no standard error. Bounds by Student's t with n - 1 degrees of freedom.
    """
    if margin <= 0:
        raise ValueError(f"margin {margin} is not above 0")
    if se is None or n < 2:
        return "inconclusive"
    reach = float(stats.t.ppf(1 - alpha, n - 1)) * se
    if difference - reach > -margin:
        return "pass"
    return "fail" if difference + reach < -margin else "inconclusive"
