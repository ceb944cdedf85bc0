"""MT-Bench's official files (FastChat's `llm_judge`): answers and single-answer judgments, read and written.

Both are JSONL, plain or .gz. Identifiers of questions are numbers in these files and texts everywhere else. Times are
left out (`tstamp` is 0), so that equal runs write equal files; when a judge was asked stands in the ledger.
"""

import gzip
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from marginbench.errors import UserError
from marginbench.identity import content_id
from marginbench.judging.calls import Call
from marginbench.judging.rating_text import HIGHEST, LOWEST

NO_RATING = -1
"""The score of a judgment in which no rating was found; left out of every mean."""

NO_REPLY = "$ERROR$"
"""What stands in the place of a text that never came."""

PROMPT_NAMES = {
    "turn_1": "single-v1",
    "turn_1_reference": "single-math-v1",
    "turn_2": "single-v1-multi-turn",
    "turn_2_reference": "single-math-v1-multi-turn",
}
"""Official names of the parts of a judge's template."""


class Answer(TypedDict):
    """One model's answers to the turns of one question."""

    question_id: str
    answer_id: str
    turns: list[str]


def read_records(path: str | Path, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a JSONL file, each after the place where it stands: "FILE, line 3". Empty lines are passed over.

    Raises UserError for a file that is missing, damaged, not UTF-8 or empty, a line that is not JSON or no object, and
    an object that lacks one of `keys`.
    """
    try:
        raw = Path(path).read_bytes()
        raw = gzip.decompress(raw) if str(path).endswith(".gz") else raw
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: the gzip file is damaged or cut short ({error}); get it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a JSONL file, plain or .gz") from error
    if not raw.strip():
        raise UserError(f"{path}: the file is empty")
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8; save the file as UTF-8") from error
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not valid JSON ({error or 'nested too deeply'}); one object a line") from error
        if not isinstance(record, dict):
            raise UserError(f"{where}: holds a {type(record).__name__}, not an object; one object a line")
        missing = [key for key in keys if key not in record]
        if missing:
            raise UserError(f"{where}: the key `{missing[0]}` is missing; needed are {', '.join(keys)}")
        if "question_id" in keys and not _is_id(record["question_id"]):
            raise UserError(f"{where}: `question_id` must be a number or a text, not {record['question_id']!r}")
        yield where, record


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def answer_turns(record: Mapping[str, Any], where: str) -> list[str]:
    """The texts of all turns of a `model_answer` record (its first choice). Raises UserError where there are none."""
    try:
        turns = record["choices"][0]["turns"]
    except (LookupError, TypeError) as error:
        raise UserError(f"{where}: `choices[0].turns` is missing; is this a file of model answers?") from error
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, str) for turn in turns):
        raise UserError(f"{where}: `choices[0].turns` must be a list of texts")
    return turns


def read_answers(path: str | Path) -> tuple[str, list[Answer]]:
    """A model's id and its answers. Raises UserError when the file holds two models or a question twice."""
    models: dict[str, str] = {}
    answers: dict[str, Answer] = {}
    for where, record in read_records(path, ("question_id", "answer_id", "model_id", "choices")):
        models.setdefault(str(record["model_id"]), where)
        question_id = str(record["question_id"])
        if question_id in answers:
            raise UserError(f"{where}: question {question_id} is answered twice; remove one")
        answers[question_id] = Answer(
            question_id=question_id, answer_id=str(record["answer_id"]), turns=answer_turns(record, where)
        )
    if len(models) > 1:
        raise UserError(f"{list(models.values())[1]}: answers of a second model ({', '.join(models)}); one file each")
    return next(iter(models)), list(answers.values())


def answers_of(rows: Sequence[Mapping[str, Any]]) -> list[Answer]:
    """Our answer records (one for each turn) as answers, in the order of their first turns."""
    turns: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        turns.setdefault(row["question_id"], []).append(row)
    answers = []
    for question_id, own in turns.items():
        own = sorted(own, key=lambda row: row["turn"])
        ids = [row["answer_id"] for row in own]
        answers.append(
            Answer(question_id=question_id, answer_id=content_id(*ids), turns=[str(row["text"]) for row in own])
        )
    return answers


def answer_records(answers: Sequence[Answer], model: str) -> list[dict[str, Any]]:
    """Records of an official `model_answer/MODEL.jsonl`."""
    return [
        {
            "question_id": _official_id(answer["question_id"]),
            "answer_id": answer["answer_id"],
            "model_id": model,
            "choices": [{"index": 0, "turns": list(answer["turns"])}],
            "tstamp": 0.0,
        }
        for answer in answers
    ]


def _official_id(question_id: str) -> int | str:
    return int(question_id) if question_id.isdecimal() and str(int(question_id)) == question_id else question_id


def read_judgments(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Records of an official single-answer judgment file, each after the place where it stands, checked.

    Raises UserError as `read_records`, and for a model, judge, turn or score that cannot be.
    """
    for where, record in read_records(path, ("question_id", "model", "turn", "score")):
        if not isinstance(record["model"], str) or not record["model"]:
            raise UserError(f"{where}: `model` must be a name, not {record['model']!r}")
        judge = record.get("judge", "")
        if not isinstance(judge, str) and not (isinstance(judge, list) and judge and isinstance(judge[0], str)):
            raise UserError(f"{where}: `judge` must be [name, prompt], not {judge!r}")
        if isinstance(record["turn"], bool) or record["turn"] not in (1, 2):
            raise UserError(f"{where}: `turn` must be 1 or 2, not {record['turn']!r}")
        score = record["score"]
        number = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
        if not number or not (score == NO_RATING or LOWEST <= score <= HIGHEST):
            raise UserError(f"{where}: `score` must be a rating from 1 to 10, or -1 where there is none, not {score!r}")
        yield where, record


def judge_name(record: Mapping[str, Any]) -> str:
    """The judge of a judgment record; empty where it names none."""
    judge = record.get("judge", "")
    return judge if isinstance(judge, str) else judge[0]


def judgment_records(
    calls: Sequence[Call], rows: Sequence[Mapping[str, Any]], parts: Sequence[str], model: str
) -> list[dict[str, Any]]:
    """Records of an official `model_judgment/JUDGE_single.jsonl`, one for each call, in their order.

    Args:
        calls: what was asked, about one model.
        rows: judgment rows of these calls, in any order: `rating` (None is written as -1), `raw`, `judge`.
        parts: the template part of each call (`mt_bench.part`); written under its official name.
        model: the model's id.

    Raises UserError when a call has no judgment.
    """
    by_call = {_place(row): row for row in rows}
    records = []
    for call, part in zip(calls, parts, strict=True):
        row = by_call.get(_place(call))
        if row is None:
            raise UserError(f"question {call['question_id']}, turn {call['turn']}: no judgment; judge again")
        rating = NO_RATING if row["rating"] is None else float(row["rating"])
        records.append(
            {
                "question_id": _official_id(call["question_id"]),
                "model": model,
                "judge": [row["judge"], PROMPT_NAMES[part]],
                "user_prompt": call["messages"][-1]["content"],
                "judgment": NO_REPLY if row["raw"] is None else row["raw"],
                "score": int(rating) if rating == int(rating) else rating,
                "turn": call["turn"],
                "tstamp": 0.0,
            }
        )
    return records


def judgment_rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Official judgment records as judgment rows, with the model's id for the answer's, for `judge_health`."""
    return [
        {
            "question_id": str(record["question_id"]),
            "turn": record["turn"],
            "answer_ids": [record["model"]],
            "judge": judge_name(record),
            "order": "single",
            "switched": False,
            "rating": None if record["score"] == NO_RATING else float(record["score"]),
            "reason": "no rating in the file" if record["score"] == NO_RATING else None,
            "raw": record.get("judgment"),
        }
        for record in records
    ]


def _place(row: Mapping[str, Any]) -> tuple[str, int, tuple[str, ...]]:
    return str(row["question_id"]), row["turn"], tuple(row["answer_ids"])
