"""Asking a judge: the `openai` client, one request per pair of answers, and how a reply becomes a preference.

A local judge is reached exactly as a remote one would be. A reply that cannot be read is a null with its reason, never
a default; identical answers are not sent at all. `preference` is in [1, 2] as in AlpacaEval: 1 is the baseline's win,
2 the method's, whichever was shown first.
"""

import asyncio
import datetime
import math
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict
from urllib.parse import urlsplit

import openai

from marginbench.errors import UserError
from marginbench.identity import content_id
from marginbench.job import Progress, quiet
from marginbench.judging.prompts import LABELS, Shown, fill, is_switched
from marginbench.judging.spec import JudgeSpec

VOLATILE = ("latency_s", "time")
"""Keys of a judgment that differ between two equal runs; strip them before comparing."""


class Item(TypedDict):
    """A pair to be judged. `turn` counts from 1 and is 1 where it is left out."""

    question_id: str
    question: str
    baseline_id: str
    baseline: str
    answer_id: str
    answer: str
    turn: NotRequired[int]


class Verdict(NamedTuple):
    """What was read from a reply: P(second answer wins) and the two log-probs, or the reason why there is none."""

    p_second: float | None
    reason: str | None
    logprobs: dict[str, float] | None


def read_verdict(choice: Any) -> Verdict:
    """The verdict in one choice of a chat completion, by AlpacaEval's rule.

    Among the top tokens of the first position `m` and `M` are kept; P is their softmax; one that is missing counts 0.
    """
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not content:
        return Verdict(None, "the reply carries no log-probs", None)
    found = {top.token: float(top.logprob) for top in content[0].top_logprobs if top.token in LABELS}
    if not found:
        return Verdict(None, "neither m nor M is among the top tokens", None)
    weights = [math.exp(found[label] - max(found.values())) if label in found else 0.0 for label in LABELS]
    return Verdict(weights[1] / sum(weights), None, found)


def unswap(p_second: float, switched: bool) -> float:
    """Preference in [1, 2] for the method; `switched` says that the method's answer was shown first."""
    return 2.0 - p_second if switched else 1.0 + p_second


def judge_pairs(
    spec: JudgeSpec, base_url: str | None, items: Sequence[Item], progress: Progress = quiet
) -> list[dict[str, Any]]:
    """Judge every item; judgments come back in the order of the items (both orders next to each other if asked).

    `base_url` is the local server's; None takes the entry's own. Raises UserError when the judge refuses as such (key,
    model name), when OPENAI_API_KEY is missing for a remote judge, and when not one verdict could be read.
    """
    base_url = base_url or spec.base_url
    if spec.kind == "local_server" and base_url is None:
        raise UserError(f"judge `{spec.id}`: a local_server judge is asked at the address of its running server")
    judgments = asyncio.run(_judge_all(spec, base_url, list(items), progress))
    reasons = Counter(row["reason"] for row in judgments if row["preference"] is None)
    if judgments and sum(reasons.values()) == len(judgments):
        reason, count = reasons.most_common(1)[0]
        raise UserError(f"judge `{spec.id}`: none of {len(judgments)} verdicts could be read; {count} times: {reason}")
    return judgments


def summarise(judgments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Counts, tokens and price of a list of judgments, and how often the answer shown first won."""
    sent = [row for row in judgments if row["reason"] != "identical"]
    read = [row for row in sent if row["preference"] is not None]
    first = [2.0 - row["preference"] if not row["switched"] else row["preference"] - 1.0 for row in read]
    shown = {
        side: [row["preference"] - 1.0 for row in read if row["switched"] is (side == "first")]
        for side in ("first", "second")
    }
    gap = (
        100.0 * (math.fsum(shown["second"]) / len(shown["second"]) - math.fsum(shown["first"]) / len(shown["first"]))
        if shown["first"] and shown["second"]
        else None
    )
    return {
        "n": len(judgments),
        "n_sent": len(sent),
        "n_identical": len(judgments) - len(sent),
        "n_null": len(sent) - len(read),
        "null_reasons": dict(sorted(Counter(row["reason"] for row in sent if row["preference"] is None).items())),
        "p_first": math.fsum(first) / len(first) if first else None,
        "position_gap": gap,
        "tokens_in": sum(row["tokens_in"] or 0 for row in judgments),
        "tokens_out": sum(row["tokens_out"] or 0 for row in judgments),
        "price": math.fsum(row["price"] or 0.0 for row in judgments),
    }


async def _judge_all(
    spec: JudgeSpec, base_url: str | None, items: list[Item], progress: Progress
) -> list[dict[str, Any]]:
    template = spec.template()
    slots = asyncio.Semaphore(spec.concurrency)
    async with _client(spec, base_url) as client:
        version = await _version(spec, client)
        calls = [
            _judge_one(spec, client, version, template, slots, item, switched)
            for item in items
            for switched in ((False, True) if spec.order == "both" else (is_switched(item["question"]),))
        ]
        tasks = [asyncio.ensure_future(call) for call in calls]
        try:
            for done, finished in enumerate(asyncio.as_completed(tasks), start=1):
                await finished
                progress(done, len(tasks), spec.id)
        finally:
            for task in tasks:
                task.cancel()
        return [task.result() for task in tasks]


def _client(spec: JudgeSpec, base_url: str | None) -> openai.AsyncOpenAI:
    if spec.kind == "local_server":
        # A proxy from the environment must not come between us and loopback, and no real key may reach it.
        http_client = openai.DefaultAsyncHttpxClient(trust_env=False)
        key = "local"
    else:
        http_client = None
        key = os.environ.get("OPENAI_API_KEY", "")
        if not key:
            raise UserError(f"judge `{spec.id}`: the environment variable OPENAI_API_KEY is not set; export the key")
    return openai.AsyncOpenAI(
        base_url=base_url,
        api_key=key,
        http_client=http_client,
        timeout=spec.timeout_s,
        max_retries=spec.max_retries,
    )


async def _version(spec: JudgeSpec, client: openai.AsyncOpenAI) -> str:
    """The judge's version, a part of every key: the name a local server answers to, or the dated model name."""
    if spec.kind == "openai":
        return f"{spec.model} ({spec.model_date})"
    try:
        names = [model.id async for model in client.models.list()]
    except openai.OpenAIError as error:
        raise UserError(
            f"judge `{spec.id}`: its server at {client.base_url} does not answer: {_line(error)}"
        ) from error
    mine = [name for name in names if name.startswith(f"{spec.id}@")]
    if len(mine) != 1:
        raise UserError(f"judge `{spec.id}`: the server at {client.base_url} serves {', '.join(names) or 'nothing'}")
    return mine[0]


def _endpoint(spec: JudgeSpec, client: openai.AsyncOpenAI) -> str:
    if spec.kind == "local_server":
        return f"local_server:{spec.backend}"
    return f"openai:{urlsplit(str(client.base_url)).netloc}"


async def _judge_one(
    spec: JudgeSpec,
    client: openai.AsyncOpenAI,
    version: str,
    template: str,
    slots: asyncio.Semaphore,
    item: Item,
    switched: bool,
) -> dict[str, Any]:
    pair = (item["answer"], item["baseline"]) if switched else (item["baseline"], item["answer"])
    turn = item.get("turn", 1)
    decoding = spec.decoding.model_dump()
    endpoint = _endpoint(spec, client)
    row: dict[str, Any] = {
        "key": content_id(
            version,
            endpoint,
            spec.prompt_sha256,
            decoding,
            item["question"],
            turn,
            pair[0],
            pair[1],
            switched,
            length=32,
        ),
        "question_id": item["question_id"],
        "turn": turn,
        "answer_ids": [item["baseline_id"], item["answer_id"]],
        "judge": spec.id,
        "judge_version": version,
        "endpoint": endpoint,
        "order": "method_first" if switched else "baseline_first",
        "switched": switched,
        **dict.fromkeys(("preference", "reason", "logprobs", "raw", "model_returned")),
        **dict.fromkeys(("tokens_in", "tokens_out"), 0),
        "price": 0.0,
        **dict.fromkeys(VOLATILE),
    }
    if item["answer"] == item["baseline"]:
        return {**row, "preference": 1.5, "reason": "identical"}
    async with slots:
        started = time.monotonic()
        row["time"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        try:
            reply = await client.chat.completions.create(
                model=version if spec.kind == "local_server" else spec.model,
                messages=fill(template, Shown(item["question"], *pair)),  # type: ignore[arg-type]
                **decoding,
            )
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise UserError(f"judge `{spec.id}`: {endpoint} refuses: {_line(error)}") from error
        except (openai.OpenAIError, ValueError) as error:
            return {**row, "reason": f"{type(error).__name__}: {_line(error)}", "latency_s": time.monotonic() - started}
    row["latency_s"] = time.monotonic() - started
    row["model_returned"] = getattr(reply, "model", None)
    usage = getattr(reply, "usage", None)
    if usage is not None:
        row["tokens_in"], row["tokens_out"] = usage.prompt_tokens, usage.completion_tokens
        row["price"] = spec.price.of(usage.prompt_tokens, usage.completion_tokens)
    choices = getattr(reply, "choices", None)
    if not choices:
        return {**row, "reason": "the reply holds no choice"}
    verdict = read_verdict(choices[0])
    row["raw"] = getattr(getattr(choices[0], "message", None), "content", None)
    row["logprobs"], row["reason"] = verdict.logprobs, verdict.reason
    if verdict.p_second is not None:
        row["preference"] = unswap(verdict.p_second, switched)
    return row


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
