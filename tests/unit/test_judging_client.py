"""The client: verdicts from log-probs, un-swapping, keys, nulls with reasons."""

import math

import pytest
from judging_tools import CountingBackend, item, judge, served
from marginbench.errors import UserError
from marginbench.judging.chat import JudgeModel, error_body
from marginbench.judging.client import judge_pairs
from marginbench.judging.judgments import VOLATILE
from marginbench.judging.prompts import is_switched
from marginbench.judging.summary import summarise
from marginbench.judging.verdicts import read, unswap


def choice(*tops):
    top = [{"token": token, "logprob": logprob} for token, logprob in tops]
    return {"logprobs": {"content": [{"top_logprobs": top}]}}


@pytest.mark.parametrize(
    ("tops", "expected"),
    [
        ((("m", math.log(0.2)), ("M", math.log(0.6)), ("x", math.log(0.1))), 0.75),
        ((("M", -0.1), ("x", -3.0)), 1.0),
        ((("x", -0.1), ("m", -900.0)), 0.0),
        ((("m", -800.0), ("M", -800.0)), 0.5),
    ],
)
def test_the_verdict_is_the_softmax_of_the_two_labels(tops, expected):
    verdict = read("logprobs", choice(*tops))
    assert verdict.value == pytest.approx(expected, abs=1e-12)
    assert verdict.reason is None


def test_no_verdict_has_a_reason():
    assert read("logprobs", choice(("x", -0.1))).reason == "neither m nor M is among the top tokens"
    assert read("logprobs", {"logprobs": None}).reason == "the reply carries no log-probs"
    assert read("logprobs", choice(("x", -0.1))).value is None


def test_unswap():
    assert unswap(0.75, switched=False) == 1.75  # the method's answer was second and got 0.75
    assert unswap(0.75, switched=True) == 1.25


def scored(baseline, answer, question):
    backend = CountingBackend()
    difference = backend.score(question + answer) - backend.score(question + baseline)
    return 1.0 + 1.0 / (1.0 + math.exp(-difference))


def test_preferences_are_the_methods_whatever_was_shown_first():
    items = [item(i, baseline=" so so" + "!" * (i % 3), answer=" good" + "!" * (i % 4)) for i in range(24)]
    with served() as url:
        rows = judge_pairs(judge(), url, items)
    assert {row["switched"] for row in rows} == {True, False}
    for row, pair in zip(rows, items, strict=True):
        assert row["question_id"] == pair["question_id"]
        assert row["switched"] is is_switched(pair["question"])
        assert row["preference"] == pytest.approx(scored(pair["baseline"], pair["answer"], pair["question"]), abs=1e-12)
        assert row["tokens_in"] > 0
        assert row["judge_version"] == row["model_returned"]
        assert row["latency_s"] > 0
    # A pointwise judge has no position bias: what is left is that the halves are other questions.
    assert abs(summarise(rows)["position_gap"]) < 10


def test_both_orders_give_two_judgments_that_agree():
    with served() as url:
        rows = judge_pairs(judge(order="both"), url, [item(0), item(1)])
    assert [(row["question_id"], row["switched"]) for row in rows] == [
        ("q0", False), ("q0", True), ("q1", False), ("q1", True),
    ]  # fmt: skip
    assert rows[0]["preference"] == pytest.approx(rows[1]["preference"], abs=1e-12)
    assert rows[0]["key"] != rows[1]["key"]


def test_equal_runs_differ_in_time_only_and_identical_answers_are_not_sent():
    items = [item(0), item(1, baseline=" same", answer=" same")]
    runs = []
    for _ in range(2):
        backend = CountingBackend()
        with served(backend) as url:
            rows = judge_pairs(judge(), url, items)
        assert backend.calls == 2
        runs.append([{key: value for key, value in row.items() if key not in VOLATILE} for row in rows])
    assert runs[0] == runs[1]
    assert (runs[0][1]["preference"], runs[0][1]["reason"]) == (1.5, "identical")
    assert summarise(rows)["n_identical"] == 1


def test_the_key_covers_question_answers_order_turn_decoding_prompt_and_judge():
    variants = [
        (judge(), item(0)),
        (judge(), item(0, question="Another film")),
        (judge(), item(0, baseline=" other")),
        (judge(), item(0, answer=" other")),
        (judge(), {**item(0), "turn": 2}),
        (judge(decoding={"temperature": 1.0}), item(0)),
    ]
    with served() as url:
        keys = [judge_pairs(spec, url, [pair])[0]["key"] for spec, pair in variants]
        again = judge_pairs(judge(concurrency=1), url, [{**item(0), "question_id": "renamed"}])[0]["key"]
    other = CountingBackend()
    other.weights_hash = "retrained"
    with served(other) as url:
        keys.append(judge_pairs(judge(), url, [item(0)])[0]["key"])
    assert len(set(keys)) == len(keys)
    assert again == keys[0]


def test_a_lost_call_is_a_null_with_its_reason_and_the_others_stand():
    items = [item(0), item(1, answer=" boom"), item(2)]
    with served() as url:
        rows = judge_pairs(judge(max_retries=0), url, items)
    assert [row["preference"] is None for row in rows] == [False, True, False]
    assert rows[1]["reason"].startswith("lost: InternalServerError")
    summary = summarise(rows)
    assert (summary["n"], summary["n_sent"], summary["n_null"]) == (3, 3, 1)
    assert list(summary["null_reasons"].values()) == [1]


class Canned:
    """A model that always sends the same reply."""

    name = "sentiment_half_b@canned"

    def __init__(self, status, body):
        self.reply = (status, body)

    def complete(self, request):
        return self.reply


def reply(**choice_keys):
    body = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": ""}, **choice_keys}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": Canned.name, "choices": [body]}


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, reply(logprobs=None), "the reply carries no log-probs"),
        (200, {**reply(), "choices": []}, "the reply holds no choice"),
        (
            200,
            reply(logprobs={"content": [{"token": "A", "logprob": 0.0, "bytes": None, "top_logprobs": []}]}),
            "neither",
        ),
        (*error_body(400, "context too long"), "context too long"),
        (*error_body(404, "no such model"), "refuses"),
    ],
)
def test_when_nothing_can_be_read_the_run_stops(status, body, words):
    with (
        served(model=Canned(status, body)) as url,
        pytest.raises(UserError, match="sentiment_half_b") as caught,
    ):
        judge_pairs(judge(max_retries=0), url, [item(0), item(1)])
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_judge_that_is_not_there_or_is_another_one():
    with served() as url, pytest.raises(UserError, match="serves sentiment_half_b@"):
        judge_pairs(judge(id="someone_else"), url, [item(0)])
    with pytest.raises(UserError, match="does not answer"):
        judge_pairs(judge(max_retries=0), url, [item(0)])
    with pytest.raises(UserError, match="address of its running server"):
        judge_pairs(judge(), None, [item(0)])


def test_a_remote_judge_uses_the_key_of_the_environment_and_writes_it_nowhere(monkeypatch):
    served_name = JudgeModel("sentiment_half_b", CountingBackend(), judge().prompt_sha256).name
    remote = judge(kind="openai", backend=None, model="sentiment_half_b", answers_as=served_name, needs=[])
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with served() as url:
        with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
            judge_pairs(remote, url, [item(0)])
        monkeypatch.setenv("OPENAI_API_KEY", "canary-key")
        rows = judge_pairs(remote, url, [item(0)])
    assert rows[0]["preference"] is not None
    assert rows[0]["endpoint"].startswith("openai:127.0.0.1:")
    assert rows[0]["judge_version"] == "sentiment_half_b (2026-11-23)"
    assert "canary" not in str(rows)


def test_progress_counts_every_call():
    seen = []
    with served() as url:
        judge_pairs(judge(), url, [item(i) for i in range(5)], lambda done, total, note: seen.append((done, total)))
    assert seen == [(i, 5) for i in range(1, 6)]
