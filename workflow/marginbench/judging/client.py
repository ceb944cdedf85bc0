"""Asking a judge: a list of calls in, a list of judgments in the same order out; each call is paid for once.

A local judge is reached exactly as a remote one would be. A reply that cannot be read is a null with its reason, never
a default; identical answers are not sent at all. A verdict counts once the ledger has committed it.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, NotRequired, TypedDict

from marginbench.errors import UserError
from marginbench.job import Progress, quiet
from marginbench.judging.calls import Call, Order
from marginbench.judging.endpoint import Endpoint, address, endpoint_name, model_version
from marginbench.judging.judgments import LOST, empty_row, identical, judge, own_names
from marginbench.judging.ledger import Ledger, is_answered
from marginbench.judging.prompts import is_switched
from marginbench.judging.spec import JudgeSpec

HOPELESS = 20
"""A run whose first replies, this many or two for each slot, hold no verdict at all stops, before more is paid for."""


class Item(TypedDict):
    """A pair to be judged. `turn` counts from 1 and is 1 where it is left out."""

    question_id: str
    question: str
    baseline_id: str
    baseline: str
    answer_id: str
    answer: str
    turn: NotRequired[int]


def judge_pairs(
    spec: JudgeSpec,
    base_url: str | None,
    items: Sequence[Item],
    progress: Progress = quiet,
    ledger: Ledger | None = None,
) -> list[dict[str, Any]]:
    """Judge every item; judgments come back in the order of the items (both orders next to each other if asked).

    A call that got no answer is a null with its reason. Raises UserError as `judge_calls` does.
    """
    return judge_calls(spec, base_url, pair_calls(spec, items), ledger, progress, allow_lost=True)


def pair_calls(spec: JudgeSpec, items: Sequence[Item]) -> list[Call]:
    """The calls of pairs of answers, in the orders that the judge's entry asks for."""
    calls: list[Call] = []
    for item in items:
        for switched in (False, True) if spec.order == "both" else (is_switched(item["question"]),):
            answers = [item["answer"], item["baseline"]] if switched else [item["baseline"], item["answer"]]
            order: Order = "method_first" if switched else "baseline_first"
            fields = {"question": item["question"], "output_1": answers[0], "output_2": answers[1]}
            calls.append(
                Call(
                    question_id=item["question_id"],
                    turn=item.get("turn", 1),
                    order=order,
                    question=item["question"],
                    answers=answers,
                    answer_ids=[item["baseline_id"], item["answer_id"]],
                    messages=spec.messages(fields),
                )
            )
    return calls


def judge_calls(
    spec: JudgeSpec,
    base_url: str | None,
    calls: Sequence[Call],
    ledger: Ledger | None = None,
    progress: Progress = quiet,
    *,
    budget: float | None = None,
    predict: Callable[[Call], float] | None = None,
    allow_lost: bool = False,
) -> list[dict[str, Any]]:
    """One judgment for each call, in their order.

    Args:
        base_url: the local server's; None takes the entry's own.
        ledger: where verdicts are looked up and every reply is committed; without one nothing outlives the run.
        budget: US dollars that the ledger's payer may spend in all; checked before each call is sent.
        predict: US dollars that a call will cost; needed where a budget is set.
        allow_lost: whether calls that got no answer at all are returned as nulls. Otherwise they end the run.

    Raises UserError, with every reply so far committed, when the judge refuses as such (key, account, model name), when
    the key of a remote judge is missing, when the budget does not reach for the next call, when no verdict can be read
    at all, and when calls got no answer.
    """
    if budget is not None and (ledger is None or predict is None):
        raise ValueError("a budget needs a ledger and a prediction")
    rows = asyncio.run(_Run(spec, ledger, progress, budget, predict).judgments(base_url, list(calls)))
    nulls = Counter(row["reason"] for row in rows if not is_answered(row))
    if rows and sum(nulls.values()) == len(rows):
        reason, count = nulls.most_common(1)[0]
        raise UserError(f"judge `{spec.id}`: none of {len(rows)} verdicts could be read; {count} times: {reason}")
    lost = Counter({reason: count for reason, count in nulls.items() if reason.startswith(LOST)})
    if lost and not allow_lost:
        raise UserError(
            f"judge `{spec.id}`: {sum(lost.values())} of {len(rows)} calls got no answer ({next(iter(lost))}); "
            "the others are kept, run again to ask for these"
        )
    return rows


class _Run:
    """One run over a list of calls: what is known already, a queue of what is not, and as many workers as slots."""

    def __init__(
        self,
        spec: JudgeSpec,
        ledger: Ledger | None,
        progress: Progress,
        budget: float | None,
        predict: Callable[[Call], float] | None,
    ) -> None:
        self._spec, self._ledger, self._progress, self._budget = spec, ledger, progress, budget
        self._predict = predict if budget is not None and predict is not None else lambda call: 0.0
        self._stopped = asyncio.Event()
        self._error: UserError | None = None
        self._rows: dict[str, dict[str, Any]] = {}
        self._queue: deque[tuple[Call, dict[str, Any]]] = deque()
        self._in_flight = 0.0
        self._replies = 0
        self._any_answered = False

    async def judgments(self, base_url: str | None, calls: list[Call]) -> list[dict[str, Any]]:
        spec, where = self._spec, endpoint_name(self._spec, address(self._spec, base_url))
        if spec.kind == "local_server":
            async with Endpoint(spec, base_url, self._stopped) as endpoint:
                blanks = self._look_up(calls, await endpoint.version(), where)
                await self._ask(endpoint)
        else:
            blanks = self._look_up(calls, model_version(spec), where)
            if self._queue:  # what the ledger answers needs no key
                async with Endpoint(spec, base_url, self._stopped) as endpoint:
                    await self._ask(endpoint)
        return [{**self._rows[row["key"]], **own_names(spec, call)} for call, row in zip(calls, blanks, strict=True)]

    def _look_up(self, calls: list[Call], version: str, where: str) -> list[dict[str, Any]]:
        blanks = [empty_row(self._spec, version, where, call) for call in calls]
        known = self._ledger.get({row["key"] for row in blanks}) if self._ledger else {}
        self._counts = Counter(row["key"] for row in blanks)
        self._total, self._done = len(calls), 0
        queued = set()
        for call, row in zip(calls, blanks, strict=True):
            key = row["key"]
            if key in self._rows or key in queued:
                continue
            found = known.get(key) or identical(self._spec, call, row)
            if found is not None:
                self._finish(key, found)
            else:
                queued.add(key)
                self._queue.append((call, row))
        return blanks

    def _finish(self, key: str, row: dict[str, Any]) -> None:
        self._rows[key] = row
        self._done += self._counts[key]
        self._progress(self._done, self._total, self._spec.id)

    async def _ask(self, endpoint: Endpoint) -> None:
        """Work off the queue. On an error nothing more is sent, and what is in flight may still end its present try."""
        slots = min(self._spec.concurrency, len(self._queue))
        workers = [asyncio.ensure_future(self._work(endpoint)) for _ in range(slots)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
        if self._error is not None:
            raise self._error

    async def _work(self, endpoint: Endpoint) -> None:
        try:
            while self._queue and not self._stopped.is_set():
                await self._settle(endpoint, *self._queue.popleft())
        except UserError as error:
            self._error = self._error or error
            self._stopped.set()

    async def _settle(self, endpoint: Endpoint, call: Call, blank: dict[str, Any]) -> None:
        key = blank["key"]
        if self._ledger and (found := self._ledger.get([key]).get(key)):  # another job may have asked meanwhile
            return self._finish(key, found)
        expected = self._predict(call)
        self._check_budget(expected)
        self._in_flight += expected
        row = await judge(self._spec, endpoint, blank["judge_version"], call, blank)
        self._in_flight -= expected
        if self._ledger:
            row = self._ledger.put(row)
        self._finish(key, row)
        self._check_hope(row)

    def _check_budget(self, expected: float) -> None:
        if self._budget is None or self._ledger is None:
            return
        spent = self._ledger.spent(payer=self._ledger.payer)
        if spent + self._in_flight + expected > self._budget:
            left = len(self._queue) + 1
            raise UserError(
                f"judge `{self._spec.id}`: the budget of ${self._budget:.2f} is used up (${spent:.4f} spent, "
                f"${self._in_flight + expected:.4f} in flight and next); {left} calls are left; raise it and run again"
            )

    def _check_hope(self, row: dict[str, Any]) -> None:
        self._replies += 1
        self._any_answered |= is_answered(row)
        if not self._any_answered and self._queue and self._replies >= max(HOPELESS, 2 * self._spec.concurrency):
            raise UserError(
                f"judge `{self._spec.id}`: none of the first {self._replies} verdicts could be read; the last: "
                f"{row['reason']}; {len(self._queue)} calls are not sent"
            )
