"""How long 2,000 judgments take with the ledger on, against the ideal and against the bare asynchronous client.

    python bench/judging.py [--calls 2000] [--repeats 2]

A server that is a process of its own answers after a fixed time. The ideal is calls / slots x answer time. The bare
client is `openai.AsyncOpenAI` as it comes, the same requests, nothing kept; both are measured in turn.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import openai
import openai_server
from judge_tools import call, remote
from marginbench.judging.client import judge_calls
from marginbench.judging.ledger import Ledger

SETTINGS = ((16, 0.05), (64, 0.2))
LIMIT = 1.25


def long_call(i):
    """A call of the size of an AlpacaEval comparison."""
    return call(
        i, messages=[{"role": "system", "content": "s" * 300}, {"role": "user", "content": f"{i} " + "u" * 3500}]
    )


def with_ledger(url, calls, slots):
    """Seconds that `judge_calls` takes, its ledger opened and closed."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        with Ledger(Path(folder, "ledger.sqlite")) as ledger:
            rows = judge_calls(remote(url, concurrency=slots), None, calls, ledger)
        taken = time.monotonic() - start
    assert all(row["preference"] is not None for row in rows)
    return taken


def bare(url, calls, slots):
    """Seconds that the client alone takes."""
    request = remote(url).request()

    async def run():
        left = iter(calls)
        async with openai.AsyncOpenAI(base_url=url, api_key="bench", max_retries=0) as client:

            async def slot():
                for one in left:
                    await client.chat.completions.create(model=openai_server.MODEL, messages=one["messages"], **request)

            await asyncio.gather(*[slot() for _ in range(slots)])

    start = time.monotonic()
    asyncio.run(run())
    return time.monotonic() - start


def main():
    """Print a table; exit code 1 when one of ours takes longer than the limit."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    os.environ["OPENAI_API_KEY"] = "bench"
    calls = [long_call(i) for i in range(given.calls)]
    missed = False
    print("| slots x answer | ideal s | with ledger s | x ideal | CPU ms a call | bare client s | x ideal |")
    print("|---|---|---|---|---|---|---|")
    for slots, delay in SETTINGS:
        server = subprocess.Popen(
            [sys.executable, openai_server.__file__, "--delay", str(delay)], stdout=subprocess.PIPE, text=True
        )
        try:
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
            ideal = given.calls / slots * delay
            for _ in range(given.repeats):
                before = time.process_time()
                ours = with_ledger(url, calls, slots)
                cpu = 1000 * (time.process_time() - before) / given.calls
                theirs = bare(url, calls, slots)
                missed |= ours > LIMIT * ideal
                print(
                    f"| {slots} x {1000 * delay:.0f} ms | {ideal:.2f} | {ours:.2f} | {ours / ideal:.2f} | {cpu:.2f} "
                    f"| {theirs:.2f} | {theirs / ideal:.2f} |",
                    flush=True,
                )
        finally:
            server.kill()
            server.wait()
    print(f"limit {LIMIT} x ideal: {'missed' if missed else 'held'}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
