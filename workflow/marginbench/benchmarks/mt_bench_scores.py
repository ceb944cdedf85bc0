"""MT-Bench's numbers: mean ratings of single-answer judgments, with an error that counts a question once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marginbench.benchmarks.clustered import clustered_mean
from marginbench.benchmarks.mt_bench_files import NO_RATING, judge_name
from marginbench.errors import UserError

DUPLICATES = ("refuse", "first", "last", "keep")
"""What to do where a question, model and turn is judged more than once. FastChat keeps all of them."""

Placed = tuple[str, Mapping[str, Any]]


def scores(judgments: Iterable[Placed], duplicates: str = "refuse") -> dict[str, dict[str, Any]]:
    """Mean ratings by model, models in alphabetical order.

    Args:
        judgments: records of official files, each after the place where it stands (`mt_bench_files.read_judgments`).
        duplicates: one of `DUPLICATES`. Which judgment stays is decided before those without a rating are dropped.

    Returns:
        For each model `turn_1` and `turn_2` (mean ratings of the turn, 1 to 10), `average` (the mean of all its
        ratings, not of the two means), `clustered_se` (standard error of `average`; the judgments of a question are
        one unit), `n` (ratings) and `n_dropped` (judgments without one). A mean over nothing is None.

    Raises UserError for duplicates that are refused, and for judgments by more than one judge.
    """
    by_place: dict[tuple[str, str, int], list[Placed]] = {}
    judges: dict[str, str] = {}
    for where, record in judgments:
        judges.setdefault(judge_name(record), where)
        place = (record["model"], str(record["question_id"]), record["turn"])
        by_place.setdefault(place, []).append((where, record))
    if len(judges) > 1:
        names, where = ", ".join(name or "(none named)" for name in judges), list(judges.values())[1]
        raise UserError(f"{where}: a second judge ({names}); ratings of two judges don't compare, score them apart")
    repeated = [place for place, found in by_place.items() if len(found) > 1]
    if repeated and duplicates == "refuse":
        model, question_id, turn = repeated[0]
        places = " and ".join(where for where, _ in by_place[repeated[0]][:2])
        raise UserError(
            f"{len(repeated)} judgments are there more than once, first question {question_id}, turn {turn} of {model} "
            f"({places}); choose with --duplicates first, last or keep"
        )
    kept = {"first": slice(0, 1), "last": slice(-1, None)}.get(duplicates, slice(None))
    by_model: dict[str, list[Mapping[str, Any]]] = {}
    for (model, _, _), found in by_place.items():
        by_model.setdefault(model, []).extend(record for _, record in found[kept])
    return {model: _score(by_model[model]) for model in sorted(by_model)}


def score_run(judgments: Sequence[Placed]) -> dict[str, Any]:
    """Ratings of the one model that a run's judgments are about, and its questions one by one.

    `items` holds, under the metric's name, the mean rating of each question, weighted by its number of ratings.
    """
    (found,) = scores(judgments).values()
    ratings: dict[str, list[float]] = {}
    for _, record in judgments:
        if record["score"] != NO_RATING:
            ratings.setdefault(str(record["question_id"]), []).append(float(record["score"]))
    items = [{"item": name, "value": sum(own) / len(own), "weight": len(own)} for name, own in sorted(ratings.items())]
    return {**found, "n_questions": len(ratings), "items": {"mt_bench": items}}


def _score(records: list[Mapping[str, Any]]) -> dict[str, Any]:
    rated = [record for record in records if record["score"] != NO_RATING]
    average, se = _mean(rated)
    return {
        "turn_1": _mean([record for record in rated if record["turn"] == 1])[0],
        "turn_2": _mean([record for record in rated if record["turn"] == 2])[0],
        "average": average,
        "clustered_se": se,
        "n": len(rated),
        "n_dropped": len(records) - len(rated),
    }


def _mean(records: list[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    if not records:
        return None, None
    return clustered_mean([record["score"] for record in records], [str(record["question_id"]) for record in records])
