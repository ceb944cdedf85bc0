"""Reward-model proxy: how often a scalar reward model scores a method's answer above the baseline's.

A cheap stand-in for a judge, and no more than that: a policy that was trained on labels of the same reward model wins
here by construction. Results are annotations in AlpacaEval's format with both scores beside the preference.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from marginbench.benchmarks.clustered import clustered_mean
from marginbench.errors import UserError


def win_rate(
    method: Sequence[float], baseline: Sequence[float], prompts: Sequence[Hashable] | None = None
) -> dict[str, Any]:
    """Share of answers that score above the baseline's answer to the same prompt, in percent.

    Args:
        method: scores of the method's answers; their scale does not matter.
        baseline: scores of the baseline's answers, paired with `method` by position.
        prompts: the prompt of each pair; pairs of one prompt (several samples) are one unit of the standard error.
            None: every pair has its own.

    Returns:
        `win_rate` (equal scores count a half) and its `standard_error` over prompts (None for one prompt), `n_wins`,
        `n_wins_base`, `n_draws`, `n_total`.

    Raises ValueError for lists of unequal length, and UserError for no pairs and for a score that is not finite.
    """
    ours, theirs = np.asarray(method, dtype=float), np.asarray(baseline, dtype=float)
    if ours.ndim != 1 or ours.shape != theirs.shape or (prompts is not None and len(prompts) != len(ours)):
        raise ValueError(f"scores of shape {ours.shape} and {theirs.shape} are not paired, one prompt for each")
    if not len(ours):
        raise UserError("reward proxy: there are no pairs to compare; generate and score answers first")
    broken = ~(np.isfinite(ours) & np.isfinite(theirs))
    if broken.any():
        raise UserError(f"reward proxy: pair {int(broken.argmax())} has a score that is not finite; score it again")
    credit = credits(ours, theirs)
    rate, se = clustered_mean(credit.tolist(), list(range(len(ours))) if prompts is None else prompts)
    return {
        "win_rate": 100.0 * rate,
        "standard_error": None if se is None else 100.0 * se,
        "n_wins": int((credit == 1.0).sum()),
        "n_wins_base": int((credit == 0.0).sum()),
        "n_draws": int((credit == 0.5).sum()),
        "n_total": len(ours),
    }


def credits(method: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """1 where the method's score is higher, 0 where it is lower, a half where both are equal."""
    return (np.sign(np.asarray(method) - np.asarray(baseline)) + 1.0) / 2.0


def annotations(
    pairs: Sequence[Mapping[str, Any]],
    method: Sequence[float],
    baseline: Sequence[float],
    *,
    reward_model: str,
    method_name: str,
    baseline_name: str,
    dataset: str = "in_domain",
) -> list[dict[str, Any]]:
    """Rows of an annotations file, one for each pair (`question`, `baseline`, `answer`), in their order.

    The keys are AlpacaEval's, so that its readers and `alpaca_eval.score` take them; `score_1` and `score_2` are the
    reward model's scores of baseline and method, `preference` is 1, 1.5 or 2.
    """
    preferences = 1.0 + credits(np.asarray(method, dtype=float), np.asarray(baseline, dtype=float))
    return [
        {
            "instruction": pair["question"],
            "output_1": pair["baseline"],
            "generator_1": baseline_name,
            "output_2": pair["answer"],
            "generator_2": method_name,
            "dataset": dataset,
            "annotator": reward_model,
            "preference": float(preference),
            "score_1": float(theirs),
            "score_2": float(ours),
        }
        for pair, ours, theirs, preference in zip(pairs, method, baseline, preferences, strict=True)
    ]


def score(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`win_rate` of an annotations list that holds both scores; rows of one instruction are one unit."""
    missing = [key for key in ("instruction", "score_1", "score_2") for row in rows if key not in row]
    if missing:
        raise UserError(f"annotations: the key `{missing[0]}` is missing; were they made by a reward model?")
    return win_rate(
        [row["score_2"] for row in rows], [row["score_1"] for row in rows], [row["instruction"] for row in rows]
    )
