"""AlpacaEval's files and numbers: annotations in the official format, win rates by alpaca_eval's own functions.

`score` calls `alpaca_eval.metrics`, which is imported only there (2 s, no torch). Length control
(`length_controlled_v1`) belongs to AlpacaEval 2's 805 instructions and its baseline, and needs `df_gamed.csv`; where
one of them is not at hand the value is null with the reason. Two habits of the package are mended from outside: it
looks difficulties up by row position (here rows are joined by instruction and put into the reference's order first),
and it writes weights into site-packages (here it writes nothing). Sources: alpaca_eval 0.6.6, Dubois et al. 2024
(arXiv 2404.04475).
"""

import contextlib
import hashlib
import math
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from marginbench.errors import UserError
from marginbench.judging.client import Item

LC_BASELINE = "gpt4_1106_preview"
"""The baseline that AlpacaEval 2's length-control constants were fitted against."""

INSTRUCTION_HASHES = Path(__file__).resolve().parent / "alpaca_eval_instructions.txt"
"""First 16 hex digits of the SHA-256 of each of the 805 instructions, in the order of the reference outputs."""


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
                "preference_price_per_example": math.fsum(row["price"] for row in found),
                "preference_version": found[0]["judge_version"],
            }
        )
    return rows


def _raw_completion(row: dict[str, Any]) -> dict[str, Any] | None:
    if row["raw"] is None and row["logprobs"] is None:
        return None
    top = [{"token": token, "logprob": value} for token, value in (row["logprobs"] or {}).items()]
    return {
        "text": row["raw"],
        "total_tokens": row["tokens_in"] + row["tokens_out"],
        "is_switched_outputs": row["switched"],
        "logprobs": {"content": [{"top_logprobs": top}]},
    }


def score(
    rows: Sequence[dict[str, Any]], gamed: str | Path | None = None, difficulty: str | Path | None = None
) -> dict[str, Any]:
    """Win rates of an annotations list, in percent, with alpaca_eval's own standard error over items.

    `gamed` is `df_gamed.csv` (plain or .gz), `difficulty` a CSV index,instruction_difficulty that replaces the
    difficulties in it. Null preferences are left out of every rate and counted in `n_null`.
    `avg_length` is the mean number of characters of output_2, cut to an integer.
    Raises UserError when there is no preference at all.
    """
    frame = pd.DataFrame(list(rows))
    for name in ("instruction", "output_1", "output_2", "generator_1", "generator_2", "preference"):
        if name not in frame.columns:
            raise UserError(f"annotations: the key `{name}` is missing; is this an AlpacaEval annotations file?")
    frame["preference"] = frame["preference"].astype(float)
    with _quiet_import():
        from alpaca_eval.metrics import get_winrate
    raw = get_winrate(frame)
    n_total = int(raw["n_total"])
    if n_total == 0:
        raise UserError(f"annotations: none of {len(frame)} rows carries a preference; judge them again")
    result: dict[str, Any] = {
        **{name: _number(raw[name]) for name in ("win_rate", "standard_error", "discrete_win_rate")},
        **{name: int(raw[name]) for name in ("n_wins", "n_wins_base", "n_draws")},
        "n_total": n_total,
        "n_null": len(frame) - n_total,
        "avg_length": int(frame["output_2"].str.len().mean()),
    }
    return {**result, **length_controlled(frame, gamed, difficulty)}


def length_controlled(frame: pd.DataFrame, gamed: str | Path | None, difficulty: str | Path | None) -> dict[str, Any]:
    """`length_controlled_winrate` (percent) with the chosen C, or null and the reason.

    `lc_c` is null for the baseline against itself, where nothing is fitted. The package's own lc_standard_error is not
    a sampling error and is not reported.
    """
    order = {digest: i for i, digest in enumerate(INSTRUCTION_HASHES.read_text(encoding="utf-8").split())}
    place = [order.get(hashlib.sha256(text.encode()).hexdigest()[:16]) for text in frame["instruction"]]
    foreign = sum(i is None for i in place)
    baselines = sorted(set(frame["generator_1"]))
    reason = None
    if foreign:
        reason = f"{foreign} of {len(frame)} instructions are not among AlpacaEval 2's 805, for which it is defined"
    elif len(set(place)) < len(place):
        reason = "an instruction occurs more than once"
    elif baselines != [LC_BASELINE]:
        reason = f"its constants belong to the baseline {LC_BASELINE}, not {', '.join(baselines)}"
    elif gamed is None:
        reason = "df_gamed.csv was not given"
    if reason is not None:
        return {"length_controlled_winrate": None, "lc_c": None, "lc_reason": reason}
    frame = frame.set_index(pd.Index([int(i) for i in place if i is not None])).sort_index()
    value, chosen = _call_package(frame, Path(str(gamed)), difficulty)
    return {"length_controlled_winrate": value, "lc_c": chosen, "lc_reason": None}


def _call_package(frame: pd.DataFrame, gamed: Path, difficulty: str | Path | None) -> tuple[float | None, float | None]:
    """LC by the package, whose row index is its difficulty index; nothing is downloaded and nothing is saved."""
    import sklearn

    with _quiet_import():
        from alpaca_eval.metrics import glm_winrate
    constants = pd.read_csv(gamed)
    if difficulty is not None:
        known = pd.read_csv(difficulty, index_col="index")["instruction_difficulty"]
        constants["instruction_difficulty"] = constants["index"].map(known)
    if constants["instruction_difficulty"].isna().any():
        raise UserError(f"{difficulty or gamed}: an instruction's difficulty is missing; all 805 are needed")
    fit = glm_winrate.fit_LogisticRegressionCV
    chosen: list[float] = []

    def fit_and_note(*args: Any, **kwargs: Any) -> Any:
        model = fit(*args, **kwargs)
        chosen.append(float(model.C_[0]))
        return model

    download = glm_winrate.hf_hub_download
    with tempfile.TemporaryDirectory(prefix="marginbench-lc-") as folder, sklearn.config_context():
        file = Path(folder, "df_gamed.csv")
        constants.to_csv(file, index=False)
        try:
            glm_winrate.hf_hub_download = lambda **_: str(file)
            glm_winrate.fit_LogisticRegressionCV = fit_and_note
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                out = glm_winrate.get_length_controlled_winrate(
                    frame, save_weights_dir=None, is_add_glm_preference_inplace=False, is_warn_extreme_changes=False
                )
        finally:
            glm_winrate.hf_hub_download, glm_winrate.fit_LogisticRegressionCV = download, fit
    return _number(out["length_controlled_winrate"]), chosen[0] if chosen else None


@contextlib.contextmanager
def _quiet_import() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _number(value: Any) -> float | None:
    return None if value is None or math.isnan(value) else float(value)
