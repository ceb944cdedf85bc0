"""MT-Bench: two-turn questions, and the calls in which a judge grades each turn of an answer by itself.

Zheng et al. 2023 (arXiv 2306.05685), as in FastChat's `llm_judge`: questions of math, reasoning and coding are graded
beside a reference answer; in turn 2 the judge sees the whole conversation and grades its second answer. The 80
questions and the 30 reference answers are read from files; this repository holds neither.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from marginbench.benchmarks.mt_bench_files import Answer, answer_turns, read_records
from marginbench.errors import UserError
from marginbench.judging.calls import Call
from marginbench.judging.prompts import Messages

QUESTIONS = 80
TURNS = 2

WITH_REFERENCE = ("math", "reasoning", "coding")
"""Categories that are graded beside a reference answer."""

TEMPERATURES = {
    "writing": 0.7,
    "roleplay": 0.7,
    "extraction": 0.0,
    "math": 0.0,
    "coding": 0.0,
    "reasoning": 0.0,
    "stem": 0.1,
    "humanities": 0.1,
}
"""Sampling temperature of the answers to each category."""

Fill = Callable[[Mapping[str, str], str], Messages]
"""Fields and the name of a template part -> the messages of one call."""


class Question(TypedDict):
    """One question of an official `question.jsonl`."""

    question_id: str
    category: str
    turns: list[str]
    """The user's two turns."""
    reference: list[str]
    """Reference answers that stand in the question file itself; empty for most. FastChat's judge does not read them."""


def read_questions(path: str | Path, expected: int | None = QUESTIONS) -> list[Question]:
    """Questions of an official file (JSONL, plain or .gz), in its order.

    `expected` is how many there must be; None takes any number. Raises UserError with file and line for a question
    that is malformed, has not two turns or occurs twice, and for another number of questions.
    """
    questions: dict[str, Question] = {}
    for where, record in read_records(path, ("question_id", "category", "turns")):
        question_id, turns, reference = str(record["question_id"]), record["turns"], record.get("reference") or []
        if not _texts(turns) or len(turns) != TURNS or not all(turn.strip() for turn in turns):
            raise UserError(f"{where}: `turns` of question {question_id} must be a list of {TURNS} texts")
        if not isinstance(record["category"], str) or not _texts(reference):
            raise UserError(f"{where}: question {question_id}: `category` is a text, `reference` a list of texts")
        if question_id in questions:
            raise UserError(f"{where}: question {question_id} is there twice; remove one")
        questions[question_id] = Question(
            question_id=question_id, category=record["category"], turns=turns, reference=reference
        )
    if expected is not None and len(questions) != expected:
        raise UserError(f"{path}: holds {len(questions)} questions, MT-Bench has {expected}; get the whole file")
    return list(questions.values())


def read_references(path: str | Path) -> dict[str, list[str]]:
    """Reference answers by question, from a file in the format of `model_answer` (FastChat's `reference_answer`)."""
    references = {}
    for where, record in read_records(path, ("question_id", "choices")):
        question_id, turns = str(record["question_id"]), answer_turns(record, where)
        if len(turns) != TURNS:
            raise UserError(f"{where}: question {question_id} has {len(turns)} reference answers, not {TURNS}")
        if question_id in references:
            raise UserError(f"{where}: question {question_id} is there twice; remove one")
        references[question_id] = turns
    return references


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def turn_messages(question: Question, answers: Sequence[str]) -> Messages:
    """What a model is given to answer the next turn: the user's turns so far, with the model's answers in between.

    No answers give turn 1, the first answer gives turn 2. Raises ValueError when every turn is answered.
    """
    if len(answers) >= len(question["turns"]):
        raise ValueError(f"question {question['question_id']}: all {len(question['turns'])} turns are answered")
    messages: Messages = []
    for turn, answer in zip(question["turns"], answers, strict=False):
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": question["turns"][len(answers)]}]


def part(question: Question, turn: int) -> str:
    """The part of a judge's template that a turn (counted from 1) is graded with."""
    return f"turn_{turn}_reference" if question["category"] in WITH_REFERENCE else f"turn_{turn}"


def calls(
    questions: Sequence[Question],
    answers: Sequence[Answer],
    fill: Fill,
    references: Mapping[str, Sequence[str]] | None = None,
) -> list[Call]:
    """Two calls for each question, turn 1 and turn 2, in the order of the questions.

    Args:
        questions: what was asked.
        answers: one model's answers, one for each question and no others, in any order.
        fill: makes the messages. Its fields are `question`, `answer` (and `reference`) in turn 1, `question_1`,
            `answer_1`, `question_2`, `answer_2` (and `reference_1`, `reference_2`) in turn 2; its part is that of `part`.
        references: two reference answers by question_id, for questions of `WITH_REFERENCE`.

    Raises UserError when answers and questions do not match, and when a reference answer is missing.
    """
    count = Counter(answer["question_id"] for answer in answers)
    repeated = [question_id for question_id, n in count.items() if n > 1]
    if repeated:
        raise UserError(f"answers: question {repeated[0]} is answered {count[repeated[0]]} times; keep one answer")
    unmatched = sorted(set(count) ^ {question["question_id"] for question in questions})
    if unmatched:
        raise UserError(
            f"answers: {len(unmatched)} questions and answers do not match, first question {unmatched[0]}; generate the "
            "answers to these questions"
        )
    by_question = {answer["question_id"]: answer for answer in answers}
    return [
        call
        for question in questions
        for call in _two_calls(question, by_question[question["question_id"]], fill, references or {})
    ]


def _two_calls(
    question: Question, answer: Answer, fill: Fill, references: Mapping[str, Sequence[str]]
) -> tuple[Call, Call]:
    question_id, asked, answered = question["question_id"], question["turns"], answer["turns"]
    if len(answered) != TURNS:
        raise UserError(f"answers: question {question_id} has {len(answered)} answered turns, not {TURNS}")
    first = {"question": asked[0], "answer": answered[0]}
    second = {"question_1": asked[0], "answer_1": answered[0], "question_2": asked[1], "answer_2": answered[1]}
    if question["category"] in WITH_REFERENCE:
        known = references.get(question_id, ())
        if len(known) != TURNS:
            raise UserError(
                f"question {question_id} ({question['category']}) is graded beside {TURNS} reference answers, "
                f"{len(known)} are known; give the file of reference answers"
            )
        first["reference"] = known[0]
        second |= {"reference_1": known[0], "reference_2": known[1]}
    one, two = (
        Call(
            question_id=question_id,
            turn=turn,
            order="single",
            question="\n\n".join(asked[:turn]),
            answers=list(answered[:turn]),
            answer_ids=[answer["answer_id"]],
            messages=fill(fields, part(question, turn)),
        )
        for turn, fields in ((1, first), (2, second))
    )
    return one, two
