"""Judgment rows: the key of a call, and how one conversation with a judge becomes a row."""

import datetime
import time
from typing import Any

from marginbench.identity import content_id
from marginbench.judging.calls import Call
from marginbench.judging.endpoint import Endpoint, Lost
from marginbench.judging.prompts import Messages
from marginbench.judging.spec import JudgeSpec
from marginbench.judging.verdicts import (
    EMPTY,
    NO_LABEL,
    PAIRWISE,
    TRUNCATED,
    Verdict,
    read,
    text_of,
    verdict_columns,
)

VOLATILE = ("latency_s", "time")
"""Keys of a judgment that differ between two equal runs; strip them before comparing."""

LOST = "lost: "
"""How the reason of a call begins that got no answer, as opposed to one that was answered without a verdict."""


def call_key(spec: JudgeSpec, version: str, endpoint: str, call: Call) -> str:
    """What makes two calls the same call, whatever its items are named."""
    asked = [version, endpoint, spec.verdict, spec.request(), spec.follow_up, call["messages"]]
    return content_id(*asked, call["question"], call["answers"], call["order"], call["turn"], length=32)


def empty_row(spec: JudgeSpec, version: str, endpoint: str, call: Call) -> dict[str, Any]:
    """The judgment of a call before it is asked: who is asked what, no verdict."""
    switched = call["order"] == "method_first"
    return {
        "key": call_key(spec, version, endpoint, call),
        **own_names(spec, call),
        "turn": call["turn"],
        "judge_version": version,
        "endpoint": endpoint,
        "order": call["order"],
        "switched": switched,
        **verdict_columns(spec.verdict, Verdict(None), switched),
        **dict.fromkeys(("reason", "logprobs", "raw", "model_returned")),
        **dict.fromkeys(("tokens_in", "tokens_out"), 0),
        "price": 0.0,
        **dict.fromkeys(VOLATILE),
    }


def own_names(spec: JudgeSpec, call: Call) -> dict[str, Any]:
    """What a row says of a call that is not in its key: it is put on whatever the ledger holds under the key."""
    return {"question_id": call["question_id"], "answer_ids": call["answer_ids"], "judge": spec.id}


def identical(spec: JudgeSpec, call: Call, row: dict[str, Any]) -> dict[str, Any] | None:
    """The judgment of two equal answers, which nobody is asked about; None for any other call."""
    if spec.verdict in PAIRWISE and len(call["answers"]) == 2 and call["answers"][0] == call["answers"][1]:
        return {**row, "preference": 1.5, "reason": "identical"}
    return None


async def judge(spec: JudgeSpec, endpoint: Endpoint, version: str, call: Call, row: dict[str, Any]) -> dict[str, Any]:
    """Ask, and fill the row; a follow-up turn is added where the entry has one and the first reply holds no verdict.

    Raises UserError where the judge refuses as such.
    """
    model = version if spec.kind == "local_server" else spec.model
    messages: Messages = list(call["messages"])
    texts: list[str] = []
    row = {**row, "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    started = time.monotonic()
    try:
        for _ in range(1 if spec.follow_up is None else 2):
            reply = await endpoint.ask(model, messages)
            _count(spec, row, reply)
            choice, reason = _choice(reply, spec.answers_as or model)
            if reason is not None:
                verdict = Verdict(None, reason)
                row["raw"] = "\n".join([*texts, text_of(choice)])
                break
            texts.append(text_of(choice))
            row["raw"] = "\n".join(texts)
            if len(texts) > 1:
                choice = {**choice, "message": {"role": "assistant", "content": row["raw"]}}
            verdict = read(spec.verdict, choice)
            if verdict.reason not in (NO_LABEL, EMPTY, TRUNCATED):
                break
            messages = [
                *messages,
                {"role": "assistant", "content": texts[-1]},
                {"role": "user", "content": str(spec.follow_up)},
            ]
    except Lost as lost:
        verdict = Verdict(None, f"{LOST}{lost}" if lost.transient else str(lost))
    row |= verdict_columns(spec.verdict, verdict, row["switched"])
    return {**row, "reason": verdict.reason, "logprobs": verdict.logprobs, "latency_s": time.monotonic() - started}


def _choice(reply: dict[str, Any], model: str) -> tuple[dict[str, Any], str | None]:
    """The first choice; a reason where there is none, or where another model answered than was asked."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    if reply.get("model") != model:
        return choice, f"{str(reply.get('model'))[:100]} answered, not {model}"
    return choice, None if choice else "the reply holds no choice"


def _count(spec: JudgeSpec, row: dict[str, Any], reply: dict[str, Any]) -> None:
    usage = reply.get("usage")
    for name, theirs in (("tokens_in", "prompt_tokens"), ("tokens_out", "completion_tokens")):
        count = usage.get(theirs) if isinstance(usage, dict) else None
        row[name] += count if isinstance(count, int) else 0
    row["price"] = spec.price.of(row["tokens_in"], row["tokens_out"])
    row["model_returned"] = None if reply.get("model") is None else str(reply["model"])
