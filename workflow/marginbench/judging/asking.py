"""One judge asked a list of calls, wherever it is: a local server for the while, an endpoint, or its batch files."""

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from marginbench.job import Progress, quiet
from marginbench.judging.batch import judge_in_batches
from marginbench.judging.calls import Call
from marginbench.judging.client import judge_calls
from marginbench.judging.cost import predict
from marginbench.judging.ledger import Ledger
from marginbench.judging.server import local_server
from marginbench.judging.spec import JudgeSpec


def ask(
    spec: JudgeSpec,
    calls: Sequence[Call],
    *,
    weights: str | Sequence[str],
    ledger: str | Path,
    payer: str,
    batches: str | Path,
    log: str | Path,
    budget: float | None = None,
    progress: Progress = quiet,
) -> list[dict[str, Any]]:
    """One judgment for each call, in their order; what the ledger holds is not asked again.

    Args:
        weights: what a local judge serves: the path, or a list of it; empty for a judge that is elsewhere.
        payer: whose budget it is, a study.
        batches: folder of what is submitted and pending, for judges with `mode: batch`.
        log: where a local server writes.

    Raises UserError as `judge_calls` and `judge_in_batches` do.
    """
    price = partial(predict, spec)
    with Ledger(ledger, payer) as kept:
        if spec.mode == "batch":
            return judge_in_batches(spec, calls, kept, batches, progress, budget=budget, predict=price)
        if spec.kind == "local_server":
            served = weights if isinstance(weights, str) else weights[0]
            server = local_server(spec, served, log)
        else:
            server = nullcontext(None)
        with server as base_url:
            return judge_calls(spec, base_url, calls, kept, progress, budget=budget, predict=price)
