"""Labels: which answer of a pair is preferred, asked once for each pair of a run, with a rule for ties.

A pair is its prompt and its two texts, in the order of the texts, so that a label depends on neither the order in which
answers were sampled nor the arm that asks. Labels are kept as soon as they are known: a run that is killed after it
asked does not ask, or pay, again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from scipy.special import expit

from marginbench.data.messages import Messages
from marginbench.errors import UserError
from marginbench.files import read_jsonl, write_jsonl
from marginbench.identity import content_id, stream


@dataclass(frozen=True)
class Answer:
    """An answer as a labeller sees it: its text, and whether it came to its end by itself."""

    text: str
    ended: bool


@dataclass(frozen=True)
class Question:
    """Two answers to one prompt."""

    prompt_id: str
    prompt: Messages
    first: Answer
    second: Answer


@dataclass(frozen=True)
class Verdict:
    """What a labeller says of two answers.

    Attributes:
        credit: 1 where the first wins, 0 where the second does, 0.5 for a tie; None where no verdict could be read.
        gap: score of the first minus score of the second, as log-odds; None for a labeller without scores.
        reason: why there is no credit.
    """

    credit: float | None
    gap: float | None = None
    reason: str | None = None


class Labeller(Protocol):
    """Who prefers. `version` changes with everything that can change a verdict; `template` is how it is asked.

    `weights` is the hash of what it scores with, empty where that is not known: two that share it have one taste,
    however they are asked.
    """

    id: str
    version: str
    template: str
    scores: bool
    weights: str

    def compare(self, questions: Sequence[Question]) -> list[Verdict]:
        """A verdict on every question, in order, without noise."""
        ...


Noise = Literal["none", "bradley_terry"]


@dataclass(frozen=True)
class Label:
    """The label of a pair: whether its first answer is preferred, the pair's key, and whether it was asked for."""

    first_wins: bool
    key: str
    asked: bool


class Labels:
    """The labels of one run.

    Args:
        labeller: who is asked.
        path: JSONL file that the verdicts are kept in.
        noise: `bradley_terry` draws the label with P(first) = sigmoid(score gap); only for labellers with scores.
        seed: of that draw and of the coin for ties; both are keyed by the pair, never by round or arm.
    """

    def __init__(self, labeller: Labeller, path: str | Path, noise: Noise, seed: int) -> None:
        if noise != "none" and not labeller.scores:
            raise UserError(
                f"labeller `{labeller.id}` gives no scores, so its labels have no `{noise}` noise; set none"
            )
        self.labeller, self.path, self.noise, self.seed = labeller, Path(path), noise, seed
        self.kept: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            self.kept = {row["key"]: row for row in read_jsonl(self.path)}

    def key(self, question: Question) -> str:
        """What a verdict is kept under: prompt, both answers, labeller, its version and its template."""
        answers = sorted([answer.text, answer.ended] for answer in (question.first, question.second))
        prompt = [[message["role"], message["content"]] for message in question.prompt]
        about = self.labeller
        return content_id("label", prompt, answers, about.id, about.version, about.template, length=32)

    def choose(self, questions: Sequence[Question]) -> list[Label]:
        """The label of every pair, in order. Pairs of equal texts are ties and are not asked.

        Raises UserError when the labeller left one without a verdict; the others are kept.
        """
        keys = [self.key(question) for question in questions]
        asked = {
            key: _in_order(question)
            for key, question in zip(keys, questions, strict=True)
            if question.first.text != question.second.text
        }
        missing = {key: question for key, question in asked.items() if key not in self.kept}
        if missing:
            self._ask(missing)
        return [
            Label(self._first_wins(key, question, key in asked), key, key in asked)
            for key, question in zip(keys, questions, strict=True)
        ]

    def _ask(self, missing: dict[str, Question]) -> None:
        verdicts = self.labeller.compare(list(missing.values()))
        read = {key: v for key, v in zip(missing, verdicts, strict=True) if v.credit is not None}
        for key, verdict in read.items():
            row = {"key": key, "labeller": self.labeller.id, "version": self.labeller.version}
            self.kept[key] = {
                **row,
                "prompt_id": missing[key].prompt_id,
                "credit": verdict.credit,
                "gap": verdict.gap,
            }
        write_jsonl(self.path, self.kept.values())
        if len(read) < len(missing):
            reason = next(v.reason for v in verdicts if v.credit is None)
            raise UserError(
                f"labeller `{self.labeller.id}`: {len(missing) - len(read)} of {len(missing)} pairs got no label "
                f"({reason}); run again, what is labelled is kept"
            )

    def _first_wins(self, key: str, question: Question, asked: bool) -> bool:
        row = self.kept[key] if asked else {"credit": 0.5, "gap": 0.0}
        if self.noise == "bradley_terry":
            lower = bool(stream("label", self.seed, key).random() < expit(row["gap"]))
        elif row["credit"] == 0.5:
            lower = bool(stream("tie", self.seed, key).random() < 0.5)
        else:
            lower = row["credit"] > 0.5
        return lower == (_in_order(question) == question)


def _in_order(question: Question) -> Question:
    """The question with its answers in the order of their texts."""
    one, other = question.first, question.second
    if (one.text, one.ended) <= (other.text, other.ended):
        return question
    return Question(question.prompt_id, question.prompt, other, one)
