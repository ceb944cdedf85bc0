"""Judges with `mode: batch`: files of requests to an OpenAI-style batch endpoint, half the price, within a day.

What was submitted stands in a folder, one small JSON file for each batch, until all its results are in the ledger. A
run that is stopped while a batch is pending waits for the same batch when it is started again. A batch carries its name
as metadata, so that one whose submission was cut off half-way is found again rather than sent twice. Replies are joined
by `custom_id`, which is the call's key, and are read exactly as live ones.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from marginbench.errors import UserError
from marginbench.job import Progress, quiet
from marginbench.judging.batch_endpoint import Batches
from marginbench.judging.calls import Call
from marginbench.judging.endpoint import Lost, address, endpoint_name, model_version
from marginbench.judging.judgments import LOST, empty_row, identical, judge, own_names
from marginbench.judging.ledger import Ledger, is_answered
from marginbench.judging.spec import JudgeSpec


class _Asked(NamedTuple):
    call: Call
    blank: dict[str, Any]


def judge_in_batches(
    spec: JudgeSpec,
    calls: Sequence[Call],
    ledger: Ledger,
    folder: str | Path,
    progress: Progress = quiet,
    *,
    base_url: str | None = None,
    budget: float | None = None,
    predict: Callable[[Call], float] | None = None,
    allow_lost: bool = False,
    poll_s: float = 60.0,
    sleep: Callable[[float], None] = time.sleep,
) -> list[dict[str, Any]]:
    """One judgment for each call, in their order, as `client.judge_calls` gives; returns when all batches have ended.

    Args:
        ledger: where verdicts are looked up and every reply is committed.
        folder: what is submitted and not yet in the ledger; several jobs may share it.
        budget, predict: as in `judge_calls`; nothing is sent where the new requests would not fit.
        allow_lost: whether requests that expired or failed are returned as nulls. Otherwise they end the run; the next
            run sends them again.
        poll_s: seconds between looks at pending batches.

    Raises UserError when the server refuses (key, file) or can't be reached, when the budget does not reach, when
    requests got no answer, and when no verdict can be read at all. What was submitted is kept in all these cases.
    """
    where = endpoint_name(spec, address(spec, base_url))
    blanks = [empty_row(spec, model_version(spec), where, call) for call in calls]
    rows = ledger.get({blank["key"] for blank in blanks})
    todo: dict[str, _Asked] = {}
    for call, blank in zip(calls, blanks, strict=True):
        same = identical(spec, call, blank)
        if same is not None:
            rows.setdefault(blank["key"], same)
        elif blank["key"] not in rows:
            todo[blank["key"]] = _Asked(call, blank)
    if todo:
        with Batches(spec, base_url, Path(folder)) as batches:
            open_batches = batches.of(todo)
            pending = {key for batch in open_batches for key in batch["keys"]}
            new = {key: asked for key, asked in todo.items() if key not in pending}
            _check_budget(spec, ledger, budget, predict, [asked.call for asked in new.values()])
            open_batches += batches.submit({key: asked.call["messages"] for key, asked in new.items()})
            while open_batches:
                waiting = []
                for batch in open_batches:
                    replies = batches.replies(batch)
                    if replies is None:
                        waiting.append(batch)
                        continue
                    mine = [key for key in batch["keys"] if key in todo]
                    _take(spec, replies, mine, todo, ledger, rows)
                    others = set(batch["keys"]) - set(mine)
                    batches.keep(batch, others - set(ledger.get(others)))
                    progress(len(rows), len(rows) + sum(key not in rows for key in todo), spec.id)
                open_batches = waiting
                if waiting:
                    sleep(poll_s)
    judgments = [{**rows[blank["key"]], **own_names(spec, call)} for call, blank in zip(calls, blanks, strict=True)]
    _check_answers(spec, judgments, allow_lost)
    return judgments


class _Replay:
    """Answers as an endpoint does, with the one reply that a batch brought."""

    def __init__(self, reply: dict[str, Any] | Lost) -> None:
        self._reply: dict[str, Any] | Lost | None = reply

    async def ask(self, model: str, messages: object) -> dict[str, Any]:
        reply, self._reply = self._reply, None
        if reply is None:
            raise Lost("a follow-up turn can't be asked in a batch", transient=False)
        if isinstance(reply, Lost):
            raise reply
        return reply


def _take(
    spec: JudgeSpec,
    replies: Mapping[str, dict[str, Any] | Lost],
    keys: Sequence[str],
    todo: Mapping[str, _Asked],
    ledger: Ledger,
    rows: dict[str, dict[str, Any]],
) -> None:
    for key in keys:
        known = ledger.get([key]).get(key)  # another job may have waited for the same batch
        if known is None:
            call, blank = todo[key]
            reply = replies.get(key, Lost("its batch ended without a result for it"))
            row = asyncio.run(judge(spec, _Replay(reply), blank["judge_version"], call, blank))  # type: ignore[arg-type]
            known = ledger.put({**row, "latency_s": None})
        rows[key] = known


def _check_budget(
    spec: JudgeSpec,
    ledger: Ledger,
    budget: float | None,
    predict: Callable[[Call], float] | None,
    calls: Sequence[Call],
) -> None:
    if budget is None or not calls:
        return
    if predict is None:
        raise ValueError("a budget needs a prediction")
    spent, expected = ledger.spent(payer=ledger.payer), sum(map(predict, calls))
    if spent + expected > budget:
        raise UserError(
            f"judge `{spec.id}`: {len(calls)} calls would cost ${expected:.4f} beside ${spent:.4f} spent, more than "
            f"the budget of ${budget:.2f}; nothing new was sent, raise it and run again"
        )


def _check_answers(spec: JudgeSpec, rows: Sequence[dict[str, Any]], allow_lost: bool) -> None:
    nulls = Counter(row["reason"] for row in rows if not is_answered(row))
    if rows and sum(nulls.values()) == len(rows):
        reason, count = nulls.most_common(1)[0]
        raise UserError(f"judge `{spec.id}`: none of {len(rows)} verdicts could be read; {count} times: {reason}")
    lost = {reason: count for reason, count in nulls.items() if reason.startswith(LOST)}
    if lost and not allow_lost:
        raise UserError(
            f"judge `{spec.id}`: {sum(lost.values())} of {len(rows)} calls got no answer ({next(iter(lost))}); the "
            "others are kept, run again to ask for these"
        )
