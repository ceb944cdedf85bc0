"""Judge prompts: the formats of a template, how texts are placed into it, and how a local judge reads them back.

Three formats are known by how they begin: our own (`<<<system>>>`, `<<<user>>>`), ChatML as in alpaca_eval's files, and
a JSON list of messages as the fetch step writes it. In our own templates every text stands in a one-line JSON object as
a JSON string, so that nothing inside an answer can end its line or pass for another answer. Official prompts take texts
as they are. All placeholders are filled in one pass: what looks like a placeholder inside an answer stays as it is.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Mapping
from typing import Literal, NamedTuple

from marginbench.errors import UserError

LABELS = ("m", "M")
"""Labels of the answer shown first and second in a pairwise prompt."""

ASSISTANTS = ("A", "B")
"""Names of the two sides in an Arena-Hard prompt."""

ALIASES = {"instruction": "question"}
"""Placeholders of official templates that name one of our fields differently."""

FIELDS = (
    *("question", "output_1", "output_2", "answer_a", "answer_b", "answer", "reference"),
    *("question_1", "answer_1", "reference_1", "question_2", "answer_2", "reference_2"),
)
"""Every field that a template may ask for: pairwise, Arena-Hard, and ratings of one turn and of two."""

Escape = Literal["json", "plain"]
"""How a text is placed: as a JSON string, or as it is."""

Messages = list[dict[str, str]]

_PLACEHOLDER = re.compile("{(" + "|".join([*FIELDS, *ALIASES]) + ")}")


class Shown(NamedTuple):
    """What a pairwise judge was shown: the question, the answer labelled `m` and the answer labelled `M`."""

    question: str
    first: str
    second: str


class Asked(NamedTuple):
    """What a local judge was asked: a choice between labels, an Arena-Hard verdict, or a rating of one answer."""

    kind: Literal["pairwise", "arena", "rating"]
    question: str
    answers: tuple[str, ...]


def is_switched(instruction: str) -> bool:
    """Whether AlpacaEval shows the method's answer first: it depends on the instruction only.

    Source: alpaca_eval's `PairwiseAnnotator` (annotator seed 0); see also its `random_seeded_choice`.
    """
    return random.Random(f"is_switched_outputs{instruction}0").choices([False, True])[0]


def parse_template(template: str) -> Messages:
    """A template's messages, placeholders still in them. UserError when it is in none of the three formats."""
    if template.startswith("["):
        try:
            messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in json.loads(template)]
        except (ValueError, TypeError, KeyError) as error:
            raise UserError("judge prompt template: not a JSON list of messages with `role` and `content`") from error
        return messages
    if template.startswith("<|im_start|>"):
        found = re.findall(r"<\|im_start\|>(system|user|assistant)\n(.*?)<\|im_end\|>", template, flags=re.DOTALL)
        return [{"role": role, "content": text.strip()} for role, text in found]
    parts = re.split(r"^<<<(system|user)>>>\n", template, flags=re.MULTILINE)
    if parts[0].strip() or parts[1::2] != ["system", "user"]:
        raise UserError("judge prompt template: needs a <<<system>>> part followed by a <<<user>>> part")
    return [{"role": role, "content": text.strip()} for role, text in zip(parts[1::2], parts[2::2], strict=True)]


def fill(template: str, fields: Mapping[str, str] | Shown, escape: Escape = "json") -> Messages:
    """Chat messages of one judge call.

    Raises UserError for a template in no known format, one that asks for a field that is not given, and one that lacks
    the placeholder of a given field (or holds it twice: official templates repeat questions, ours don't).
    """
    if isinstance(fields, Shown):
        fields = {"question": fields.question, "output_1": fields.first, "output_2": fields.second}
    messages = parse_template(template)
    counts = Counter(
        ALIASES.get(name, name) for message in messages for name in _PLACEHOLDER.findall(message["content"])
    )
    for field in fields:
        if counts[field] == 0 or (escape == "json" and counts[field] > 1):
            raise UserError(f"judge prompt template: needs the placeholder {{{field}}} exactly once")
    lacking = sorted(set(counts) - set(fields))
    if lacking:
        raise UserError(f"judge prompt template: asks for {{{lacking[0]}}}, which this benchmark does not give")

    def placed(found: re.Match[str]) -> str:
        text = fields[ALIASES.get(found[1], found[1])]
        return json.dumps(text, ensure_ascii=False) if escape == "json" else text

    return [{**message, "content": _PLACEHOLDER.sub(placed, message["content"])} for message in messages]


def read_back(messages: Messages) -> Asked:
    """Question and answers of one of our own templates, filled. ValueError when the messages hold no such prompt.

    Of a rating of two turns the last question and the last answer are returned: they are what is rated.
    """
    question: str | None = None
    rated: str | None = None
    sides: dict[str, str] = {}
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
            elif isinstance(block.get("answer"), str):
                name = block.get("label", block.get("assistant"))
                if name is None:
                    rated = block["answer"]
                else:
                    sides[str(name)] = block["answer"]
    if question is not None:
        if set(sides) == set(LABELS):
            return Asked("pairwise", question, tuple(sides[name] for name in LABELS))
        if set(sides) == set(ASSISTANTS):
            return Asked("arena", question, tuple(sides[name] for name in ASSISTANTS))
        if not sides and rated is not None:
            return Asked("rating", question, (rated,))
    raise ValueError(
        "a user message must hold one JSON line with `question` and two with `label` (or `assistant`) and `answer`, or "
        "one with `answer` alone"
    )
