"""kill -9 in the middle of a run of judgments, 20 times: what was committed is there, and is never asked again."""

import contextlib
import multiprocessing
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import judge_killed
import openai_server
import pytest

CALLS, SLOTS, KILLS = 2000, 16, 20


def committed(ledger):
    """Question ids of the verdicts in the ledger, each as often as it is there."""
    with contextlib.closing(sqlite3.connect(ledger)) as db:
        rows = db.execute("SELECT json_extract(row, '$.question_id') FROM judgments WHERE answered")
        return Counter(question for (question,) in rows)


@pytest.mark.slow
def test_twenty_kills_lose_nothing_and_repeat_only_what_was_in_flight(tmp_path, capsys):
    ledger, log = tmp_path / "ledger.sqlite", tmp_path / "requests.log"
    command = [sys.executable, openai_server.__file__, "--delay", "0.02", "--log", str(log)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
    # Children of a fork server: the client is imported once, and a child holds nothing of this process.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["judge_killed"])

    def requests():
        nonlocal seen
        seen += reader.read().count(b"\n")
        return seen

    def start(name):
        worker = context.Process(target=judge_killed.run, args=(url, ledger, name, CALLS, SLOTS))
        worker.start()
        return worker

    reader, seen = log.open("rb"), 0
    draw = random.Random(20)
    kept = {}
    try:
        for kill, moment in enumerate(sorted(draw.sample(range(1, CALLS), KILLS))):
            worker = start(f"run-{kill}")
            while requests() < moment:
                assert worker.is_alive()
                time.sleep(0.005)
            time.sleep(draw.uniform(0.0, 0.03))
            worker.kill()
            worker.join()
            kept[f"run-{kill}"] = set(committed(ledger)) if ledger.exists() else set()
        worker = start("last")
        worker.join(300)
        assert worker.exitcode == 0
    finally:
        server.kill()
        server.wait()
        reader.close()

    assert committed(ledger) == Counter(f"q{i}" for i in range(CALLS))
    with contextlib.closing(sqlite3.connect(ledger)) as db:
        assert db.execute("SELECT COUNT(DISTINCT key), COUNT(*) FROM judgments").fetchone() == (CALLS, CALLS)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    asked: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        run, _, i = line.split()
        asked.setdefault(f"q{i}", []).append(run)
    assert set(asked) == set(committed(ledger))
    in_flight = Counter()
    for question, runs in asked.items():
        for run in runs[:-1]:
            # Asked again, so its verdict had not been committed when its run was killed: it was in flight.
            assert question not in kept[run], (question, runs)
            in_flight[run] += 1
    assert max(in_flight.values(), default=0) <= SLOTS
    with capsys.disabled():
        print(f"\n{in_flight.total()} of {CALLS} calls were in flight at one of {KILLS} kills and asked again")
    assert Path(f"{ledger}-wal").exists() is False
