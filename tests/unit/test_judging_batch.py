"""Batch judges: submitted once whatever happens in between, joined by custom_id, nulls with reasons, tried again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_tools import FakeBatches, completion
from marginbench.errors import UserError
from marginbench.judging import batch_endpoint
from marginbench.judging.batch import judge_in_batches
from marginbench.judging.client import pair_calls
from marginbench.judging.ledger import Ledger
from marginbench.judging.spec import load_judges

SHIPPED = Path(__file__).parents[2] / "resources" / "judges.yaml"
SPEC = load_judges(SHIPPED)["gpt_5_1_weighted_batch"]


class Killed(BaseException):
    """Stands for the end of the process: no handler of the code under test may catch it."""


def label(first, second):
    top = [{"token": "m", "logprob": first}, {"token": "M", "logprob": second}, {"token": "x", "logprob": -9.0}]
    return {"content": [{"token": "m", "logprob": first, "top_logprobs": top}]}


def prefers_second(request, n):
    return completion("M", logprobs=label(-2.0, -0.2))


def calls(n=3, spec=SPEC):
    items = [
        {
            "question_id": f"q{i}",
            "question": f"Question {i}?",
            "baseline_id": "b",
            "baseline": f"base {i}",
            "answer_id": "a",
            "answer": f"answer {i}",
        }
        for i in range(n)
    ]
    return pair_calls(spec, items)


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    return tmp_path


def run(work, server, n=3, **changes):
    def sleep(seconds):
        assert seconds == 60.0
        server.finish()

    options = {"base_url": server.base_url, "sleep": sleep, **changes}
    with Ledger(work / "ledger.sqlite") as ledger:
        return judge_in_batches(SPEC, calls(n), ledger, work / "batches", **options)


def left(work):
    return sorted((work / "batches").glob("*.json"))


def test_a_batch_is_read_as_live_replies_are(work):
    server = FakeBatches(prefers_second)
    rows = run(work, server)
    assert [row["question_id"] for row in rows] == ["q0", "q1", "q2"]
    p_second = 1 / (1 + 2.718281828459045 ** (-2.0 + 0.2))
    for row in rows:
        assert row["preference"] == pytest.approx(2 - p_second if row["switched"] else 1 + p_second)
        assert row["price"] == pytest.approx((100 * 0.625 + 2 * 5) / 1e6)
    (text,) = (text for name, text in server.files.items() if name.startswith("file_"))
    asked = [json.loads(line) for line in text.splitlines()]
    assert [request["custom_id"] for request in asked] == [row["key"] for row in rows]
    assert {(request["method"], request["url"]) for request in asked} == {("POST", "/v1/chat/completions")}
    assert asked[0]["body"] == {"model": SPEC.model, "messages": calls()[0]["messages"], **SPEC.request()}
    assert not left(work)
    again = run(work, server)
    assert again == rows
    assert len(server.batches) == 1


def test_a_run_that_is_stopped_waits_for_the_same_batch(work):
    server = FakeBatches(prefers_second)

    def killed(seconds):
        raise Killed

    with pytest.raises(Killed):
        run(work, server, sleep=killed)
    assert len(left(work)) == 1
    rows = run(work, server, n=4)  # one call is new: it alone makes a second batch
    assert all(row["preference"] is not None for row in rows)
    assert [len(server.files[batch["input_file_id"]].splitlines()) for batch in server.batches.values()] == [3, 1]
    assert set(server.asked.values()) == {1}
    assert not left(work)


def test_a_killed_process_has_submitted_once(work):
    server = FakeBatches(prefers_second)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_judging_batch as t; from pathlib import Path\n"
        "from marginbench.judging.batch import judge_in_batches; from marginbench.judging.ledger import Ledger\n"
        "ledger = Ledger(Path(sys.argv[2]) / 'ledger.sqlite'); folder = Path(sys.argv[2]) / 'batches'\n"
        "judge_in_batches(t.SPEC, t.calls(), ledger, folder, base_url=sys.argv[3], poll_s=0.05)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(Path(__file__).parent), str(work), server.base_url])
    try:
        deadline = time.monotonic() + 120
        while not any(json.loads(path.read_text())["id"] for path in left(work)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    rows = run(work, server)
    assert all(row["preference"] is not None for row in rows)
    assert len(server.batches) == 1


@pytest.mark.parametrize("reply_lost", [True, False])
def test_a_batch_whose_creation_was_cut_off_is_found_again(work, monkeypatch, reply_lost):
    server = FakeBatches(prefers_second)
    if reply_lost:
        server.drop_created = True
    else:
        write = batch_endpoint.write_json

        def killed(path, value):
            if value["id"] is not None:
                raise Killed
            write(path, value)

        with monkeypatch.context() as patch:
            patch.setattr(batch_endpoint, "write_json", killed)
            with pytest.raises(Killed):
                run(work, server)
    rows = run(work, server)
    assert all(row["preference"] is not None for row in rows)
    assert len(server.batches) == 1


def test_partial_failure(work):
    def answer(request, n):
        place = request["body"]["messages"][1]["content"].split("Question ")[1][0]
        if n > 1 or place == "0":
            return prefers_second(request, n)
        return {
            "1": {"response": {"status_code": 500, "body": {"error": {"message": "oops sk-canary", "code": None}}}},
            "2": {"response": None, "error": {"code": "batch_expired", "message": "too late"}},
            "3": completion("I cannot", logprobs={"content": []}),
            "4": None,
            "5": completion("M", model="gpt-9", logprobs=label(-2.0, -0.2)),
        }[place]

    server = FakeBatches(answer, status="expired")
    rows = run(work, server, n=6, allow_lost=True)
    assert [row["reason"] for row in rows] == [
        None,
        "lost: 500: oops [key]",
        "lost: batch_expired: too late",
        "the reply carries no log-probs",
        "lost: its batch ended as expired",
        "gpt-9 answered, not gpt-5.1-2025-11-13",
    ]
    assert not left(work)
    retried = run(work, server, n=6)
    assert all(row["reason"] is None for row in retried)
    assert sorted(server.asked.values()) == [1, 2, 2, 2, 2, 2]


def test_what_is_lost_ends_the_run_unless_allowed(work):
    def answer(request, n):
        return prefers_second(request, n) if "Question 0" in str(request) else None

    with pytest.raises(UserError, match=r"2 of 3 calls got no answer .*run again"):
        run(work, FakeBatches(answer))


def test_a_failed_batch_says_why(work):
    server = FakeBatches(lambda request, n: None, status="failed")
    server_create = server.create

    def create(body):
        errors = {"object": "list", "data": [{"code": "x", "message": "line 1 is not valid"}]}
        return server_create({**body, "errors": errors})

    server.create = create
    with pytest.raises(UserError, match=r"none of 3 verdicts .*failed: line 1 is not valid"):
        run(work, server)


def test_files_are_cut_at_the_limits(work, monkeypatch):
    server = FakeBatches(prefers_second)
    monkeypatch.setattr(batch_endpoint, "MAX_REQUESTS", 2)
    run(work, server, n=5)
    assert len(server.batches) == 3
    monkeypatch.setattr(batch_endpoint, "MAX_BYTES", 10)
    run(work, server, n=7)
    assert len(server.batches) == 5
    assert set(server.asked.values()) == {1}


def test_other_runs_calls_stay_remembered(work):
    server = FakeBatches(prefers_second)

    def killed(seconds):
        raise Killed

    with pytest.raises(Killed):
        run(work, server, n=4, sleep=killed)
    run(work, server, n=2)
    (path,) = left(work)
    assert len(json.loads(path.read_text())["keys"]) == 2
    assert all(row["preference"] is not None for row in run(work, server, n=4))
    assert len(server.batches) == 1
    assert not left(work)


def test_a_refused_key_and_a_missing_one(work, monkeypatch):
    server = FakeBatches(prefers_second)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    with pytest.raises(UserError, match=r"AuthenticationError: .*bad key Bearer \[key\]"):
        run(work, server)
    assert not left(work)
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        run(work, server)


def test_nothing_is_sent_beyond_the_budget(work):
    server = FakeBatches(prefers_second)
    with pytest.raises(UserError, match=r"3 calls would cost \$0\.6000 .* budget of \$0\.50"):
        run(work, server, budget=0.5, predict=lambda call: 0.2)
    assert not server.batches
    assert len(run(work, server, budget=0.7, predict=lambda call: 0.2)) == 3
