"""Small made-up inputs for tests of the data room: reviews as CSV, preference rows, candidates."""

import csv
import itertools
from pathlib import Path
from typing import Any

import pandas as pd
from marginbench.study import FileCorpus, ReviewsCorpus

SUBJECTS = ("film", "plot", "cast", "score", "ending", "script", "camera", "humour", "pace", "sound")
GOOD, BAD = ("wonderful", "superb", "moving", "brilliant"), ("dreadful", "boring", "awful", "clumsy")


def review_rows(n: int) -> list[tuple[str, int]]:
    """n distinct reviews of 30 words, labels alternating, whose words give the label away."""
    rows = []
    for i, (a, b, c) in zip(range(n), itertools.product(SUBJECTS, SUBJECTS, range(100)), strict=False):
        label = i % 2
        words = GOOD if label else BAD
        start = f"number {i} of {c} the {a} and the {b} were"
        rows.append((start + "".join(f" {words[(i + k) % 4]} {SUBJECTS[(i * 3 + k) % 10]}" for k in range(10)), label))
    return rows


def write_reviews(path: Path, rows: list[tuple[str, Any]]) -> Path:
    """A CSV with the columns text,label."""
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return path


def reviews_corpus(path: Path | None, **changes: Any) -> ReviewsCorpus:
    """A small corpus of reviews."""
    numbers = {
        "classifier_texts": 60, "sft_texts": 12, "prompts": 10, "eval_prompts": 8, "perplexity_texts": 6,
        "prompt_words": 4,
    }  # fmt: skip
    return ReviewsCorpus(source="reviews", path=None if path is None else str(path), **{**numbers, **changes})


def preference_rows(n_prompts: int, pairs_per_prompt: int = 1) -> list[dict[str, Any]]:
    """Good rows with string columns prompt, chosen, rejected."""
    return [
        {"prompt": f"question {i}?", "chosen": f"good answer {i}.{k}", "rejected": f"bad answer {i}.{k}"}
        for i in range(n_prompts)
        for k in range(pairs_per_prompt)
    ]


def file_corpus(path: Path, **changes: Any) -> FileCorpus:
    """A preference corpus from a file."""
    return FileCorpus(source="file", path=str(path), **changes)


def sampled(texts: pd.DataFrame, answers: list[str], samples: int = 4) -> pd.DataFrame:
    """CANDIDATES for every prompt of a TEXTS frame; the answers are handed out in turn, numbered to be distinct."""
    prompts = texts.loc[texts["role"] == "prompt", "text_id"].tolist()
    rows = []
    for i, prompt_id in enumerate(prompts):
        for k in range(samples):
            text = f" {answers[(i + k) % len(answers)]} {i}{k}"
            reason = "stop" if k % 2 else "length"
            rows.append({"prompt_id": prompt_id, "sample": k, "text": text, "n_tokens": 9, "finish_reason": reason})
    return pd.DataFrame(rows)
