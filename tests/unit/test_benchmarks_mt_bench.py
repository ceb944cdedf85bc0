"""MT-Bench: questions, the calls of single-answer grading, and the official files both ways."""

import gzip
import json

import pytest
from marginbench.benchmarks.mt_bench import calls, part, read_questions, read_references, turn_messages
from marginbench.benchmarks.mt_bench_files import (
    Answer,
    answer_records,
    judgment_records,
    judgment_rows,
    read_answers,
    read_judgments,
)
from marginbench.errors import UserError
from marginbench.files import write_jsonl

CATEGORIES = ("writing", "math", "reasoning", "coding", "stem")


def record(i, **changes):
    base = {"question_id": 81 + i, "category": CATEGORIES[i % 5], "turns": [f"first {i}?", f"second {i}?"]}
    return {**base, **changes}


@pytest.fixture
def questions(tmp_path):
    write_jsonl(tmp_path / "question.jsonl", [record(i) for i in range(5)])
    return read_questions(tmp_path / "question.jsonl", expected=None)


def answers(questions):
    return [
        Answer(question_id=q["question_id"], answer_id=f"a{q['question_id']}", turns=["one", "two"]) for q in questions
    ]


def fill(fields, part):
    return [{"role": "system", "content": part}, {"role": "user", "content": json.dumps(fields, sort_keys=True)}]


REFERENCES = {str(81 + i): [f"ref one {i}", f"ref two {i}"] for i in (1, 2, 3)}


def test_each_question_makes_two_calls(questions):
    made = calls(questions, list(reversed(answers(questions))), fill, REFERENCES)
    assert [(call["question_id"], call["turn"]) for call in made] == [
        (str(81 + i), t) for i in range(5) for t in (1, 2)
    ]
    assert {call["order"] for call in made} == {"single"}
    assert [call["answer_ids"] for call in made[:2]] == [["a81"], ["a81"]]
    assert made[0]["question"] == "first 0?"
    assert made[0]["answers"] == ["one"]
    assert made[1]["question"] == "first 0?\n\nsecond 0?"
    assert made[1]["answers"] == ["one", "two"]
    assert json.loads(made[0]["messages"][1]["content"]) == {"question": "first 0?", "answer": "one"}
    assert json.loads(made[1]["messages"][1]["content"]) == {
        "question_1": "first 0?", "answer_1": "one", "question_2": "second 0?", "answer_2": "two",
    }  # fmt: skip


def test_math_reasoning_and_coding_are_graded_beside_a_reference(questions):
    made = calls(questions, answers(questions), fill, REFERENCES)
    parts = {call["question_id"]: [] for call in made}
    for call in made:
        parts[call["question_id"]].append(call["messages"][0]["content"])
    plain, beside = ["turn_1", "turn_2"], ["turn_1_reference", "turn_2_reference"]
    assert list(parts.values()) == [plain, beside, beside, beside, plain]
    assert [part(questions[1], turn) for turn in (1, 2)] == beside
    first, second = (json.loads(call["messages"][1]["content"]) for call in made[2:4])
    assert first["reference"] == "ref one 1"
    assert (second["reference_1"], second["reference_2"]) == ("ref one 1", "ref two 1")
    assert "reference" not in second
    with pytest.raises(UserError, match=r"question 83 \(reasoning\) is graded beside 2 reference answers, 0 are known"):
        calls(questions, answers(questions), fill, {"82": REFERENCES["82"]})


def test_answers_must_be_those_to_the_questions(questions):
    given = answers(questions)
    with pytest.raises(UserError, match="1 questions and answers do not match, first question 85"):
        calls(questions, given[:-1], fill, REFERENCES)
    with pytest.raises(UserError, match="question 81 is answered 2 times"):
        calls(questions, [*given, given[0]], fill, REFERENCES)
    with pytest.raises(UserError, match="question 81 has 1 answered turns"):
        calls(questions, [{**given[0], "turns": ["one"]}, *given[1:]], fill, REFERENCES)


def test_the_second_turn_is_asked_after_the_first_answer(questions):
    assert turn_messages(questions[0], []) == [{"role": "user", "content": "first 0?"}]
    assert turn_messages(questions[0], ["one"]) == [
        {"role": "user", "content": "first 0?"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "second 0?"},
    ]
    with pytest.raises(ValueError, match="all 2 turns are answered"):
        turn_messages(questions[0], ["one", "two"])


def test_the_benchmark_has_80_questions_of_two_turns(tmp_path):
    path = tmp_path / "question.jsonl.gz"
    lines = [json.dumps(record(i, reference=["r"] if i == 3 else [])) for i in range(80)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    read = read_questions(path)
    assert len(read) == 80
    assert read[3]["reference"] == ["r"]
    assert read[0]["question_id"] == "81"
    path.write_bytes(gzip.compress("\n".join(lines[:-1]).encode()))
    with pytest.raises(UserError, match="holds 79 questions, MT-Bench has 80"):
        read_questions(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"turns": ["only one"]}, "`turns` of question 82 must be a list of 2 texts"),
        ({"turns": ["one", " "]}, "`turns` of question 82 must be a list of 2 texts"),
        ({"turns": "one"}, "`turns` of question 82 must be a list of 2 texts"),
        ({"category": None}, "question 82: `category` is a text"),
        ({"question_id": 81}, "question 81 is there twice"),
        ({"question_id": None}, "`question_id` must be a number or a text, not None"),
    ],
)
def test_a_malformed_question_is_named_with_its_line(tmp_path, changes, words):
    path = tmp_path / "question.jsonl"
    write_jsonl(path, [record(0), record(1, **changes)])
    with pytest.raises(UserError, match=r"question\.jsonl, line 2: ") as caught:
        read_questions(path, expected=None)
    assert words in str(caught.value)


def test_answers_go_out_and_come_back(questions, tmp_path):
    given = answers(questions)
    written = answer_records(given, "dpo")
    assert written[0] == {
        "question_id": 81,
        "answer_id": "a81",
        "model_id": "dpo",
        "choices": [{"index": 0, "turns": ["one", "two"]}],
        "tstamp": 0.0,
    }
    write_jsonl(tmp_path / "dpo.jsonl", written)
    assert read_answers(tmp_path / "dpo.jsonl") == ("dpo", given)
    assert read_references(tmp_path / "dpo.jsonl") == {a["question_id"]: a["turns"] for a in given}


def test_an_answer_file_holds_one_model(questions, tmp_path):
    given = answers(questions)
    write_jsonl(tmp_path / "two.jsonl", [*answer_records(given[:1], "dpo"), *answer_records(given[1:2], "ipo")])
    with pytest.raises(UserError, match=r"two.jsonl, line 2: answers of a second model \(dpo, ipo\)"):
        read_answers(tmp_path / "two.jsonl")
    write_jsonl(tmp_path / "twice.jsonl", answer_records([given[0], given[0]], "dpo"))
    with pytest.raises(UserError, match=r"twice.jsonl, line 2: question 81 is answered twice"):
        read_answers(tmp_path / "twice.jsonl")
    write_jsonl(tmp_path / "none.jsonl", [{**answer_records(given, "dpo")[0], "choices": []}])
    with pytest.raises(UserError, match=r"none.jsonl, line 1: `choices\[0\].turns` is missing"):
        read_answers(tmp_path / "none.jsonl")


def test_judgments_go_out_and_come_back(questions, tmp_path):
    made = calls(questions, answers(questions), fill, REFERENCES)
    rows = [
        {
            "question_id": call["question_id"],
            "turn": call["turn"],
            "answer_ids": call["answer_ids"],
            "judge": "j",
            "rating": (None, 7.0, 8.5)[i % 3],
            "raw": (None, "[[7]]", "[[8.5]]")[i % 3],
        }
        for i, call in enumerate(made)
    ]
    parts = [part(q, turn) for q in questions for turn in (1, 2)]
    written = judgment_records(made, list(reversed(rows)), parts, "dpo")
    assert [r["score"] for r in written[:3]] == [-1, 7, 8.5]
    assert [type(r["score"]) for r in written[:3]] == [int, int, float]
    assert written[0]["judgment"] == "$ERROR$"
    names = [r["judge"] for r in written[:4]]
    assert names[:2] == [["j", "single-v1"], ["j", "single-v1-multi-turn"]]
    assert names[2:] == [["j", "single-math-v1"], ["j", "single-math-v1-multi-turn"]]
    assert written[0]["user_prompt"] == made[0]["messages"][-1]["content"]
    write_jsonl(tmp_path / "j_single.jsonl", written)
    read = [found for _, found in read_judgments(tmp_path / "j_single.jsonl")]
    assert read == written
    back = judgment_rows(read)
    assert [row["rating"] for row in back] == [row["rating"] for row in rows]
    assert [row["question_id"] for row in back] == [row["question_id"] for row in rows]
    assert {row["reason"] for row in back if row["rating"] is None} == {"no rating in the file"}
    with pytest.raises(UserError, match="question 81, turn 1: no judgment; judge again"):
        judgment_records(made, rows[1:], parts, "dpo")
