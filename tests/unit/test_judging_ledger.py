"""Ledger and client together: what is looked up, what is sent, what is paid, follow-up turns, budgets."""

import json
import threading

import pytest
from judge_tools import call, number, remote
from marginbench.errors import UserError
from marginbench.judging.client import judge_calls
from marginbench.judging.ledger import OUTRUN, Ledger
from openai_server import GOOD, Reply, completion, serving

PRICE = 0.1  # 100 prompt tokens at 1000 dollars a million


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k")  # so short that it must not be hidden in what judges write


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", payer="study") as opened:
        yield opened


def row(key, price=0.5, preference=1.25, **changes):
    return {"key": key, "judge": "j", "reason": None, "price": price, "preference": preference, **changes}


def test_only_answered_rows_are_given_back_and_all_are_paid(ledger, tmp_path):
    ledger.put(row("a", preference=None, reason="no"))
    assert ledger.get(["a"]) == {}
    assert ledger.put(row("a")) == row("a")
    with Ledger(tmp_path / "ledger.sqlite", payer="other") as other:
        assert other.put(row("a", preference=1.75)) == row("a")
        assert [kept["reason"] for kept in other.tries("a")] == ["no", None, OUTRUN]
        assert (other.spent(), other.spent(payer="study"), other.spent("j", "other"), other.spent("k")) == (
            1.5,
            1,
            0.5,
            0,
        )
    assert ledger.get(["a", "b"]) == {"a": row("a")}


def test_jobs_share_a_ledger(tmp_path):
    def work(name):
        with Ledger(tmp_path / "new" / "ledger.sqlite", payer=name) as mine:
            for i in range(40):
                mine.put(row(f"shared-{i}"))
                mine.put(row(f"{name}-{i}"))

    threads = [threading.Thread(target=work, args=(f"job{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Ledger(tmp_path / "new" / "ledger.sqlite") as after:
        keys = [f"{name}-{i}" for name in ("shared", "job0", "job1", "job2", "job3") for i in range(40)]
        assert len(after.get(keys)) == 200
        assert after.spent() == pytest.approx(0.5 * 4 * 80)


def test_a_file_that_is_no_ledger_is_one_line(tmp_path):
    path = tmp_path / "ledger.sqlite"
    path.write_text("something else, and long enough to be read as a database header " * 20)
    with pytest.raises(UserError, match="not a database"):
        Ledger(path)


def test_equal_calls_are_sent_once_and_keep_their_names(ledger):
    twin = {**call(0), "question_id": "twin", "answer_ids": ["x", "y"]}
    same = call(1, answers=["equal", "equal"])
    with serving(lambda request, n: Reply(GOOD, wait=0.05)) as (url, server):
        rows = judge_calls(remote(url), None, [call(0), same, twin], ledger)
        assert len(server.seen) == 1
        again = judge_calls(remote(url, id="renamed"), None, [twin], ledger)
        assert len(server.seen) == 1
    assert [(r["question_id"], r["reason"]) for r in rows] == [("q0", None), ("q1", "identical"), ("twin", None)]
    assert (again[0]["question_id"], again[0]["answer_ids"], again[0]["judge"]) == ("twin", ["x", "y"], "renamed")
    assert again[0]["preference"] == rows[0]["preference"]
    assert ledger.spent() == pytest.approx(PRICE)


def test_another_endpoint_model_or_decoding_is_asked_anew_and_a_full_ledger_needs_no_key(ledger, monkeypatch):
    with serving(lambda request, n: Reply(completion("M", {"M": -0.1}, model=request["model"]))) as (url, server):
        for spec in (remote(url), remote(url, model="other"), remote(url, decoding={"temperature": 1.0})):
            judge_calls(spec, None, [call(0)], ledger)
        with serving(lambda request, n: Reply(GOOD)) as (elsewhere, second):
            judge_calls(remote(elsewhere), None, [call(0)], ledger)
            assert (len(server.seen), len(second.seen)) == (3, 1)
        monkeypatch.delenv("OPENAI_API_KEY")
        assert judge_calls(remote(url), None, [call(0)], ledger)[0]["preference"] is not None
        with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
            judge_calls(remote(url), None, [call(1)], ledger)


def test_a_budget_stops_before_the_call_that_would_exceed_it_and_keeps_the_rest(ledger):
    calls = [call(i) for i in range(10)]
    with serving(lambda request, n: Reply(GOOD, wait=0.05)) as (url, server):
        spec = remote(url, concurrency=3)
        with pytest.raises(UserError, match=r"budget of \$0.45 .*6 calls are left"):
            judge_calls(spec, None, calls, ledger, budget=0.45, predict=lambda one: PRICE)
        assert len(server.seen) == 4
        assert ledger.spent(payer="study") == pytest.approx(4 * PRICE)
        rows = judge_calls(spec, None, calls, ledger, budget=1.05, predict=lambda one: PRICE)
        assert len(server.seen) == 10
    assert [r["reason"] for r in rows] == [None] * 10


def test_a_follow_up_asks_once_more_where_no_label_was_found(ledger):
    def behave(request, n):
        if len(request["messages"]) > 1:
            return Reply(completion("so [[B>A]]"))
        return Reply(completion(["thinking", "[[A=B]]", "[[A>B]] or [[B>A]]"][number(request)]))

    decoding = {"logprobs": False, "max_tokens": 50}
    with serving(behave) as (url, server):
        spec = remote(url, verdict="arena_v01", decoding=decoding, follow_up="go on")
        rows = judge_calls(spec, None, [call(i) for i in range(3)], ledger)
    assert [r["label"] for r in rows] == ["B>A", "A=B", None]
    assert rows[0]["raw"] == "thinking\nso [[B>A]]"
    assert (rows[0]["tokens_in"], rows[0]["price"]) == (200, pytest.approx(2 * PRICE))
    asked = [request["messages"] for _, request in server.seen if len(request["messages"]) > 1]
    assert json.dumps(asked) == json.dumps(
        [[*call(0)["messages"], {"role": "assistant", "content": "thinking"}, {"role": "user", "content": "go on"}]]
    )
    assert "max_tokens" in server.seen[0][1]


def test_newer_models_are_told_max_completion_tokens():
    with serving(lambda request, n: Reply(GOOD)) as (url, server):
        judge_calls(remote(url, max_completion_tokens=True), None, [call(0)])
    assert server.seen[0][1]["max_completion_tokens"] == 1
    assert "max_tokens" not in server.seen[0][1]
