"""Preference pairs: constructed from sampled candidates and a ground truth, or taken from a preference dataset.

Tiers and labels follow MADPO v1 (Rho 2025, arXiv 2510.05342v1; its notebooks): `high` sets two samples against each
other, `low` the better-scored of two samples against the original negative review, `medium` half of the prompts
each. Labels are Bradley-Terry draws from the ground-truth scores, or noise-free.
"""

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit

from marginbench.data.classifier import TextClassifier, true_reward
from marginbench.data.corpora import drawn_pairs, evaluation_prompts
from marginbench.data.messages import plain_text
from marginbench.data.preferences import read_preferences, source_name
from marginbench.data.splits import draw, share_of_prompts
from marginbench.errors import UserError
from marginbench.identity import stream
from marginbench.records import PAIRS, id_of_pair
from marginbench.study import Dataset, FileCorpus, HubCorpus

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)


def _with_split(pairs: pd.DataFrame, holdout_fraction: float, seed: int) -> pd.DataFrame:
    holdout = share_of_prompts(pairs["prompt_id"], holdout_fraction, "holdout", seed)
    pairs["split"] = np.where(pairs["prompt_id"].isin(holdout), "holdout", "train")
    return pairs[list(PAIRS.columns)].reset_index(drop=True)


def _measure(pairs: pd.DataFrame) -> dict[str, Any]:
    """Counts and, where pairs have scores, how labels and scores agree."""
    report: dict[str, Any] = {
        "pairs": len(pairs),
        "prompts": int(pairs["prompt_id"].nunique()),
        "splits": {str(name): int(n) for name, n in pairs["split"].value_counts().sort_index().items()},
        "sources": {str(name): int(n) for name, n in pairs["source"].value_counts().sort_index().items()},
    }
    gap = (pairs["score_chosen"] - pairs["score_rejected"]).dropna().to_numpy()
    if len(gap):
        report |= {
            "label_agreement": float(np.mean(gap > 0)),
            "score_ties": int(np.sum(gap == 0)),
            "score_gap_quantiles": {str(q): float(np.quantile(gap, q)) for q in QUANTILES},
            "absolute_gap_quantiles": {str(q): float(np.quantile(np.abs(gap), q)) for q in QUANTILES},
        }
    return report


def _couples(prompts: pd.DataFrame, candidates: pd.DataFrame, pairing: str) -> tuple[list[tuple[str, Any, Any]], int]:
    """Samples of each prompt that meet, and how many were left single.

    Consecutive ones, (0,1), (2,3), ..., or all pairs, as in the DPO paper's controlled sentiment (appendix C.1).
    """
    unknown = sorted(set(candidates["prompt_id"]) - set(prompts.index))
    if unknown:
        raise UserError(f"candidates: prompt_id {unknown[0]} is no prompt of the corpus; delete them and run again")
    couples, single = [], 0
    grouped = dict(list(candidates.sort_values("sample").groupby("prompt_id")))
    for prompt_id in sorted(prompts.index):
        if prompt_id not in grouped or len(grouped[prompt_id]) < 2:
            n = len(grouped.get(prompt_id, ()))
            raise UserError(
                f"candidates: prompt {prompt_id} has {n} samples, a pair needs 2; set candidates.samples_per_prompt"
            )
        samples = list(grouped[prompt_id].itertuples(index=False))
        if pairing == "all":
            couples += [(prompt_id, one, other) for one, other in combinations(samples, 2)]
        else:
            single += len(samples) % 2
            couples += [(prompt_id, samples[i], samples[i + 1]) for i in range(0, len(samples) - 1, 2)]
    return couples, single


def _against_review(prompts: pd.DataFrame, tier: str, seed: int) -> set[str]:
    """The prompts whose samples meet the original review: none (high), all (low), every second one (medium)."""
    chosen = {"high": [], "low": list(prompts.index), "medium": draw(prompts.index, None, "tier", seed)[::2]}[tier]
    positive = [p for p in chosen if pd.isna(prompts.at[p, "label"]) or prompts.at[p, "label"] != 0]
    if positive:
        raise UserError(
            f"tier `{tier}` needs prompts from negative reviews (label 0), {len(positive)} of {len(chosen)} are not; "
            "the corpus has too few negative reviews for `prompts`"
        )
    return set(chosen)


def _opponents(prompts: pd.DataFrame, couples: list, ground_truth: TextClassifier, tier: str, seed: int) -> list[dict]:
    """Unlabelled pairs: both answers with their ground-truth scores and whether they are complete."""
    text_of = {prompt_id: plain_text(messages) for prompt_id, messages in prompts["prompt"].items()}

    def score(answers: list[tuple[str, str]]) -> np.ndarray:
        return true_reward(ground_truth, [text_of[prompt_id] + answer for prompt_id, answer in answers])

    samples = [(prompt_id, sample) for prompt_id, *two in couples for sample in two]
    scores = score([(prompt_id, sample.text) for prompt_id, sample in samples]).tolist()
    sides = [(s.text, value, s.finish_reason == "stop") for (_, s), value in zip(samples, scores, strict=True)]
    pairs = [
        {"prompt_id": p, "prompt": prompts.at[p, "prompt"], "sides": sides[i : i + 2], "source": "sample_vs_sample"}
        for i, (p, _) in list(enumerate(samples))[::2]
    ]
    against = _against_review(prompts, tier, seed)
    replaced = [pair for pair in pairs if pair["prompt_id"] in against]
    reviews = []
    for pair in replaced:
        pair["sides"] = [max(pair["sides"], key=lambda side: side[1])]
        pair["source"] = "sample_vs_review"
        # The completion starts with a space, so splitting gives an empty first word: as many words as the sample.
        words = prompts.at[pair["prompt_id"], "completion"].split(" ")
        reviews.append((pair["prompt_id"], " ".join(words[: len(pair["sides"][0][0].split()) + 1])))
    for pair, (_, text), value in zip(replaced, reviews, score(reviews).tolist(), strict=True):
        pair["sides"].append((text, value, False))
    return pairs


def _label(pair: dict, label_noise: str, seed: int) -> tuple[tuple, tuple] | None:
    """Chosen and rejected side; None for a noise-free tie. The draw belongs to the pair's content, not to its order."""
    one, two = sorted(pair["sides"])
    if label_noise == "none":
        if one[1] == two[1]:
            return None
        return (one, two) if one[1] > two[1] else (two, one)
    u = stream("label", seed, pair["prompt"], one[0], two[0]).random()
    return (one, two) if u < expit(one[1] - two[1]) else (two, one)


def pairs_from_candidates(
    texts: pd.DataFrame,
    candidates: pd.DataFrame,
    ground_truth: TextClassifier,
    dataset: Dataset,
    holdout_fraction: float,
    seed: int,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Labelled pairs (PAIRS) from TEXTS of role `prompt` and their CANDIDATES, and a report.

    Scores are ground-truth rewards of prompt + answer in [-3, 3]; P(first is chosen) = sigmoid(difference of scores)
    under `bradley_terry`, the higher score wins under `none`. Empty and identical answers, repeated pairs and
    noise-free ties are dropped and counted. Raises UserError when the dataset names no tier or label noise, when a
    prompt lacks samples, and when nothing is left.
    """
    for key in ("tier", "label_noise"):
        if getattr(dataset, key) is None:
            raise UserError(f"datasets: `{key}` must be set for pairs made from the corpus `{dataset.corpus}`")
    prompts = texts[texts["role"] == "prompt"].set_index("text_id")
    couples, single = _couples(prompts, candidates, dataset.pairing or "consecutive")
    counts = {"unpaired_samples": single, "empty_answer": 0, "identical_answers": 0, "duplicate_pair": 0, "tie": 0}
    rows: dict[str, dict] = {}
    for pair in _opponents(prompts, couples, ground_truth, dataset.tier, seed):
        answers = [side[0] for side in pair["sides"]]
        if not all(answer.strip() for answer in answers):
            counts["empty_answer"] += 1
            continue
        if answers[0] == answers[1]:
            counts["identical_answers"] += 1
            continue
        labelled = _label(pair, dataset.label_noise, seed)
        if labelled is None:
            counts["tie"] += 1
            continue
        chosen, rejected = labelled
        key = id_of_pair(pair["prompt"], chosen[0], rejected[0])
        if key in rows:
            counts["duplicate_pair"] += 1
            continue
        rows[key] = {
            "pair_id": key,
            "prompt_id": pair["prompt_id"],
            "prompt": pair["prompt"],
            "chosen": chosen[0],
            "rejected": rejected[0],
            "chosen_ended": chosen[2],
            "rejected_ended": rejected[2],
            "source": pair["source"],
            "score_chosen": chosen[1],
            "score_rejected": rejected[1],
        }
    if not rows:
        raise UserError(
            f"no pair could be made from {len(candidates)} candidates: {counts}; sample more or longer ones"
        )
    pairs = _with_split(pd.DataFrame(list(rows.values())), holdout_fraction, seed)
    report = {"tier": dataset.tier, "label_noise": dataset.label_noise, "dropped": counts, **_measure(pairs)}
    return pairs, report


def pairs_from_corpus(
    corpus: FileCorpus | HubCorpus, dataset: Dataset, holdout_fraction: float, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The training pairs (PAIRS) of a preference dataset, evaluation prompts taken out, and a report.

    Answers count as complete; ratings, where the dataset has them, become the scores. Raises UserError as
    `read_preferences` does, and when the dataset asks for a tier or label noise, which need a ground truth.
    """
    if dataset.tier is not None or dataset.label_noise is not None:
        key = "tier" if dataset.tier is not None else "label_noise"
        raise UserError(
            f"datasets: `{key}: {getattr(dataset, key)}` needs a corpus with a ground truth; `{dataset.corpus}` brings "
            "its own labels; remove the key"
        )
    pairs, report = read_preferences(corpus)
    report["training_pairs"] = int((~pairs["prompt_id"].isin(evaluation_prompts(pairs, corpus))).sum())
    pairs = _with_split(
        drawn_pairs(pairs, corpus, seed).assign(chosen_ended=True, rejected_ended=True, source=source_name(corpus)),
        holdout_fraction,
        seed,
    )
    return pairs, report | _measure(pairs)
