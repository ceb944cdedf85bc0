"""Judge health: what a judge's verdicts say about the judge itself, one row for each judge.

Judgments are rows as judges leave them: `question_id`, `turn`, `answer_ids`, `order` ("single" for a graded answer),
`switched` (the method's answer was shown first), `reason`, and the verdict: `preference` in [1, 2] (2: the method
wins; an old 0 is a draw), `label` ("A>>B" ..., A shown first) or `rating` (1 to 10). A verdict that could not be read
is None. Pairs of identical answers (`reason` "identical") are never asked and count nowhere.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from marginbench.statistics.length_slope import length_slope

COLUMNS = {
    "judge": "Judge.",
    "n": "Judgments that were asked for.",
    "null_rate": "Share of judgments without a readable verdict.",
    "tie_rate": "Share of verdicts that favour neither answer. Graded answers: none.",
    "p_first": "Mean probability that the answer shown first wins. A half for a judge without position bias that saw "
    "each pair both ways.",
    "position_gap": "Win rate of the method where it is shown second minus where it is shown first, in percentage "
    "points. Over different questions where each pair was judged one way only.",
    "n_swapped": "Pairs with a verdict in both orders.",
    "swap_consistency": "Share of these on which both verdicts name the same winner (or both a tie).",
    "length_coefficient": "Logistic slope of the method's win on tanh of its answer's length beyond the baseline's, in "
    "standard deviations of that difference. Above 0: longer answers win; quality and length are not told apart.",
    "length_se": "Standard error of the slope, questions drawn again.",
    "second_judge": "Judge that this one is compared with.",
    "n_common": "Pairs (or graded answers) with a verdict by both judges.",
    "agreement": "Share of these on which both name the same winner, or give the same rating.",
    "kappa": "Cohen's kappa of these: agreement beyond chance, 1 at most. For ratings (to the nearest half) weighted "
    "by the squared difference.",
    "n_again": "Verdicts from judging the same request again.",
    "changed": "Share of these that differ from the first verdict: another winner, or another rating.",
    "noise_sd": "Standard deviation between judgments of the same request, of the preference (from 1 to 2) or the "
    "rating (from 1 to 10).",
}
"""What each column of the table means, in its order. A missing value could not be measured."""

_COUNTS = ("n", "n_swapped", "n_common", "n_again")
_TEXTS = ("judge", "second_judge")
_PAIR = ["question_id", "turn", "answer_ids"]
_REQUEST = [*_PAIR, "switched"]

Rows = Sequence[Mapping[str, Any]]


def judge_health(
    rows_by_judge: Mapping[str, Rows],
    lengths: Mapping[str, int] | None = None,
    again: Mapping[str, Rows] | None = None,
) -> pd.DataFrame:
    """One row for each judge, columns as `COLUMNS`.

    Args:
        rows_by_judge: judgments by judge, each request once. The first judge is the one that the others are compared
            with, and is itself compared with the second.
        lengths: characters of every answer by its id; without it there is no length coefficient.
        again: judgments of requests that were judged before, by judge.

    Raises ValueError for a request that is judged twice, a judge that both grades and compares, an answer without a
    length, and a judgment again of what was not judged before.
    """
    frames = {judge: _verdicts(rows, judge) for judge, rows in rows_by_judge.items()}
    repeats = {judge: _verdicts(rows, judge, repeated=True) for judge, rows in (again or {}).items()}
    unknown = set(repeats) - set(frames)
    if unknown:
        raise ValueError(f"judged again by {sorted(unknown)[0]}, of whom there are no first judgments")
    names = list(frames)
    rows = []
    for judge, frame in frames.items():
        graded = bool(frame["graded"].any())
        row = {"judge": judge, "n": len(frame), "null_rate": _mean(frame["value"].isna())}
        read = frame.dropna(subset="value")
        if not graded:
            row |= _position(read)
            if lengths is not None:
                row |= _length(read, lengths, judge)
        other = names[0] if judge != names[0] else next(iter(names[1:]), None)
        if other is not None:
            row |= {"second_judge": other, **_agreement(frame, frames[other])}
        if judge in repeats:
            row |= _noise(read, frame, repeats[judge], judge)
        rows.append(row)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    kinds = {name: "Int64" if name in _COUNTS else "string" if name in _TEXTS else "Float64" for name in COLUMNS}
    return table.astype(kinds)


def _verdicts(rows: Rows, judge: str, repeated: bool = False) -> pd.DataFrame:
    """Judgments as a frame: what was asked, and `value`: P(method wins), or the rating; missing where none was read."""
    frame = pd.DataFrame(
        [
            {
                "question_id": str(row["question_id"]),
                "turn": row.get("turn", 1),
                "answer_ids": tuple(row["answer_ids"]),
                "switched": bool(row.get("switched")),
                "graded": row.get("order") == "single",
                "value": _value(row),
            }
            for row in rows
            if row.get("reason") != "identical"
        ],
        columns=[*_REQUEST, "graded", "value"],
    ).astype({"graded": bool, "switched": bool, "value": float})
    if frame["graded"].nunique() > 1:
        raise ValueError(f"judge {judge} both grades answers and compares pairs; give the two apart")
    twice = frame.duplicated(_REQUEST)
    if twice.any() and not repeated:
        raise ValueError(f"judge {judge}: {frame.loc[twice, _REQUEST].iloc[0].to_dict()} is judged twice; see `again`")
    return frame


def _value(row: Mapping[str, Any]) -> float:
    if row.get("rating") is not None:
        return float(row["rating"])
    if row.get("preference") is not None:
        preference = float(row["preference"])
        return 0.5 if preference == 0 else preference - 1.0
    label = row.get("label")
    if label is None:
        return math.nan
    first = {"A": 1.0, "B": 0.0}[label[0]] if ">" in label else 0.5
    return first if row.get("switched") else 1.0 - first


def _mean(values: pd.Series) -> float | None:
    return float(values.mean()) if len(values) else None


def _winner(values: pd.Series) -> pd.Series:
    """-1, 0, 1: the baseline wins, tie, the method wins."""
    return np.sign(values - 0.5).astype(int)


def _position(read: pd.DataFrame) -> dict[str, Any]:
    value, switched = read["value"], read["switched"]
    both = read.pivot(index=_PAIR, columns="switched", values="value").reindex(columns=[False, True]).dropna()
    gap = None if switched.nunique() < 2 else 100.0 * float(value[~switched].mean() - value[switched].mean())
    return {
        "tie_rate": _mean(value == 0.5),
        "p_first": _mean(value.where(switched, 1.0 - value)),
        "position_gap": gap,
        "n_swapped": len(both),
        "swap_consistency": _mean(_winner(both[False]) == _winner(both[True])),
    }


def _length(read: pd.DataFrame, lengths: Mapping[str, int], judge: str) -> dict[str, Any]:
    unknown = [answer for ids in read["answer_ids"] for answer in ids if answer not in lengths]
    if unknown:
        raise ValueError(f"judge {judge}: the length of answer {unknown[0]} is not known")
    longer = [lengths[method] - lengths[baseline] for baseline, method in read["answer_ids"]]
    slope, se = length_slope(longer, read["value"].to_list(), read["question_id"].to_list())
    return {"length_coefficient": slope, "length_se": se}


def _agreement(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Any]:
    """Agreement and kappa of two judges' verdicts on what both judged.

    A pair that was judged both ways has one verdict, its mean preference, if both verdicts were read.
    """
    sides = []
    for frame in (ours, theirs):
        pairs = frame.groupby(_PAIR)["value"].agg(["mean", "count", "size"])
        sides.append(pairs.loc[pairs["count"] == pairs["size"], "mean"])
    common = pd.concat(sides, axis=1, join="inner", keys=["ours", "theirs"])
    if common.empty or bool(ours["graded"].any()) != bool(theirs["graded"].any()):
        return {"n_common": 0}
    if ours["graded"].any():
        grid, same = (common * 2).round().astype(int), _mean(common["ours"] == common["theirs"])
        kappa = _kappa(grid["ours"], grid["theirs"], list(range(2, 21)), "quadratic")
    else:
        named = common.apply(_winner)
        same, kappa = _mean(named["ours"] == named["theirs"]), _kappa(named["ours"], named["theirs"], [-1, 0, 1], None)
    return {"n_common": len(common), "agreement": same, "kappa": kappa}


def _kappa(ours: pd.Series, theirs: pd.Series, labels: list[int], weights: str | None) -> float | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two judges that never vary: 0 / 0, told as a missing value
        kappa = float(cohen_kappa_score(ours, theirs, labels=labels, weights=weights))
    return None if math.isnan(kappa) else kappa


def _noise(read: pd.DataFrame, asked: pd.DataFrame, again: pd.DataFrame, judge: str) -> dict[str, Any]:
    known = asked.set_index(_REQUEST).index
    for request in again.set_index(_REQUEST).index:
        if request not in known:
            raise ValueError(f"judge {judge}: {request} is judged again but was not judged before")
    first = read.set_index(_REQUEST)["value"]
    later = again.dropna(subset="value").set_index(_REQUEST)["value"]
    later = later[later.index.isin(first.index)]
    if later.empty:
        return {"n_again": 0}
    before = pd.Series(first.loc[later.index].to_numpy(), index=later.index)
    differs = later != before if asked["graded"].any() else _winner(later) != _winner(before)
    groups = pd.concat([first[first.index.isin(later.index)], later]).groupby(level=_REQUEST)
    variance = float((groups.var(ddof=1) * (groups.size() - 1)).sum() / (groups.size() - 1).sum())
    return {"n_again": len(later), "changed": _mean(differs), "noise_sd": math.sqrt(variance)}
