"""One raw row of a preference dataset -> prompt, chosen and rejected, in the three layouts that are about.

`columns`: a prompt and two answers, each a string or a list of messages (which may repeat the prompt);
`hh`: two whole transcripts with `Human:` and `Assistant:` turns (Anthropic HH-RLHF);
`sharegpt`: a conversation and two answers in from/value form.
"""

import math
import re
from dataclasses import dataclass
from typing import Any

from marginbench.data.messages import MessageError, Messages, as_messages, chat_prompt, plain_prompt
from marginbench.data.problems import RowProblem
from marginbench.study import Columns

ASSISTANT = "\n\nAssistant:"
TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class RawPair:
    """A parsed row; ratings are None when the dataset has none."""

    prompt: Messages
    chosen: str
    rejected: str
    score_chosen: float | None
    score_rejected: float | None


def layout_columns(columns: Columns, layout: str) -> Columns:
    """The columns that a layout reads: HH has no prompt column, sharegpt calls it `conversations` by default."""
    if layout == "hh":
        return columns.model_copy(update={"prompt": None})
    if layout == "sharegpt" and columns.prompt == "prompt":
        return columns.model_copy(update={"prompt": "conversations"})
    return columns


def wanted_columns(columns: Columns) -> list[str]:
    """Names of the columns that must be there."""
    names = (columns.prompt, columns.chosen, columns.rejected, columns.score_chosen, columns.score_rejected)
    return [name for name in names if name is not None]


def _rating(row: dict[str, Any], name: str | None) -> float | None:
    if name is None:
        return None
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RowProblem("rating_not_a_number", f"`{name}` is {str(value)[:30]!r}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise RowProblem("rating_not_a_number", f"`{name}` is {number}")
    return number


def _messages(value: Any, name: str) -> Messages:
    try:
        return as_messages(value)
    except MessageError as error:
        raise RowProblem("wrong_type", f"`{name}`: {error}") from error


def _answer(value: Any, name: str) -> tuple[Messages, str]:
    """The messages before an answer (none for a string) and the answer."""
    if isinstance(value, str):
        return [], value
    messages = _messages(value, name)
    if messages[-1]["role"] != "assistant":
        raise RowProblem("wrong_type", f"`{name}` does not end with a message of the assistant")
    return messages[:-1], messages[-1]["content"]


def _same_prompt(prompt: Messages | str | None, context: Messages) -> bool:
    """Whether a prompt column agrees with the messages that precede the answer; a string must be one of the turns."""
    if prompt is None or prompt == context:
        return True
    return isinstance(prompt, str) and any(m["role"] == "user" and m["content"] == prompt for m in context)


def _from_columns(row: dict[str, Any], columns: Columns, text_format: str) -> tuple[Messages, str, str]:
    before_chosen, chosen = _answer(row[columns.chosen], columns.chosen)
    before_rejected, rejected = _answer(row[columns.rejected], columns.rejected)
    prompt = row[columns.prompt] if columns.prompt is not None else None
    if prompt is not None and not isinstance(prompt, str):
        prompt = _messages(prompt, str(columns.prompt))
    for context, name in ((before_chosen, columns.chosen), (before_rejected, columns.rejected)):
        if context and not _same_prompt(prompt, context):
            raise RowProblem("different_prompts", f"the messages of `{name}` don't begin with `{columns.prompt}`")
    if before_chosen and before_rejected and before_chosen != before_rejected:
        raise RowProblem("different_prompts", "the messages before the two answers differ")
    context = before_chosen or before_rejected
    if not context and prompt is None:
        raise RowProblem("missing_value", "there is no prompt: name its column, or use layout hh for transcripts")
    messages = context or (prompt if isinstance(prompt, list) else chat_prompt(prompt))
    if text_format == "plain":
        if len(messages) > 1:
            raise RowProblem("wrong_type", f"a prompt of {len(messages)} messages is no plain text; use format chat")
        messages = plain_prompt(messages[0]["content"])
    elif messages[-1]["role"] not in ("user", "tool"):
        raise RowProblem("wrong_type", f"the prompt ends with a message of the {messages[-1]['role']}")
    return messages, chosen, rejected


def transcript_messages(text: str) -> Messages:
    """Turns of an HH transcript that begins with one; contents stripped. Raises RowProblem otherwise."""
    parts = TURN.split("\n\n" + text.lstrip())
    if parts[0].strip() or len(parts) < 3:
        raise RowProblem("wrong_type", "not a transcript: it must begin with `Human:` or `Assistant:`")
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[role], "content": content.strip()}
        for role, content in zip(parts[1::2], parts[2::2], strict=True)
    ]


def _from_transcripts(row: dict[str, Any], columns: Columns, text_format: str) -> tuple[Messages, str, str]:
    chosen, rejected = row[columns.chosen], row[columns.rejected]
    for name, text in ((columns.chosen, chosen), (columns.rejected, rejected)):
        if not isinstance(text, str):
            raise RowProblem("wrong_type", f"`{name}` is a {type(text).__name__}, not a transcript")
        if not text.strip():
            raise RowProblem("empty_text", f"`{name}`")
        if transcript_messages(text)[-1]["role"] != "assistant":
            raise RowProblem("wrong_type", f"`{name}` does not end with a turn of the assistant")
    if chosen == rejected:
        raise RowProblem("identical_answers", "")
    pairs = zip(chosen, rejected, strict=False)
    shared = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(chosen), len(rejected)))
    end = chosen.rfind(ASSISTANT, 0, shared)
    if end < 0:
        raise RowProblem("different_prompts", "the transcripts share no `Assistant:`")
    end += len(ASSISTANT)
    answers = chosen[end:], rejected[end:]
    if any(TURN.search(answer) for answer in answers):
        raise RowProblem("different_prompts", "the transcripts part before the last turn")
    if text_format == "plain":
        return plain_prompt(chosen[:end]), *answers
    messages = transcript_messages(chosen[: end - len(ASSISTANT)])
    return messages, answers[0].strip(), answers[1].strip()


def parse_row(row: dict[str, Any], columns: Columns, layout: str, text_format: str) -> RawPair:
    """One pair of a raw row. `columns` are those of `layout_columns`. Raises RowProblem with the kind of problem."""
    for name in wanted_columns(columns):
        if name not in row:
            raise RowProblem("missing_column", f"`{name}`")
        if row[name] is None:
            raise RowProblem("missing_value", f"`{name}`")
    parse = _from_transcripts if layout == "hh" else _from_columns
    prompt, chosen, rejected = parse(row, columns, text_format)
    named = [(f"message {i} of the prompt", m["content"]) for i, m in enumerate(prompt)]
    for name, text in [*named, (f"`{columns.chosen}`", chosen), (f"`{columns.rejected}`", rejected)]:
        if not text.strip():
            raise RowProblem("empty_text", name)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise RowProblem("not_utf8", f"{name} holds half of a surrogate pair") from error
    if chosen == rejected:
        raise RowProblem("identical_answers", "")
    return RawPair(prompt, chosen, rejected, _rating(row, columns.score_chosen), _rating(row, columns.score_rejected))
