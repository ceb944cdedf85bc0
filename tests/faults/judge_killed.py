"""What the kill test starts, and kills: one run over all calls."""

import os

from judge_tools import call, remote
from marginbench.judging.client import judge_calls
from marginbench.judging.ledger import Ledger


def run(url, ledger, name, count, slots):
    """Judge all calls; the server sees the run's name as its key."""
    os.environ["OPENAI_API_KEY"] = name
    judge_calls(remote(url, concurrency=slots), None, [call(i) for i in range(count)], Ledger(ledger))
