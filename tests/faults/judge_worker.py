"""A process that judges: `judge_worker.py URL LEDGER LOG OUT N`, as a rule's script does it."""

import sys

from judge_tools import call, remote
from marginbench.job import job

url, ledger, log, out, count = sys.argv[1:]
with job("judge", log) as progress:
    from marginbench.files import write_jsonl
    from marginbench.judging.client import judge_calls
    from marginbench.judging.ledger import Ledger

    calls = [call(i) for i in range(int(count))]
    write_jsonl(out, judge_calls(remote(url, max_retries=0), None, calls, Ledger(ledger), progress))
