"""Judge prompts: the template's format, how answers are placed into it, and how they are read back from it.

A template has a `<<<system>>>` and a `<<<user>>>` part and holds each of `{question}`, `{output_1}`, `{output_2}` once,
each inside a one-line JSON object. Texts are placed as JSON strings, so that nothing inside an answer can end its line
or pass for another answer.
"""

import json
import random
import re
from typing import NamedTuple

from marginbench.errors import UserError

LABELS = ("m", "M")
"""Labels of the answer shown first and second."""

FIELDS = ("question", "output_1", "output_2")

Messages = list[dict[str, str]]


class Shown(NamedTuple):
    """What a judge was shown: the question, the answer labelled `m` and the answer labelled `M`."""

    question: str
    first: str
    second: str


def is_switched(instruction: str) -> bool:
    """Whether AlpacaEval shows the method's answer first: it depends on the instruction only.

    Source: alpaca_eval's `PairwiseAnnotator` (annotator seed 0); see also its `random_seeded_choice`.
    """
    return random.Random(f"is_switched_outputs{instruction}0").choices([False, True])[0]


def fill(template: str, shown: Shown) -> Messages:
    """Chat messages of one judge call.

    Raises UserError for a template that lacks a part or a placeholder, or holds a placeholder twice.
    """
    parts = re.split(r"^<<<(system|user)>>>\n", template, flags=re.MULTILINE)
    if parts[0].strip() or parts[1::2] != ["system", "user"]:
        raise UserError("judge prompt template: needs a <<<system>>> part followed by a <<<user>>> part")
    for field in FIELDS:
        if template.count("{" + field + "}") != 1:
            raise UserError(f"judge prompt template: needs the placeholder {{{field}}} exactly once")
    values = dict(zip(FIELDS, shown, strict=True))
    pattern = re.compile("{(" + "|".join(FIELDS) + ")}")
    return [
        {
            "role": role,
            "content": pattern.sub(lambda found: json.dumps(values[found[1]], ensure_ascii=False), text.strip()),
        }
        for role, text in zip(parts[1::2], parts[2::2], strict=True)
    ]


def read_back(messages: Messages) -> Shown:
    """Question and answers of a filled template. ValueError when the messages hold no such prompt."""
    question: str | None = None
    answers: dict[str, str] = {}
    for message in messages:
        if message.get("role") != "user":
            continue
        for line in str(message.get("content", "")).split("\n"):
            if not line.startswith("{"):
                continue
            try:
                block = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(block.get("question"), str):
                question = block["question"]
            elif block.get("label") in LABELS and isinstance(block.get("answer"), str):
                answers[block["label"]] = block["answer"]
    if question is None or set(answers) != set(LABELS):
        raise ValueError("a user message must hold one JSON line with `question` and two with `label`, `answer`")
    return Shown(question, answers[LABELS[0]], answers[LABELS[1]])
