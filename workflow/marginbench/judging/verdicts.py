"""From one choice of a chat completion to a verdict, or to the reason why there is none. Never a default.

A choice is the JSON object as the server sent it, so that replies of the live client and of batch files are read alike.
"""

import ast
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from marginbench.judging.prompts import LABELS
from marginbench.judging.rating_text import read_rating
from marginbench.judging.verdict_texts import arena_v01_asks_again, parse_arena_v01, parse_arena_v20

NO_LOGPROBS = "the reply carries no log-probs"
NO_LABEL = "the reply holds no verdict"
EMPTY = "the reply is empty"
REFUSED = "the judge refused"
SEVERAL = "the reply holds several labels that differ"
TRUNCATED = "the reply was cut off before its verdict"


class Verdict(NamedTuple):
    """What was read from a reply.

    Attributes:
        value: `logprobs` and `ranking`: P(the answer shown second wins), in [0, 1]; arena kinds: the label,
            A is shown first; `rating`: the grade. None where nothing could be read.
        reason: why there is no value.
        logprobs: log-probabilities of the labels that were found.
    """

    value: float | str | None
    reason: str | None = None
    logprobs: dict[str, float] | None = None


def read_logprobs(choice: dict[str, Any]) -> Verdict:
    """AlpacaEval 2: among the top tokens of the first position `m` and `M` are kept, P is their softmax.

    A label that is missing counts 0. A reply without log-probs is a null; its text is never read in their place.
    """
    content = (choice.get("logprobs") or {}).get("content")
    if not content:
        return Verdict(None, NO_LOGPROBS)
    found = {top["token"]: float(top["logprob"]) for top in content[0]["top_logprobs"] if top["token"] in LABELS}
    if not found:
        return Verdict(None, "neither m nor M is among the top tokens")
    weights = [math.exp(found[label] - max(found.values())) if label in found else 0.0 for label in LABELS]
    return Verdict(weights[1] / sum(weights), None, found)


def read_ranking(choice: dict[str, Any]) -> Verdict:
    """AlpacaEval 1, and any judge without log-probs: a Python list of `{"model": "model_1", "rank": 1}` and the like.

    model_1 is shown first. Source: alpaca_eval's `ranking_parser`, which looks at the rank of model_1 alone.
    """
    try:
        ranks = [entry["rank"] for entry in ast.literal_eval(text_of(choice).strip()) if entry["model"] == "model_1"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        return Verdict(None, NO_LABEL)
    return Verdict(float(ranks[0] - 1)) if ranks and ranks[0] in (1, 2) else Verdict(None, NO_LABEL)


def read_arena_v01(choice: dict[str, Any]) -> Verdict:
    """Arena-Hard v0.1: the label, if all labels in the text are the same one."""
    text = text_of(choice)
    label = parse_arena_v01(text)
    if label is None:
        return Verdict(None, NO_LABEL if arena_v01_asks_again(text) else SEVERAL)
    return Verdict(label)


def read_arena_v20(choice: dict[str, Any]) -> Verdict:
    """Arena-Hard v2.0: the last label in the text."""
    label = parse_arena_v20(text_of(choice))
    return Verdict(label, NO_LABEL if label is None else None)


def read_grade(choice: dict[str, Any]) -> Verdict:
    """MT-Bench: the first rating in brackets, from 1 to 10."""
    rating, reason = read_rating(text_of(choice))
    return Verdict(rating, reason)


READERS: dict[str, Callable[[dict[str, Any]], Verdict]] = {
    "logprobs": read_logprobs,
    "ranking": read_ranking,
    "arena_v01": read_arena_v01,
    "arena_v20": read_arena_v20,
    "rating": read_grade,
}
"""How a reply is read, by the `verdict` of a judge's entry."""

PAIRWISE = ("logprobs", "ranking")
"""Kinds whose value is a preference between the two answers."""


def read(kind: str, choice: dict[str, Any]) -> Verdict:
    """The verdict of kind `kind` in one choice. A choice of another shape is a null, as every unreadable one.

    A null of a text verdict says, where it is known, why there is no verdict: refused, empty, cut off.
    """
    refusal = isinstance(choice.get("message"), dict) and choice["message"].get("refusal")
    if refusal or choice.get("finish_reason") == "content_filter":
        return Verdict(None, REFUSED)
    try:
        verdict = READERS[kind](choice)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        return Verdict(None, f"the reply has another shape than a chat completion ({type(error).__name__})")
    if verdict.value is None and kind != "logprobs":
        if not text_of(choice).strip():
            return Verdict(None, EMPTY)
        if choice.get("finish_reason") == "length" and verdict.reason != SEVERAL:
            return Verdict(None, TRUNCATED)
    return verdict


def text_of(choice: dict[str, Any]) -> str:
    """The reply's text; empty where it has none."""
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    return text if isinstance(text, str) else ""


def unswap(p_second: float, switched: bool) -> float:
    """Preference in [1, 2] for the method; `switched` says that the method's answer was shown first."""
    return 2.0 - p_second if switched else 1.0 + p_second


def verdict_columns(kind: str, verdict: Verdict, switched: bool) -> dict[str, Any]:
    """The column of a judgment that holds the verdict: `preference` in [1, 2], `label`, or `rating`."""
    if kind in PAIRWISE:
        return {"preference": None if verdict.value is None else unswap(float(verdict.value), switched)}
    return {"rating" if kind == "rating" else "label": verdict.value}
