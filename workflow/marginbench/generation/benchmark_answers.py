"""Answers of a policy to a benchmark that brings its own questions, turn after turn."""

from collections.abc import Mapping, Sequence
from typing import Any

from marginbench.data.messages import Messages
from marginbench.generation.answers import Conversation, answer_conversations
from marginbench.generation.policy import Policy
from marginbench.job import Progress, quiet
from marginbench.models.template import Format
from marginbench.study import Decoding


def turn_messages(turns: Sequence[str], answers: Sequence[str], format: Format) -> Messages:
    """What is answered next: the user's turns so far with the answers between them.

    Without a chat template the turns are one text, each on a line of its own.
    """
    asked = turns[: len(answers) + 1]
    if format == "plain":
        lines = [line for pair in zip(asked, [*answers, ""], strict=True) for line in pair]
        return [{"role": "text", "content": "\n".join(lines)}]
    messages: Messages = []
    for place, turn in enumerate(asked):
        messages.append({"role": "user", "content": turn})
        if place < len(answers):
            messages.append({"role": "assistant", "content": answers[place]})
    return messages


def answer_benchmark(
    policy: Policy,
    questions: Sequence[Mapping[str, Any]],
    format: Format,
    decoding: Decoding,
    temperatures: Mapping[str, float],
    generation_id: str,
    bench: str,
    seed: int,
    progress: Progress = quiet,
) -> list[dict[str, Any]]:
    """One record for each turn of each question, questions in their order, a question's turns together.

    `questions` are rows of `questions/{bench}.jsonl`; `temperatures` replaces the decoding's for some categories. One
    sample is drawn, whatever the decoding says: these benchmarks judge one answer.
    """
    found: dict[tuple[str, int], dict[str, Any]] = {}
    groups: dict[float, list[Mapping[str, Any]]] = {}
    for question in questions:
        groups.setdefault(temperatures.get(question["category"], decoding.temperature), []).append(question)
    for temperature, group in groups.items():
        own = decoding.model_copy(update={"temperature": temperature, "samples_per_prompt": 1})
        for turn in range(1, max(len(question["turns"]) for question in group) + 1):
            asked = []
            for question in group:
                if turn <= len(question["turns"]):
                    name = question["question_id"]
                    before = [found[name, earlier]["text"] for earlier in range(1, turn)]
                    asked.append(Conversation(name, turn_messages(question["turns"], before, format), turn))
            for row in answer_conversations(policy, asked, format, own, generation_id, bench, seed, progress):
                found[row["question_id"], turn] = row
    for question in questions:
        for turn, text in enumerate(question["turns"], start=1):
            found[question["question_id"], turn]["prompt_text"] = text  # what was asked, without what stood around it
    return [
        found[question["question_id"], turn] for question in questions for turn in range(1, len(question["turns"]) + 1)
    ]
