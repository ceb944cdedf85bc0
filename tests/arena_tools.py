"""Arena-Hard judgments made up for tests: rows of both layouts, games, answers' counts."""

import gzip
import json

from marginbench.benchmarks.arena_formats import Game


def v01_row(question, first, second, model="m", judge="j"):
    games = [{"user_prompt": "", "judgment": "", "score": label} for label in (first, second)]
    return {"question_id": question, "model": model, "judge": judge, "games": games}


def v20_row(question, first, second, model="m", judge="j", baseline="base", category="hard_prompt"):
    games = [{"score": label, "judgment": {"answer": ""}, "prompt": []} for label in (first, second)]
    return {
        "uid": question, "category": category, "judge": judge, "model": model, "baseline": baseline, "games": games,
    }  # fmt: skip


def write_lines(path, rows):
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def two_games(model, question, first, second, judge="j"):
    return [Game(model, question, "hard_prompt", judge, "base", i, label) for i, label in ((1, first), (2, second))]


def counts(tokens, headers=0, items=0, bold=0):
    return {
        "text": "", "token_len": tokens, "header_count": {"h1": headers}, "list_count": {"ordered": items},
        "bold_count": {"**": bold},
    }  # fmt: skip
