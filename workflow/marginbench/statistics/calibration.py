"""Calibration of a judge: do models that it scores rank as their published scores say?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from marginbench.errors import UserError
from marginbench.identity import stream

DRAWS = 10_000
MIN_MODELS = 4
"""Fewest models for which an interval is given: three have six orders only."""


def calibration(
    scores: Mapping[str, float], published: Mapping[str, float], confidence: float = 0.95, draws: int = DRAWS
) -> dict[str, Any]:
    """Spearman's rank correlation of a judge's scores with published ones, with a percentile bootstrap over models.

    Args:
        scores: by model, from this judge.
        published: by model; models that were not scored are left out.
        confidence: level of the interval.
        draws: bootstrap draws, seeded by the models' names. Draws in which all models tie have no correlation and are
            left out.

    Returns:
        `spearman` (None where either side ties throughout), `low`, `high` (None below `MIN_MODELS`), `n` (models),
        `confidence`, `draws` (those that count). With ten models or so the interval is rough, and wide if honest.

    Raises UserError for a model without a published score, a score that is not finite, and fewer than three models.
    """
    models = sorted(scores)
    missing = [model for model in models if model not in published]
    if missing:
        raise UserError(f"calibration: no published score of {', '.join(missing[:3])}; leave out or add the score")
    ours, theirs = (np.array([float(side[model]) for model in models]) for side in (scores, published))
    if len(models) < 3:
        raise UserError(f"calibration: {len(models)} models are too few to rank; judge at least 3, better 10")
    if not (np.isfinite(ours) & np.isfinite(theirs)).all():
        raise UserError("calibration: a score is not a finite number; judge that model again")
    result: dict[str, Any] = {
        "spearman": None, "low": None, "high": None, "n": len(models), "confidence": confidence, "draws": 0,
    }  # fmt: skip
    if np.ptp(ours) == 0 or np.ptp(theirs) == 0:
        return result
    result["spearman"] = float(stats.spearmanr(ours, theirs).statistic)
    if len(models) < MIN_MODELS:
        return result
    drawn = stream("calibration", models, draws).integers(len(models), size=(draws, len(models)))
    values = _rank_correlations(ours[drawn], theirs[drawn])
    values = values[np.isfinite(values)]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return {**result, "low": float(low), "high": float(high), "draws": len(values)}


def _rank_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each row of two (draws, models) arrays; NaN where a row ties throughout."""
    ranks = [stats.rankdata(side, axis=1) for side in (a, b)]
    x, y = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
