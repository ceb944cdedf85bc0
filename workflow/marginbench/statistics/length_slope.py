"""How strongly a judge's preference goes with length: a logistic slope on the difference of two answers' lengths."""

from collections.abc import Hashable, Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression


def length_slope(
    longer: Sequence[float], wins: Sequence[float], clusters: Sequence[Hashable]
) -> tuple[float | None, float | None]:
    """Slope b of logit P(method wins) = a + b tanh(d / s), with its standard error over clusters.

    d is the method's length minus the baseline's and s the sample standard deviation of d, as in AlpacaEval's length
    control (Dubois et al. 2024, arXiv 2404.04475), whose sign is the other one; unlike there nothing is known of the
    questions' difficulty and nothing is shrunk. The fit by maximum likelihood takes a win of 0.7 as 0.7 wins and 0.3
    losses. The error is the sandwich over clusters with the factor K / (K - 1).

    Args:
        longer: d of each judgment.
        wins: preference for the method, 0 to 1.
        clusters: the question of each judgment.

    Returns:
        Slope and standard error; both None where the slope is not defined (lengths that don't differ, one winner only,
        wins that lengths part from losses), the error None with fewer than three questions.
    """
    d, y = np.asarray(longer, dtype=float), np.asarray(wins, dtype=float)
    if not len(d) == len(y) == len(clusters):
        raise ValueError(f"{len(d)} lengths, {len(y)} preferences and {len(clusters)} questions do not match")
    spread = float(d.std(ddof=1)) if len(d) > 1 else 0.0
    if spread == 0.0:
        return None, None
    x = np.tanh(d / spread)
    won, lost = x[y > 0], x[y < 1]
    if not len(won) or not len(lost) or won.min() >= lost.max() or lost.min() >= won.max():
        return None, None
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=200)
    model.fit(
        np.concatenate([x, x])[:, None],
        np.repeat([1, 0], len(x)),
        sample_weight=np.concatenate([y, 1.0 - y]),
    )
    slope = float(model.coef_[0, 0])
    codes, units = pd.factorize(pd.Series(list(clusters), dtype=object))
    if len(units) < 3:
        return slope, None
    p = model.predict_proba(x[:, None])[:, 1]
    design = np.column_stack([np.ones_like(x), x])
    scores = np.zeros((len(units), 2))
    np.add.at(scores, codes, design * (y - p)[:, None])
    bread = np.linalg.inv(design.T @ (design * (p * (1 - p))[:, None]))
    covariance = len(units) / (len(units) - 1) * bread @ (scores.T @ scores) @ bread
    return slope, float(np.sqrt(covariance[1, 1]))
