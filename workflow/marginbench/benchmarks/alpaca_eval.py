"""AlpacaEval: the pairs that it has judged, annotations in the official format, and win rates.

`score` calls `alpaca_eval.metrics`, which is imported only there (2 s, no torch), and checks it against
alpaca_metrics.py. Files are read and written in alpaca_files.py, length control is in alpaca_length_control.py.
Sources: alpaca_eval 0.6.6, Li et al. 2023 (AlpacaEval), Dubois et al. 2024 (arXiv 2404.04475).
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marginbench.benchmarks.alpaca_files import ANNOTATION_TEXTS, check_annotations
from marginbench.benchmarks.alpaca_length_control import TOLERANCE, Join, length_controlled, quietly, sklearn_version
from marginbench.benchmarks.alpaca_metrics import win_rates
from marginbench.errors import UserError
from marginbench.judging.client import Item


def pair_items(answers: Sequence[dict[str, Any]], baseline_answers: Sequence[dict[str, Any]]) -> list[Item]:
    """Items to be judged: every answer beside the baseline's answer to the same question, turn and sample.

    Rows are those of the answers file. Raises UserError when one side lacks a question or holds one twice, and when the
    two sides were asked different texts under one question_id.
    """

    def place(row: dict[str, Any]) -> tuple[Any, ...]:
        return (row["question_id"], row.get("turn", 1), row.get("sample", 0))

    sides = []
    for side, rows in (("answers", answers), ("baseline answers", baseline_answers)):
        repeated = [key for key, count in Counter(map(place, rows)).items() if count > 1]
        if repeated:
            raise UserError(f"{side}: question {repeated[0][0]} is answered more than once for one turn and sample")
        sides.append({place(row): row for row in rows})
    mine, theirs = sides
    unmatched = sorted(set(mine) ^ set(theirs), key=str)
    if unmatched:
        lacking = "the baseline's" if unmatched[0] in mine else "the method's"
        raise UserError(
            f"{len(unmatched)} questions lack {lacking} answer, first {unmatched[0][0]}; generate them again"
        )
    items: list[Item] = []
    for key, row in mine.items():
        other = theirs[key]
        if row["prompt_text"] != other["prompt_text"]:
            raise UserError(f"question {row['question_id']}: method and baseline were asked different texts")
        items.append(
            Item(
                question_id=row["question_id"],
                question=row["prompt_text"],
                baseline_id=other["answer_id"],
                baseline=other["text"],
                answer_id=row["answer_id"],
                answer=row["text"],
                turn=row.get("turn", 1),
            )
        )
    return items


def annotations(
    judgments: Sequence[dict[str, Any]],
    items: Sequence[Item],
    *,
    baseline_name: str,
    method_name: str,
    dataset: str = "in_domain",
) -> list[dict[str, Any]]:
    """Rows of an official `annotations.json`, one per item, in the order of the items.

    output_1 is the baseline's answer and output_2 the method's, whatever was shown first. Where a pair was judged in
    both orders the preference is the mean of the two, and null if one of them is null. Time and date are left out, so
    that equal runs write equal files. Raises UserError when an item has no judgment.
    """
    by_answers: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in judgments:
        by_answers.setdefault(tuple(row["answer_ids"]), []).append(row)
    rows = []
    for item in items:
        found = by_answers.get((item["baseline_id"], item["answer_id"]))
        if not found:
            raise UserError(f"question {item['question_id']}: no judgment of answer {item['answer_id']}; judge again")
        preferences = [row["preference"] for row in found]
        raw = [_raw_completion(row) for row in found]
        rows.append(
            {
                "instruction": item["question"],
                "output_1": item["baseline"],
                "generator_1": baseline_name,
                "output_2": item["answer"],
                "generator_2": method_name,
                "dataset": dataset,
                "annotator": found[0]["judge"],
                "preference": None if None in preferences else math.fsum(preferences) / len(preferences),
                "preference_raw_completion": raw[0] if len(raw) == 1 else raw,
                "preference_price_per_example": math.fsum(row["price"] or 0.0 for row in found),
                "preference_version": found[0]["judge_version"],
            }
        )
    return rows


def _raw_completion(row: dict[str, Any]) -> dict[str, Any] | None:
    if row["raw"] is None and row["logprobs"] is None:
        return None
    top = [{"token": token, "logprob": value} for token, value in (row["logprobs"] or {}).items()]
    # A judge that gives hard labels has no log-probs, and upstream's files then hold null.
    return {
        "text": row["raw"],
        "total_tokens": (row["tokens_in"] or 0) + (row["tokens_out"] or 0),
        "is_switched_outputs": row["switched"],
        "logprobs": {"content": [{"top_logprobs": top}]} if top else None,
    }


def score(
    rows: Sequence[dict[str, Any]],
    gamed: str | Path | None = None,
    difficulty: str | Path | None = None,
    *,
    join: Join = "instruction",
    bootstrap: int = 0,
    seed: int = 0,
) -> dict[str, Any]:
    """Win rates of an annotations list, in percent, with alpaca_eval's own standard error over items.

    `gamed` is `df_gamed.csv` (plain or .gz), `difficulty` a CSV index,instruction_difficulty that replaces the
    difficulties in it; `join: position` looks them up by row number, as published rows did, and `bootstrap` draws make
    LC's interval. Null preferences are left out of every rate and counted in `n_null`. `avg_length` is the mean number
    of characters of output_2, cut to an integer. Raises UserError for rows that are no annotations, when there is no
    preference at all, and when the package and our own formulas disagree.
    """
    check_annotations(rows)
    frame = pd.DataFrame(list(rows), columns=[*ANNOTATION_TEXTS, "preference"], dtype=object)
    frame["preference"] = frame["preference"].astype(float)
    with quietly():
        from alpaca_eval.metrics import get_winrate

        found = get_winrate(frame)
    own = win_rates(frame["preference"].to_numpy())
    if own["n_total"] == 0:
        raise UserError(f"annotations: none of {len(frame)} rows carries a preference; judge them again")
    for name, value in own.items():
        if not np.isclose(float(found[name]), value, rtol=0, atol=TOLERANCE, equal_nan=True):
            raise UserError(f"alpaca_eval gives {name} {found[name]}, our own formula {value}; trust neither")
    result: dict[str, Any] = {
        **{name: _number(found[name]) for name in ("win_rate", "standard_error", "discrete_win_rate")},
        **{name: int(found[name]) for name in ("n_wins", "n_wins_base", "n_draws", "n_total")},
        "n_null": len(frame) - int(found["n_total"]),
        "avg_length": int(frame["output_2"].str.len().mean()),
    }
    controlled = length_controlled(frame, gamed, difficulty, join, bootstrap, seed)
    return {**result, **controlled, "scikit_learn": sklearn_version()}


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
