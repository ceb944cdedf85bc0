"""A made-up study on disk, in the shapes that the workflow leaves behind, for the tests of reporting."""

from pathlib import Path

import numpy as np
import pandas as pd
from marginbench.files import write_json
from marginbench.identity import content_id, stream
from marginbench.margins.rows import margin_rows
from marginbench.records import ANSWER_SCORES, MARGINS, TRAIN_LOG, write_table
from marginbench.study import START

# method -> (true reward, KL, share repeated, win rate, first loss, PIQA)
METHODS = {
    START: (0.1, 0.0, 0.02, 50.0, None, 0.66),
    "dpo": (1.7, 6.5, 0.05, 88.0, float(np.log(2)), 0.64),
    "ipo": (1.1, 3.1, 0.03, 76.0, 25.0, 0.65),
}
QUESTIONS = 64
HOLDOUT = {"accuracy": 0.7, "ci": [0.535, 0.834], "n": 40, "ties": 0, "nll": 0.61}
JUDGE = "sentiment_half_b"
FAMILY = {"baseline": "dpo", "methods": ["ipo"], "metrics": ["true_reward", "win_rate"], "level": 0.05}


def table_paths(folder: Path) -> dict[str, Path]:
    """Where the forms of the table go."""
    paths = {name: folder / f"table.{name}" for name in ("csv", "md", "tex")}
    return {**paths, "claims_csv": folder / "claims.csv"}


def settings(seeds: list[int]) -> dict:
    """What the workflow passes on about a study."""
    return {
        "title": "Controlled sentiment, made up",
        "seeds": seeds,
        "reseed": [],
        "confidence": 0.95,
        "methods": list(METHODS),
        "judges": [JUDGE],
        "generations": ["t08"],
        "tasks": ["piqa", "review_perplexity"],
    }


def _answers(folder: Path, method: str, seed: int) -> Path:
    reward, kl, repeated, *_ = METHODS[method]
    shift = 0.0 if method == START else stream("shift", method, seed).normal(0, 0.15)
    hard = stream("questions").normal(0, 0.6, QUESTIONS)
    noise = stream("answers", method, seed).normal(0, 0.8, (3, QUESTIONS))
    frame = pd.DataFrame(
        {
            "answer_id": [content_id(method, seed, i) for i in range(QUESTIONS)],
            "question_id": [f"q{i:03d}" for i in range(QUESTIONS)],
            "true_reward": np.clip(reward + shift + hard + noise[0], -3, 3),
            "kl": 0.0 if method == START else kl + shift + 1.5 * noise[1],
            "n_tokens": 24,
            "n_chars": 100 + (10 * noise[2]).astype(int),
            "repeated_trigrams": np.clip(repeated + 0.02 * noise[2], 0, 1),
            "truncated": True,
        }
    )
    path = folder / "answer_scores/t08/in_domain.parquet"
    write_table(frame, path, ANSWER_SCORES)
    return path


def _judged(folder: Path, method: str, seed: int) -> tuple[Path, Path]:
    wins = METHODS[method][3] / 100
    preference = np.full(QUESTIONS, 1.5)
    if method != START:
        preference = 1 + (stream("judge", method, seed).random(QUESTIONS) < wins).astype(float)
    rows = [{"instruction": f"text {i}", "preference": float(value)} for i, value in enumerate(preference)]
    rate = 100 * (preference - 1)
    score = {
        "win_rate": float(rate.mean()),
        "standard_error": float(rate.std(ddof=1) / np.sqrt(QUESTIONS)),
        "n_total": QUESTIONS,
        "n_null": 0,
        "length_controlled_winrate": None,
        "lc_reason": "its constants are for AlpacaEval 2",
    }
    scores, annotations = (folder / f"{name}/t08/in_domain/{JUDGE}.json" for name in ("scores", "annotations"))
    write_json(scores, score)
    write_json(annotations, rows)
    return scores, annotations


def _capability(folder: Path, method: str, seed: int) -> Path:
    """The start's weights are the same for every seed, and so is its capability."""
    draw = 0 if method == START else seed
    target = METHODS[method][5]
    right = (stream("piqa", draw).random(60) < target).astype(float)
    samples = [{"doc_id": i, "value": float(value), "weight": 1.0} for i, value in enumerate(right)]
    se = float(right.std(ddof=1) / np.sqrt(60))
    write_json(folder / "capability/piqa.json", {"value": float(right.mean()), "se": se, "n": 60, "samples": samples})
    weights = 150.0 + np.arange(48)
    bits = (
        1.05 + 0.02 * METHODS[method][1] + stream("bits").normal(0, 0.1, 48) + stream(method, draw).normal(0, 0.02, 48)
    )
    mean = float(np.average(bits, weights=weights))
    se = float(np.sqrt(48 / 47 * (weights**2 * (bits - mean) ** 2).sum()) / weights.sum())
    samples = [
        {"doc_id": i, "value": float(value), "weight": float(weight)}
        for i, (value, weight) in enumerate(zip(bits, weights, strict=True))
    ]
    write_json(folder / "capability/review_perplexity.json", {"value": mean, "se": se, "n": 48, "samples": samples})
    return folder / "capability"


def _train(folder: Path, method: str, seed: int) -> Path:
    first = METHODS[method][4]
    steps = np.arange(1, 61)
    noise = stream("train", method, seed).normal(0, 1, (3, 60))
    learned = 1 - np.exp(-steps / 20)
    quantities = {
        "loss": first * (1 - 0.4 * learned + 0.08 * noise[0] * (steps > 1)),
        "reward_accuracy": np.clip(np.round((0.5 + 0.3 * learned + 0.12 * noise[1]) * 8) / 8, 0, 1),
        "reward_margin": (1.2 * learned + 0.25 * noise[2]) * (1.0 if method == "dpo" else 0.6),
        "learning_rate": 1e-3 * (1 - steps / 60),
    }
    frame = pd.concat(
        [pd.DataFrame({"step": steps, "quantity": name, "value": values}) for name, values in quantities.items()]
    )
    write_table(frame, folder / "train.parquet", TRAIN_LOG)
    return folder / "train.parquet"


def write_study(root: Path, seeds: list[int]) -> list[dict]:
    """Write every run's files below `root/made_up`; returns the runs as the workflow describes them."""
    runs = []
    for method in METHODS:
        for seed in seeds:
            folder = root / "made_up/imdb_high/smollm2_135m" / method / f"seed{seed}"
            write_json(folder / "spec.json", {"method": method, "spec_hash": content_id(method, seed)})
            scores, annotations = _judged(folder, method, seed)
            runs.append(
                {
                    "study": "made_up",
                    "dataset": "imdb_high",
                    "model": "smollm2_135m",
                    "method": method,
                    "seed": seed,
                    "spec": str(folder / "spec.json"),
                    "train": None if method == START else str(_train(folder, method, seed)),
                    "answer_scores": {"t08/in_domain": str(_answers(folder, method, seed))},
                    "annotations": {f"t08/in_domain/{JUDGE}": str(annotations)},
                    "scores": {f"t08/in_domain/{JUDGE}": str(scores)},
                    "capability": str(_capability(folder, method, seed)),
                }
            )
    return runs


def write_shared(root: Path) -> dict[str, list[Path]]:
    """Reports of the shared stages, as keyword arguments of `collect_shared`."""
    cell = root / "made_up/imdb_high/smollm2_135m/shared"
    write_json(cell / "pairs.json", {"pairs": 160, "label_agreement": 0.75})
    write_json(cell / "reward_model/report.json", {"holdout": HOLDOUT, "holdout_true_order": None})
    margin = stream("margins").normal(0.5, 1, 160)
    ids = [f"p{i}" for i in range(160)]
    frame = margin_rows(ids, margin, [0.0] * 160, scorer="reward_model", scorer_hash="0")
    write_table(frame, cell / "margins/reward_model.parquet", MARGINS)
    full = {"ground_truth_accuracy": 0.86, "judge_accuracy": 0.85, "agreement": 0.9, "logit_correlation": 0.9}
    classifiers = root / "made_up/corpora/imdb/classifiers/report.json"
    write_json(classifiers, {"held_out": 1000, "full_review": full, "snippet_48_words": full})
    return {
        "pairs": [cell / "pairs.json"],
        "reward_models": [cell / "reward_model/report.json"],
        "margins": [cell / "margins/reward_model.parquet"],
        "classifiers": [classifiers],
    }
