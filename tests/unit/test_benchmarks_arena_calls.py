"""Arena-Hard's calls, and our rows in the official formats: exported and read again they give the same numbers."""

import pytest
from arena_tools import write_lines
from marginbench.benchmarks.arena_calls import (
    calls,
    import_answers,
    judgments_file,
    official_answers,
    read_questions,
    row_games,
)
from marginbench.benchmarks.arena_formats import read_answers, read_games
from marginbench.benchmarks.arena_hard import choose, score_games
from marginbench.errors import UserError
from marginbench.identity import stream

QUESTIONS = [{"question_id": f"q{i}", "category": "hard_prompt", "question": f"Question {i}?"} for i in range(12)]
QUESTIONS += [{"question_id": "c", "category": "creative_writing", "question": "A poem?"}]


def answers(who):
    return [
        {"question_id": q["question_id"], "answer_id": f"{who}-{q['question_id']}", "text": f"{who} says {i}\n- so",
         "prompt_text": q["question"]}
        for i, q in enumerate(QUESTIONS)
    ]  # fmt: skip


def fill(fields, part):
    return [
        {"role": "system", "content": part},
        {"role": "user", "content": " | ".join(fields[name] for name in ("question", "answer_a", "answer_b"))},
    ]


def judged(made):
    """Judgment rows as the client makes them, with some that carry no verdict."""
    random = stream("test", "arena_calls")
    labels = ("A>>B", "A>B", "A=B", "B>A", "B>>A", None, "A")
    for number, call in enumerate(made):
        label = labels[random.integers(len(labels))] if number > 1 else "B>A"
        yield {
            **{name: call[name] for name in ("question_id", "turn", "answer_ids", "order")},
            "judge": "j",
            "label": label,
            "raw": None if label is None and number % 2 else f"[[{label}]]",
        }


def test_two_games_a_prompt():
    made = calls(QUESTIONS, answers("base"), answers("mine"), fill)
    assert len(made) == 2 * len(QUESTIONS)
    first, second = made[:2]
    assert (first["order"], second["order"]) == ("baseline_first", "method_first")
    assert first["answers"] == second["answers"][::-1] == ["base says 0\n- so", "mine says 0\n- so"]
    assert first["answer_ids"] == second["answer_ids"] == ["base-q0", "mine-q0"]
    assert first["messages"][1]["content"] == "Question 0? | base says 0\n- so | mine says 0\n- so"
    assert second["messages"][1]["content"] == "Question 0? | mine says 0\n- so | base says 0\n- so"
    assert {call["messages"][0]["content"] for call in made} == {"prompt"}


def test_categories_have_their_prompts_and_may_be_left_out():
    parts = {"hard_prompt": "prompt", "creative_writing": "creative"}
    made = calls(QUESTIONS, answers("base"), answers("mine"), fill, parts)
    assert [call["messages"][0]["content"] for call in made] == ["prompt"] * 24 + ["creative"] * 2
    assert len(calls(QUESTIONS, answers("base"), answers("mine"), fill, {"creative_writing": "creative"})) == 2


def test_missing_and_repeated_answers():
    with pytest.raises(UserError, match="the baseline has no answer to question c"):
        calls(QUESTIONS, answers("base")[:-1], answers("mine"), fill)
    with pytest.raises(UserError, match="the model has two answers to question q0"):
        calls(QUESTIONS, answers("base"), answers("mine") + answers("mine")[:1], fill)


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
@pytest.mark.parametrize("layout", ["v0.1", "v2.0"])
def test_exported_judgments_give_the_score_of_the_rows(tmp_path, version, layout):
    made = calls(QUESTIONS[:12], answers("base"), answers("mine"), fill)
    rows = list(judged(made))
    categories = {q["question_id"]: q["category"] for q in QUESTIONS} if layout == "v2.0" else None
    official = judgments_file(rows, layout, "mine", "base", categories, made)
    games = choose(read_games([write_lines(tmp_path / "mine.jsonl", official)]), "base")
    assert games[0].category == ("hard_prompt" if layout == "v2.0" else "arena-hard-v0.1")
    result = score_games(games, version)
    assert result == score_games(row_games(rows, "mine", "base", categories), version)
    counted = result["models"]["mine"]
    assert counted["n_null"] == sum(row["label"] is None for row in rows) > 0
    assert counted["n_unknown"] == sum(row["label"] == "A" for row in rows) > 0
    prompt = official[0]["games"][0]["user_prompt" if layout == "v0.1" else "prompt"]
    assert (prompt if layout == "v0.1" else prompt[1]["content"]) == made[0]["messages"][1]["content"]


def test_a_question_judged_in_one_order_or_twice():
    rows = list(judged(calls(QUESTIONS, answers("base"), answers("mine"), fill)))
    with pytest.raises(UserError, match="question c: judged in one order only"):
        judgments_file(rows[:-1], "v0.1", "mine", "base")
    with pytest.raises(UserError, match="question q0: judged more than once as baseline_first"):
        judgments_file([*rows, rows[0]], "v2.0", "mine", "base")


@pytest.mark.parametrize("version", ["v0.1", "v2.0"])
def test_answers_both_ways(tmp_path, version):
    rows = answers("mine")
    path = write_lines(tmp_path / "mine.jsonl", official_answers(rows, version, "mine", lambda text: len(text)))
    again = import_answers(path)
    assert again == [{**{k: row[k] for k in ("question_id", "answer_id", "text")}, "model": "mine"} for row in rows]
    facts = read_answers(tmp_path, ["mine"])["mine"]
    assert facts["q0"]["token_len"] == len(rows[0]["text"])
    assert facts["q0"]["list_count"] == {"ordered": 0, "unordered": 1}
    bare = official_answers(rows, version, "mine")
    write_lines(path, bare)
    assert read_answers(tmp_path, ["mine"])["mine"]["q0"]["token_len"] is None
    write_lines(path, [{k: v for k, v in bare[0].items() if k not in ("ans_id", "answer_id")}])
    with pytest.raises(UserError, match=r"line 1: the key `ans\w*_id` is missing"):
        import_answers(path)


def test_questions_of_both_layouts(tmp_path):
    rows = [
        {"question_id": "a", "category": "arena-hard-v0.1", "cluster": "x", "turns": [{"content": "One?"}]},
        {"uid": "b", "category": "hard_prompt", "subcategory": "math", "prompt": "Two?"},
    ]
    found = read_questions(write_lines(tmp_path / "question.jsonl", rows))
    assert [tuple(row.values()) for row in found] == [("a", "arena-hard-v0.1", "One?"), ("b", "hard_prompt", "Two?")]
    with pytest.raises(UserError, match=r"question.jsonl, line 1: not a question of Arena-Hard"):
        read_questions(write_lines(tmp_path / "question.jsonl", [{"uid": "b", "category": "x"}]))
