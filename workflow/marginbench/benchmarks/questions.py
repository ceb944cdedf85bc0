"""The questions of a benchmark in one shape, whatever file they come from: turns, category, references, baseline."""

from pathlib import Path
from typing import Any, TypedDict

from marginbench.data.given_files import given_path, read_records
from marginbench.errors import UserError
from marginbench.identity import content_id
from marginbench.study import AlpacaEval, ArenaHard, Benchmark, MtBench

TWO_TURNS = 2


class Question(TypedDict):
    """A row of `questions/{bench}.jsonl`."""

    question_id: str
    category: str
    turns: list[str]
    references: list[str] | None
    """The judge's reference answer to each turn, where the benchmark has them."""
    baseline: str | None
    """The fixed baseline's answer; null where the SFT start's answers are the baseline."""
    baseline_id: str | None


def read_questions(benchmark: Benchmark) -> list[Question]:
    """The questions of a benchmark that brings its own, in the order of its file.

    Raises UserError with one line that names file and row when the file is not one of this benchmark.
    """
    if isinstance(benchmark, AlpacaEval):
        questions = _alpaca_eval(benchmark)
    elif isinstance(benchmark, ArenaHard):
        questions = _arena_hard(benchmark)
    elif isinstance(benchmark, MtBench):
        questions = _mt_bench(benchmark)
    else:
        raise TypeError(f"{type(benchmark).__name__} brings no questions")
    wanted = benchmark.prompts
    if wanted is not None and wanted > len(questions):
        raise UserError(f"{wanted} prompts are asked for, the file has {len(questions)}; lower `prompts`")
    return questions[:wanted]


def _text(row: dict[str, Any], key: str, at: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value:
        raise UserError(f"{at}: `{key}` is missing or not a text")
    return value


def _unique(questions: list[Question], path: Path) -> list[Question]:
    seen: set[str] = set()
    for question in questions:
        if question["question_id"] in seen:
            raise UserError(f"{path}: question {question['question_id']} occurs more than once; remove one")
        seen.add(question["question_id"])
    return questions


def _alpaca_eval(benchmark: AlpacaEval) -> list[Question]:
    path = given_path(benchmark.reference)
    questions = []
    for number, row in read_records(path):
        at = f"{path}: row {number}"
        instruction = _text(row, "instruction", at)
        questions.append(
            Question(
                question_id=content_id("alpaca_eval", instruction),
                category=str(row.get("dataset", "")),
                turns=[instruction],
                references=None,
                baseline=_text(row, "output", at),
                baseline_id=_text(row, "generator", at),
            )
        )
    return _unique(questions, path)


def _turns(row: dict[str, Any], at: str) -> list[str]:
    """Texts of `turns` (v0.1: objects with `content`; MT-Bench: texts), or the one of `prompt` (v2.0)."""
    if "prompt" in row:
        return [_text(row, "prompt", at)]
    turns = row.get("turns")
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{at}: neither `turns` nor `prompt` is there")
    return [
        turn if isinstance(turn, str) else _text(turn if isinstance(turn, dict) else {}, "content", at)
        for turn in turns
    ]


def _id(row: dict[str, Any], at: str) -> str:
    value = row.get("uid", row.get("question_id"))
    if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        raise UserError(f"{at}: neither `uid` nor `question_id` is there")
    return str(value)


def _answers(path: Path) -> dict[str, tuple[str, str, list[str]]]:
    """question_id -> (answer's model, row, texts by turn) of an answer file: `messages` (v2.0) or `choices`."""
    found = {}
    for number, row in read_records(path):
        at = f"{path}: row {number}"
        if "messages" in row:
            texts = [m.get("content") for m in row["messages"] if isinstance(m, dict) and m.get("role") == "assistant"]
            texts = [text.get("answer") if isinstance(text, dict) else text for text in texts]
            model = _text(row, "model", at)
        else:
            choices = row.get("choices")
            turns = (
                choices[0].get("turns")
                if isinstance(choices, list) and choices and isinstance(choices[0], dict)
                else None
            )
            texts = [turn.get("content") if isinstance(turn, dict) else turn for turn in turns or []]
            model = _text(row, "model_id", at)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise UserError(f"{at}: holds no answer; is this an answer file?")
        found[_id(row, at)] = (model, at, texts)
    return found


def _arena_hard(benchmark: ArenaHard) -> list[Question]:
    assert benchmark.questions is not None
    path = given_path(benchmark.questions)
    baseline_path = given_path(benchmark.baseline) if benchmark.baseline else None
    answers = _answers(baseline_path) if baseline_path else {}
    questions = []
    for number, row in read_records(path):
        at = f"{path}: row {number}"
        if benchmark.category is not None and row.get("category") != benchmark.category:
            continue
        question_id = _id(row, at)
        if baseline_path and question_id not in answers:
            raise UserError(f"{baseline_path}: question {question_id} of {path} has no answer")
        model, _, texts = answers.get(question_id, (None, "", [None]))
        questions.append(
            Question(
                question_id=question_id,
                category=str(row.get("category", "")),
                turns=_turns(row, at)[:1],
                references=None,
                baseline=texts[0],
                baseline_id=model,
            )
        )
    if not questions:
        raise UserError(f"{path}: no question of category `{benchmark.category}`")
    return _unique(questions, path)


def _mt_bench(benchmark: MtBench) -> list[Question]:
    path = given_path(benchmark.questions)
    answers = _answers(given_path(benchmark.references)) if benchmark.references else {}
    questions = []
    for number, row in read_records(path):
        at = f"{path}: row {number}"
        turns = _turns(row, at)
        if len(turns) != TWO_TURNS:
            raise UserError(f"{at}: {len(turns)} turns; an MT-Bench question has {TWO_TURNS}")
        question_id = _id(row, at)
        own = row.get("reference")
        references = answers[question_id][2] if question_id in answers else own
        questions.append(
            Question(
                question_id=question_id,
                category=str(row.get("category", "")),
                turns=turns,
                references=list(references) if references else None,
                baseline=None,
                baseline_id=None,
            )
        )
    return _unique(questions, path)
