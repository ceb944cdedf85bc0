"""Arena-Hard's calls to a judge, and our rows in the official formats: questions, judgments and answers.

Each prompt is judged twice: in game 1 the baseline is A, in game 2 the model. Source: lmarena/arena-hard-auto at
d99b139 (v0.1) and 196f6b82 (v2.0).
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from marginbench.benchmarks.arena_formats import V01_CATEGORY, Game, answer_facts, read_rows
from marginbench.benchmarks.arena_markdown import markdown_counts
from marginbench.benchmarks.arena_scores import Version
from marginbench.errors import UserError
from marginbench.judging.calls import Call, Order
from marginbench.judging.prompts import Messages

ORDERS: tuple[Order, Order] = ("baseline_first", "method_first")
"""Of game 1 and game 2."""

Fill = Callable[[Mapping[str, str], str], Messages]


def read_questions(path: str | Path) -> list[dict[str, Any]]:
    """Rows question_id, category, question of an official question.jsonl of either layout."""
    questions = []
    for place, row in read_rows(Path(path)):
        try:
            text = row["prompt"] if "prompt" in row else row["turns"][0]["content"]
            identifier = row["uid"] if "uid" in row else row["question_id"]
        except (KeyError, IndexError, TypeError) as error:
            raise UserError(f"{place}: not a question of Arena-Hard ({type(error).__name__} {error})") from error
        questions.append(
            {"question_id": str(identifier), "category": str(row.get("category", V01_CATEGORY)), "question": str(text)}
        )
    return questions


def calls(
    questions: Sequence[Mapping[str, Any]],
    baseline_answers: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    fill: Fill,
    categories: Mapping[str, str] | None = None,
) -> list[Call]:
    """Two calls for each question, game 1 and game 2, in the order of the questions.

    Args:
        questions: rows of `read_questions`.
        baseline_answers: rows question_id, answer_id, text; one for each question. In v2.0 the categories have
            different baselines: give the answers of both.
        answers: the model's, likewise.
        fill: judge prompt from the fields question, answer_a, answer_b and the template's part.
        categories: the categories that are judged, each with the template's part for it; all, with `prompt`, if None.

    Raises UserError when one side lacks an answer or holds two.
    """
    theirs, ours = _by_question("the baseline", baseline_answers), _by_question("the model", answers)
    made: list[Call] = []
    for row in questions:
        if categories is not None and row["category"] not in categories:
            continue
        part = "prompt" if categories is None else categories[row["category"]]
        question = row["question_id"]
        for who, side in (("the baseline", theirs), ("the model", ours)):
            if question not in side:
                raise UserError(f"Arena-Hard: {who} has no answer to question {question}; generate its answers again")
        pair = [theirs[question], ours[question]]
        for order in ORDERS:
            shown = pair if order == "baseline_first" else pair[::-1]
            texts = {"answer_a": str(shown[0]["text"]), "answer_b": str(shown[1]["text"])}
            made.append(
                Call(
                    question_id=question,
                    turn=1,
                    order=order,
                    question=row["question"],
                    answers=list(texts.values()),
                    answer_ids=[str(answer["answer_id"]) for answer in pair],
                    messages=fill({"question": row["question"], **texts}, part),
                )
            )
    return made


def _by_question(who: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["question_id"] in found:
            raise UserError(f"Arena-Hard: {who} has two answers to question {row['question_id']}; one is judged")
        found[row["question_id"]] = row
    return found


def row_games(
    rows: Sequence[Mapping[str, Any]], model: str, baseline: str, categories: Mapping[str, str] | None = None
) -> list[Game]:
    """Our judgment rows as the games that `arena_hard.score_games` takes; `categories` is question -> category."""
    return [
        Game(
            model,
            row["question_id"],
            (categories or {}).get(row["question_id"], V01_CATEGORY),
            row["judge"],
            baseline,
            1 + ORDERS.index(row["order"]),
            row["label"],
        )
        for row in rows
    ]


def judgments_file(
    rows: Sequence[Mapping[str, Any]],
    version: Version,
    model: str,
    baseline: str,
    categories: Mapping[str, str] | None = None,
    prompts: Sequence[Call] = (),
) -> list[dict[str, Any]]:
    """Rows of an official judgment file, one a question, in the order in which the questions first occur.

    A game that was not answered has the score null (v0.1) or is null itself (v2.0). `prompts` are the calls that were
    made; where they are given, what the judge read is written too. Raises UserError for a question that was not judged
    in both orders exactly once.
    """
    by_question: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        games = by_question.setdefault(row["question_id"], {})
        if row["order"] in games or row["order"] not in ORDERS:
            raise UserError(f"question {row['question_id']}: judged more than once as {row['order']}; judge again")
        games[row["order"]] = row
    asked = {(call["question_id"], call["order"]): call["messages"] for call in prompts}
    official = []
    for question, games in by_question.items():
        if len(games) < len(ORDERS):
            raise UserError(f"question {question}: judged in one order only; judge again")
        pair = [(games[order], asked.get((question, order), [])) for order in ORDERS]
        judge = pair[0][0]["judge"]
        if version == "v0.1":
            written = [
                {
                    "user_prompt": next((m["content"] for m in messages if m["role"] == "user"), ""),
                    "judgment": row["raw"] or "",
                    "score": row["label"],
                }
                for row, messages in pair
            ]
            official.append({"question_id": question, "model": model, "judge": judge, "games": written})
        else:
            both = [
                None
                if row["raw"] is None and row["label"] is None
                else {"score": row["label"], "judgment": {"answer": row["raw"] or ""}, "prompt": list(messages)}
                for row, messages in pair
            ]
            category = (categories or {}).get(question, V01_CATEGORY)
            official.append(
                {
                    "uid": question,
                    "category": category,
                    "judge": judge,
                    "model": model,
                    "baseline": baseline,
                    "games": both,
                }
            )
    return official


def official_answers(
    rows: Sequence[Mapping[str, Any]],
    version: Version,
    model: str,
    count_tokens: Callable[[str], int] | None = None,
) -> list[dict[str, Any]]:
    """Rows of an official answer file from rows question_id, answer_id, prompt_text, text.

    With `count_tokens` (`arena_markdown.token_counter`) they carry the counts that upstream's style control reads. The
    time stamp is 0, so that equal runs write equal files.
    """
    official = []
    for row in rows:
        text = row["text"]
        facts = None if count_tokens is None else {"token_len": count_tokens(text), **markdown_counts(text)}
        if version == "v0.1":
            turn = {"content": text, **({} if facts is None else {"token_len": facts["token_len"]})}
            answer = {
                "question_id": row["question_id"],
                "answer_id": row["answer_id"],
                "model_id": model,
                "choices": [{"index": 0, "turns": [turn]}],
                "tstamp": 0.0,
                **({} if facts is None else {"conv_metadata": facts}),
            }
        else:
            answer = {
                "uid": row["question_id"],
                "ans_id": row["answer_id"],
                "model": model,
                "messages": [
                    {"role": "user", "content": row["prompt_text"]},
                    {"role": "assistant", "content": {"answer": text}},
                ],
                "tstamp": 0.0,
                **({} if facts is None else {"metadata": facts}),
            }
        official.append(answer)
    return official


def import_answers(path: str | Path) -> list[dict[str, str]]:
    """Rows question_id, answer_id, model, text of an official answer file of either layout."""
    rows = []
    for place, row in read_rows(Path(path)):
        keys = ("uid", "ans_id", "model") if "uid" in row else ("question_id", "answer_id", "model_id")
        missing = [key for key in keys if key not in row]
        if missing:
            raise UserError(f"{place}: the key `{missing[0]}` is missing; is this an Arena-Hard answer file?")
        names = dict(zip(("question_id", "answer_id", "model"), (str(row[key]) for key in keys), strict=True))
        rows.append({**names, "text": answer_facts(place, row)["text"]})
    return rows
