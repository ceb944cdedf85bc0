"""Arena-Hard's scores: verdicts to battles, the official score and interval of each version, and clustered errors.

Every model meets the baseline only, so the Bradley-Terry fit of v0.1 is the weighted mean of its battles (tested), and
a refit on resampled battles is the mean of those. Sources: lmarena/arena-hard-auto at d99b139 (v0.1) and 196f6b82
(v2.0), Li et al. 2024 (arXiv 2406.11939).
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from marginbench.benchmarks.arena_formats import Game
from marginbench.errors import UserError
from marginbench.identity import stream

Version = Literal["v0.1", "v2.0"]

STRONG = 3
"""How many battles a strong verdict counts for."""

DRAWS = 100
"""Bootstrap resamples of the official intervals."""

PERCENTILES: dict[Version, tuple[float, float]] = {"v0.1": (2.5, 97.5), "v2.0": (5.0, 95.0)}
"""Bounds of the official intervals: 95 % in v0.1, 90 % in v2.0."""

_V01 = {"A>>B": (1.0, STRONG), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, STRONG)}
_TURNED = {"B<<A": "A>>B", "B<A": "A>B", "B=A": "A=B", "A<B": "B>A", "A<<B": "B>>A"}

LABELS: dict[Version, dict[str, tuple[float, int]]] = {
    "v0.1": _V01,
    "v2.0": {**_V01, **{other: _V01[label] for other, label in _TURNED.items()}},
}
"""Labels that a version scores: A's points and how many battles it counts for."""


def to_battles(games: Sequence[Game], version: Version) -> tuple[pd.DataFrame, dict[str, dict[str, int | None]]]:
    """Battles of all models, and what was counted and dropped, for each model.

    Battles: columns model, question_id, y (the model's points: 0, 0.5 or 1), one row for each unit of weight, in an
    order that doesn't depend on that of the games. A game without a verdict, or with a label that the version doesn't
    score, is skipped; in v2.0 the other game of its row goes with it. Raises UserError for a model that has no battle.
    """
    frame = pd.DataFrame(games, columns=Game._fields)
    known = frame["label"].isin(list(LABELS[version]))
    frame["kept"] = known
    if version == "v2.0":
        row = [frame["model"], frame["question_id"], frame["judge"].fillna("")]
        # Rows of a battles file stand for themselves: each has its verdict.
        frame["kept"] = known.groupby(row).transform("all")
    counts: dict[str, dict[str, int | None]] = {}
    for model, mine in frame.groupby("model"):
        unknown = int((mine["label"].notna() & ~known[mine.index]).sum())
        kept, is_battles = mine[mine["kept"]], bool(mine["battle"].any())
        if kept.empty:
            raise UserError(f"model {model}: none of its {len(mine)} games carries a verdict; judge them again")
        counts[str(model)] = {
            "n_prompts": kept["question_id"].nunique(),
            # A battles file doesn't say which games are behind it.
            "n_prompts_dropped": None if is_battles else mine["question_id"].nunique() - kept["question_id"].nunique(),
            "n_games": None if is_battles else len(kept),
            "n_games_dropped": None if is_battles else len(mine) - len(kept),
            "n_null": None if is_battles else int(mine["label"].isna().sum()),
            "n_unknown": unknown,
        }
    frame = frame[frame["kept"]]
    points = [LABELS[version][label] for label in frame["label"]]
    first = (frame["number"] == 2).to_numpy()
    y = np.array([point for point, _ in points])
    battles = frame[["model", "question_id"]].assign(y=np.where(first, y, 1.0 - y))
    weights = np.where(frame["battle"], 1, [weight for _, weight in points]).astype(int)
    battles = battles.loc[battles.index.repeat(weights)]
    battles = battles.sort_values(["model", "question_id", "y"], ignore_index=True)
    for model, number in battles["model"].value_counts().items():
        counts[str(model)]["n_battles"] = int(number)
    return battles, counts


def resample_counts(n: int, *axes: str) -> np.ndarray:
    """How often each of n battles is drawn in each of DRAWS resamples of size n, int array (DRAWS, n)."""
    random = stream("arena_hard", *axes)
    return np.stack([np.bincount(random.integers(n, size=n), minlength=n) for _ in range(DRAWS)])


def official(battles: pd.DataFrame, version: Version) -> dict[str, dict[str, float]]:
    """Score (percent) and official interval of each model; for v2.0 also the mean of the resampled scores.

    `score` is the weighted mean. v2.0's own tool prints `bootstrap_mean`, which lies about a tenth of a standard error
    beside it, elsewhere at every run. v0.1 resamples the battles of all models together; v2.0 those of each model by
    themselves, from a stream of the model, so that no other model moves its interval.
    """
    together = resample_counts(len(battles), version, "score") if version == "v0.1" else None
    low, high = PERCENTILES[version]
    result = {}
    for model, index in battles.groupby("model").indices.items():
        y = battles["y"].to_numpy()[index]
        drawn = resample_counts(len(y), version, "score", str(model)) if together is None else together[:, index]
        size = drawn.sum(axis=1)
        means = 100.0 * (drawn @ y)[size > 0] / size[size > 0]
        result[str(model)] = {
            "score": 100.0 * float(y.mean()),
            "ci_low": float(np.percentile(means, low)),
            "ci_high": float(np.percentile(means, high)),
            **({"bootstrap_mean": float(means.mean())} if version == "v2.0" else {}),
        }
    return result


def clustered(battles: pd.DataFrame, confidence: float = 0.95) -> dict[str, float | None]:
    """Standard error and t-interval (percent) of one model's score with prompts as units.

    R = S / N with S and N the points and battles of all prompts; Var(R) = K / (K - 1) sum_q (s_q - R n_q)^2 / N^2.
    Null with fewer than two prompts.
    """
    prompts = battles.groupby("question_id")["y"].agg(["sum", "count"])
    k = len(prompts)
    if k < 2:
        return {"clustered_se": None, "clustered_ci_low": None, "clustered_ci_high": None}
    total = float(prompts["count"].sum())
    rate = float(prompts["sum"].sum()) / total
    residuals = prompts["sum"] - rate * prompts["count"]
    se = 100.0 * math.sqrt(k / (k - 1) * float((residuals**2).sum())) / total
    half = float(stats.t.ppf((1 + confidence) / 2, k - 1)) * se
    return {
        "clustered_se": se,
        "clustered_ci_low": max(0.0, 100.0 * rate - half),
        "clustered_ci_high": min(100.0, 100.0 * rate + half),
    }
