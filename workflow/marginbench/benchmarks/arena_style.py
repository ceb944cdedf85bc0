"""Arena-Hard's style control: a Bradley-Terry fit with differences in length and markdown beside the models.

Features are centred over all battles of the run, so a model's score is that at the pool's average difference in style
and moves with the other models of the run; the score at equal style has a name of its own. Either group of features
can be controlled alone. Sources: arena-hard-auto at d99b139 (v0.1, L2 with C = 1) and 196f6b82 (v2.0, no penalty); here
both are fitted to the optimum.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from marginbench.benchmarks.arena_markdown import style_counts, token_counter
from marginbench.benchmarks.arena_scores import PERCENTILES, Version, resample_counts
from marginbench.errors import UserError

GROUPS = {"length": ("token_len",), "markdown": ("header_count", "list_count", "bold_count")}
FEATURES = tuple(name for group in GROUPS.values() for name in group)


class Fit(NamedTuple):
    """Fitted log-odds against the baseline, by model, and the coefficients of the standardised features."""

    log_odds: np.ndarray
    style: np.ndarray


def differences(ours: np.ndarray, theirs: np.ndarray, version: Version) -> np.ndarray:
    """Differences in style in [-1, 1], float array (battles, 4), from counts of the same shape: model, baseline.

    v0.1: (m - b) / (m + b + 1). v2.0: (m - b) / (m + b) of the length, 0 where both are empty; markdown counts for each
    token + 1, then (m - b) / (m + b + 1).
    """
    if version == "v0.1":
        return (ours - theirs) / (ours + theirs + 1.0)
    both = ours[:, :1] + theirs[:, :1]
    length = np.divide(ours[:, :1] - theirs[:, :1], both, out=np.zeros_like(both), where=both > 0)
    ours, theirs = ours[:, 1:] / (ours[:, :1] + 1.0), theirs[:, 1:] / (theirs[:, :1] + 1.0)
    return np.hstack([length, (ours - theirs) / (ours + theirs + 1.0)])


def fit(codes: np.ndarray, z: np.ndarray, y: np.ndarray, weight: np.ndarray, version: Version) -> Fit:
    """Maximum of the likelihood of v2.0, or of the penalised one of v0.1.

    Args:
        codes: number of each battle's model, int array (battles,).
        z: standardised features, float array (battles, features); may have no column.
        y: the model's points in [0, 1], float array (battles,).
        weight: how often each battle counts, (battles,).
        version: v0.1 writes models as +-ln 10 with the baseline among them, counts every battle twice and penalises
            half the squared norm of all coefficients; v2.0 penalises nothing.
    """
    n_models = int(codes.max()) + 1
    scale = math.log(10) if version == "v0.1" else 1.0
    design = np.zeros((len(y), n_models + (version == "v0.1") + z.shape[1]))
    design[np.arange(len(y)), codes] = scale
    if version == "v0.1":
        design[:, n_models] = -scale
    design[:, design.shape[1] - z.shape[1] :] = z
    times = 2.0 if version == "v0.1" else 1.0
    weights = np.concatenate([times * weight * y, times * weight * (1.0 - y)])
    used = weights > 0
    model = LogisticRegression(
        C=1.0 if version == "v0.1" else np.inf, fit_intercept=False, solver="newton-cholesky", tol=1e-8, max_iter=300
    )
    with warnings.catch_warnings():
        # A model that wins all its battles has no finite optimum; its share is then 100 to all digits shown.
        warnings.simplefilter("ignore")
        model.fit(np.concatenate([design, design])[used], np.repeat([1, 0], len(y))[used], sample_weight=weights[used])
    found = model.coef_[0]
    reference = found[n_models] if version == "v0.1" else 0.0
    return Fit(scale * (found[:n_models] - reference), found[len(found) - z.shape[1] :])


def style_controlled(
    battles: pd.DataFrame,
    baseline: str,
    answers: Mapping[str, Mapping[str, dict[str, Any]]],
    groups: Sequence[str],
    version: Version,
) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Style-controlled scores (percent) of each model, and what they belong to: features, pool, coefficients.

    `style_score` is at the pool's average difference in style, as upstream; `style_score_equal` at no difference. The
    interval is the official one: resampled battles, refitted. `answers` are those of `read_answers`. Raises UserError for an unknown group and for a question without an answer.
    """
    columns = _columns(groups)
    ours, theirs = _counts(battles, baseline, answers, version)
    raw = differences(ours, theirs, version)[:, columns]
    centre, spread = raw.mean(axis=0), raw.std(axis=0, ddof=0 if version == "v0.1" else 1)
    varies = spread > 0  # one that is the same everywhere says nothing
    z = (raw[:, varies] - centre[varies]) / spread[varies]
    codes, models = pd.factorize(battles["model"], sort=True)
    y = battles["y"].to_numpy()
    found = fit(codes, z, y, np.ones(len(y)), version)
    at_equal = found.log_odds - float((found.style * centre[varies] / spread[varies]).sum())
    # A resample in which a model has no battle says nothing about that model.
    drawn = np.array(
        [
            np.where(np.bincount(codes, weights=counts) > 0, fit(codes, z, y, counts, version).log_odds, np.nan)
            for counts in resample_counts(len(battles), version, "style")
        ]
    )
    low, high = np.nanpercentile(100.0 * expit(drawn), PERCENTILES[version], axis=0)
    scores = {
        str(model): {
            "style_score": 100.0 * float(expit(found.log_odds[i])),
            "style_ci_low": float(low[i]),
            "style_ci_high": float(high[i]),
            "style_score_equal": 100.0 * float(expit(at_equal[i])),
        }
        for i, model in enumerate(models)
    }
    names = [FEATURES[i] for i in columns]
    coefficients = dict.fromkeys(names, 0.0)
    coefficients.update(zip(np.array(names)[varies].tolist(), map(float, found.style), strict=True))
    about = {
        "features": names,
        "pool": [str(model) for model in models],
        "mean_difference": dict(zip(names, map(float, centre), strict=True)),
        "coefficients": coefficients,
    }
    return scores, about


def reversals(scores: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Pairs [a, b] of models of which a has the higher score and b the higher style-controlled score."""
    return [
        [a, b]
        for a in scores
        for b in scores
        if scores[a]["score"] > scores[b]["score"] and scores[a]["style_score"] < scores[b]["style_score"]
    ]


def _columns(groups: Sequence[str]) -> list[int]:
    unknown = [group for group in groups if group not in GROUPS]
    if unknown or not groups:
        raise UserError(f"style control of `{','.join(unknown)}` is not known; choose from {', '.join(GROUPS)}")
    names = {name for group in groups for name in GROUPS[group]}
    return [i for i, name in enumerate(FEATURES) if name in names]


def _counts(
    battles: pd.DataFrame,
    baseline: str,
    answers: Mapping[str, Mapping[str, dict[str, Any]]],
    version: Version,
) -> tuple[np.ndarray, np.ndarray]:
    """Style counts of the model's and of the baseline's answer in every battle, float arrays (battles, 4)."""
    count_tokens = token_counter(version)
    known: dict[tuple[str, str], tuple[float, ...]] = {}
    for model, question in set(zip(battles["model"], battles["question_id"], strict=True)):
        for who in (model, baseline):
            facts = answers[who].get(question)
            if facts is None:
                raise UserError(f"answers of {who}: question {question} is not among them; style control needs it")
            if (who, question) not in known:
                known[who, question] = style_counts(facts, f"answer of {who} to {question}", count_tokens)
    questions = battles["question_id"]
    ours = [known[model, question] for model, question in zip(battles["model"], questions, strict=True)]
    return np.array(ours), np.array([known[baseline, question] for question in questions])
