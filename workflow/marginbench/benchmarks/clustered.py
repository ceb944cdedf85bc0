"""Means of judgments that come in clusters: several judgments of one prompt are one unit of sampling."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd


def clustered_mean(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, float | None]:
    """Mean over all values with its standard error over clusters (None for fewer than two clusters).

    R = S / N with s_q the sum and n_q the number of values of cluster q; Var(R) = K / (K - 1) sum_q (s_q - R n_q)^2 / N^2
    (Cochran 1977, 2.11; Miller 2024, arXiv 2411.00640). With one value each this is sd / sqrt(n).

    Raises ValueError for no values, another number of clusters, or a value that is not finite.
    """
    array = np.asarray(values, dtype=float)
    if not len(array) or len(array) != len(clusters):
        raise ValueError(f"{len(array)} values in {len(clusters)} clusters: one cluster for each value, and at least one")
    if not np.isfinite(array).all():
        raise ValueError(f"value {int(np.argmin(np.isfinite(array)))} is not a finite number")
    mean = float(array.mean())
    codes, units = pd.factorize(pd.Series(list(clusters), dtype=object))
    if len(units) < 2:
        return mean, None
    residuals = np.bincount(codes, weights=array - mean)
    return mean, math.sqrt(len(units) / (len(units) - 1) * float((residuals**2).sum())) / len(array)
