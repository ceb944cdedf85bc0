"""A judge's server that misbehaves: nothing is lost or asked again once committed, and every null has its reason."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tenacity
from judge_tools import call, number, remote
from marginbench.errors import UserError
from marginbench.judging import endpoint
from marginbench.judging.client import judge_calls
from marginbench.judging.ledger import Ledger
from openai_server import GOOD, Reply, completion, serving

CANARY = "sk-canary-3f9a51c07d"
ARENA = {"verdict": "arena_v20", "decoding": {"logprobs": False, "max_tokens": 50}}


def error(status, message="no", code=None, **headers):
    body = {"error": {"message": message, "type": "x", "param": None, "code": code}}
    named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Reply(json.dumps(body).encode(), status, named)


PASSING = {
    "429": error(429),
    "429, Retry-After": error(429, retry_after="0.4"),
    "429, Retry-After as a date": error(429, retry_after="Mon, 23 Nov 2020 10:00:00 GMT"),
    "500": error(500),
    "503": error(503),
    "hang": Reply(GOOD, wait=30.0),
    "trickle": Reply(GOOD, trickle=True),
    "cut": Reply(GOOD, cut=True),
    "malformed JSON": Reply(b'{"choices": [{"index": 0,'),
    "no object": Reply(b'["x"]'),
    "a page": Reply(b"<html>busy</html>", headers=(("content-type", "text/html"),)),
}
"""Faults that may pass."""


@pytest.fixture(autouse=True)
def _key_and_haste(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    monkeypatch.setattr(endpoint, "_backoff", tenacity.wait_fixed(0.01))


def limit(fault):
    return 4.0 if fault in ("hang", "trickle") else 60.0


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_is_tried_again(fault, tmp_path):
    def behave(request, n):
        return PASSING[fault] if number(request) == 2 and n == 0 else Reply(GOOD)

    calls = [call(i) for i in range(5)]
    with serving(behave) as (url, server), Ledger(tmp_path / "ledger.sqlite") as ledger:
        spec = remote(url, timeout_s=limit(fault))
        start = time.monotonic()
        rows = judge_calls(spec, None, calls, ledger)
        assert [row["reason"] for row in rows] == [None] * 5
        assert sorted(number(request) for _, request in server.seen) == [0, 1, 2, 2, 3, 4]
        if fault == "429, Retry-After":
            assert time.monotonic() - start >= 0.4
        assert judge_calls(spec, None, calls, ledger) == rows
        assert len(server.seen) == 6


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_stays_loses_its_call_only_and_is_asked_next_time(fault, tmp_path):
    sick = True

    def behave(request, n):
        return PASSING[fault] if number(request) == 2 and sick else Reply(GOOD)

    calls = [call(i) for i in range(5)]
    with serving(behave) as (url, server), Ledger(tmp_path / "ledger.sqlite") as ledger:
        spec = remote(url, timeout_s=limit(fault), max_retries=0)
        with pytest.raises(UserError, match=r"1 of 5 calls got no answer \(lost: .*run again") as caught:
            judge_calls(spec, None, calls, ledger)
        assert "\n" not in str(caught.value)
        assert len(server.seen) == 5
        sick = False
        rows = judge_calls(spec, None, calls, ledger)
        assert [number(request) for _, request in server.seen[5:]] == [2]
        tries = ledger.tries(rows[2]["key"])
        assert [row["preference"] is None for row in tries] == [True, False]
        assert tries[0]["reason"].startswith("lost: ")
        assert tries[1]["reason"] is None


def bare(choices):
    return json.dumps({"model": "judge-2026-11-01", "choices": choices}).encode()


NULLS = [
    ({}, completion("M"), "the reply carries no log-probs"),
    ({}, completion("", {"Sorry": -0.1}), "neither m nor M is among the top tokens"),
    ({}, completion("M", {"M": -0.1}, model="cheaper"), "cheaper answered, not judge-2026-11-01"),
    ({}, bare([]), "the reply holds no choice"),
    ({}, bare([{"logprobs": {"content": [1]}}]), "another shape"),
    (ARENA, completion(""), "the reply is empty"),
    (ARENA, completion(None), "the reply is empty"),
    (ARENA, completion(None, message={"content": None, "refusal": "I will not"}), "the judge refused"),
    (ARENA, completion("", finish_reason="content_filter"), "the judge refused"),
    (ARENA, completion("I think that A", finish_reason="length"), "the reply was cut off before its verdict"),
    (ARENA, completion("I cannot help with that."), "the reply holds no verdict"),
    ({**ARENA, "verdict": "arena_v01"}, completion("[[A>B]] or [[B>A]]"), "the reply holds several labels that differ"),
    (ARENA, error(400, "context too long"), "BadRequestError: .*context too long"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "body", "reason"), NULLS)
def test_an_answer_without_a_verdict_is_a_null_with_its_reason(changes, body, reason, tmp_path):
    good = completion("so: [[A>B]]", {"M": -0.25, "m": -1.5})

    def behave(request, n):
        bad = body if isinstance(body, Reply) else Reply(body)
        return bad if number(request) == 1 and n == 0 else Reply(good)

    calls = [call(i) for i in range(4)]
    with serving(behave) as (url, server), Ledger(tmp_path / "ledger.sqlite") as ledger:
        spec = remote(url, **changes)
        rows = judge_calls(spec, None, calls, ledger)
        assert [row["reason"] is None for row in rows] == [True, False, True, True]
        assert re.search(reason, rows[1]["reason"])
        assert rows[1].get("preference", rows[1].get("label")) is None
        assert len(server.seen) == 4
        again = judge_calls(spec, None, calls, ledger)
        assert [number(request) for _, request in server.seen[4:]] == [1]
        assert [row["reason"] for row in again] == [None] * 4
        assert [row["reason"] is None for row in ledger.tries(rows[1]["key"])] == [False, True]


@pytest.mark.parametrize(
    "refusal", [error(401), error(402), error(403), error(404), error(429, "pay", "insufficient_quota")]
)
def test_a_refusal_stops_at_once_and_keeps_what_was_answered(refusal, tmp_path):
    def behave(request, n):
        return refusal if number(request) >= 8 else Reply(GOOD, wait=0.02)

    calls = [call(i) for i in range(200)]
    with serving(behave) as (url, server), Ledger(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(UserError, match=r"remote.*refuses") as caught:
            judge_calls(remote(url), None, calls, ledger)
        assert "\n" not in str(caught.value)
        assert len(server.seen) <= 8 + 4
        kept = ledger.spent() / 0.1
        assert kept == pytest.approx(8)


def test_a_server_that_asks_to_be_left_alone_for_long_is_not_waited_for(tmp_path):
    with serving(lambda request, n: error(429, retry_after="86400") if number(request) else Reply(GOOD)) as (
        url,
        server,
    ):
        rows = judge_calls(remote(url), None, [call(0), call(1)], allow_lost=True)
    assert len(server.seen) == 2
    assert rows[1]["reason"].startswith("lost: RateLimitError")


def test_a_run_without_hope_stops_before_all_is_paid(tmp_path):
    with (
        serving(lambda request, n: Reply(completion("M"))) as (url, server),
        Ledger(tmp_path / "ledger.sqlite") as ledger,
        pytest.raises(UserError, match=r"first 20 verdicts .*no log-probs; .* calls are not sent"),
    ):
        judge_calls(remote(url), None, [call(i) for i in range(300)], ledger)
    assert len(server.seen) <= 20 + 4


def worker(folder: Path, url: str, count: int = 6) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).with_name("judge_worker.py")
    files = [folder / name for name in ("ledger.sqlite", "judge.log", "judgments.jsonl")]
    paths = os.pathsep.join([str(script.parents[1]), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    return subprocess.run(
        [sys.executable, str(script), url, *map(str, files), str(count)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "OPENAI_API_KEY": CANARY},
        timeout=300,
    )


@pytest.mark.slow
def test_the_exit_code_tells_and_no_file_holds_the_key(tmp_path):
    """The server repeats the key that it was sent, wherever it can."""
    state = "refuse"

    def behave(request, n):
        if state == "refuse":
            return error(401, f"wrong key {CANARY}")
        if number(request) == 1:
            return error(400 if state == "null" else 500, f"bad {CANARY}")
        return Reply(completion(f"M {CANARY}", {"M": -0.25, "m": -1.5}))

    with serving(behave) as (url, server):
        refused = worker(tmp_path, url)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "refuses" in refused.stderr
        state = "lost"
        lost = worker(tmp_path, url)
        assert lost.returncode == 2
        assert "1 of 6 calls got no answer" in lost.stderr
        assert not (tmp_path / "judgments.jsonl").exists()
        before = len(server.seen)
        state = "null"
        done = worker(tmp_path, url)
        assert done.returncode == 0, done.stderr
        assert len(server.seen) == before + 1
    rows = [json.loads(line) for line in (tmp_path / "judgments.jsonl").read_text().splitlines()]
    assert rows[0]["raw"] == "M [key]"
    assert "BadRequestError" in rows[1]["reason"]
    assert {bearer for bearer, _ in server.seen} == {CANARY}
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"ledger.sqlite", "judge.log", "judgments.jsonl"} <= {file.name for file in files}
    for file in files:
        assert CANARY.encode() not in file.read_bytes(), file
    for run in (refused, lost, done):
        assert CANARY not in run.stdout + run.stderr
