"""The questions of a benchmark in one shape, whatever file they come from: turns, category, references, baseline."""

from pathlib import Path
from typing import Any, TypedDict

from marginbench.benchmarks import arena_calls, mt_bench
from marginbench.benchmarks.alpaca_files import read_model_outputs
from marginbench.data.given_files import given_path
from marginbench.errors import UserError
from marginbench.identity import content_id
from marginbench.study import AlpacaEval, ArenaHard, Benchmark, MtBench


class Question(TypedDict):
    """A row of `questions/{bench}.jsonl`."""

    question_id: str
    category: str
    turns: list[str]
    references: list[str]
    """The judge's reference answer to each turn; empty where the benchmark has none."""
    baseline: str | None
    """The fixed baseline's answer; null where the SFT start's answers are the baseline."""
    baseline_id: str | None


def read_questions(benchmark: Benchmark) -> list[Question]:
    """The questions of a benchmark that brings its own, in the order of its file.

    Raises UserError with one line that names file and row when the file is not one of this benchmark.
    """
    if isinstance(benchmark, AlpacaEval):
        questions, path = _alpaca_eval(benchmark)
    elif isinstance(benchmark, ArenaHard):
        questions, path = _arena_hard(benchmark)
    elif isinstance(benchmark, MtBench):
        questions, path = _mt_bench(benchmark)
    else:
        raise TypeError(f"{type(benchmark).__name__} brings no questions")
    wanted = benchmark.prompts
    if wanted is not None and wanted > len(questions):
        raise UserError(f"{path}: {wanted} prompts are asked for, it has {len(questions)}; lower `prompts`")
    return questions[:wanted]


def _question(question_id: str, category: str, turns: list[str], **more: Any) -> Question:
    return Question(
        question_id=question_id,
        category=category,
        turns=turns,
        references=more.get("references", []),
        baseline=more.get("baseline"),
        baseline_id=more.get("baseline_id"),
    )


def _alpaca_eval(benchmark: AlpacaEval) -> tuple[list[Question], Path]:
    path = given_path(benchmark.reference)
    return [
        _question(
            content_id("alpaca_eval", row["instruction"]),
            str(row.get("dataset", "")),
            [row["instruction"]],
            baseline=row["output"],
            baseline_id=str(row["generator"]),
        )
        for row in read_model_outputs(path)
    ], path


def _arena_hard(benchmark: ArenaHard) -> tuple[list[Question], Path]:
    if benchmark.questions is None:
        raise TypeError("Arena-Hard on the in-domain prompts brings no questions")
    path = given_path(benchmark.questions)
    asked = [row for row in arena_calls.read_questions(path) if benchmark.category in (None, row["category"])]
    if not asked:
        raise UserError(f"{path}: no question of category `{benchmark.category}`; choose another")
    answers: dict[str, dict[str, str]] = {}
    if benchmark.baseline is not None:
        baseline = given_path(benchmark.baseline)
        answers = {row["question_id"]: row for row in arena_calls.import_answers(baseline)}
        missing = [row["question_id"] for row in asked if row["question_id"] not in answers]
        if missing:
            raise UserError(f"{baseline}: has no answer to question {missing[0]} of {path}; they belong together")
    return [
        _question(
            row["question_id"],
            row["category"],
            [row["question"]],
            baseline=answers.get(row["question_id"], {}).get("text"),
            baseline_id=answers.get(row["question_id"], {}).get("model"),
        )
        for row in asked
    ], path


def _mt_bench(benchmark: MtBench) -> tuple[list[Question], Path]:
    path = given_path(benchmark.questions)
    references = mt_bench.read_references(given_path(benchmark.references)) if benchmark.references else {}
    return [
        _question(row["question_id"], row["category"], row["turns"], references=references.get(row["question_id"], []))
        for row in mt_bench.read_questions(path, expected=None)
    ], path


def baseline_rows(questions: list[Question]) -> list[dict[str, Any]]:
    """A fixed baseline's answers as answer records, for `pair_items` and `arena_calls.calls`."""
    return [
        {
            "question_id": question["question_id"],
            "turn": 1,
            "sample": 0,
            "answer_id": content_id("baseline", question["baseline_id"], question["turns"][0], question["baseline"]),
            "prompt_text": question["turns"][0],
            "text": question["baseline"],
        }
        for question in questions
    ]
