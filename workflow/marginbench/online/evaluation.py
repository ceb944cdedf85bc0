"""Evaluation of a policy between rounds: its answers against the start's, on the same prompts with the same streams."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from marginbench.identity import content_id
from marginbench.models.lora import save_adapter
from marginbench.models.manifest import write_manifest
from marginbench.online.candidates import Candidate
from marginbench.online.labels import Answer, Labeller, Question
from marginbench.online.ledger import Cost
from marginbench.online.policy import Policy
from marginbench.study import Capability, Decoding

Measured = dict[str, Any]
"""A measured value: metric, judge (empty where nobody was asked), value."""


def due(done: int, every: int, rounds: int) -> bool:
    """Whether a policy is evaluated after so many rounds: the start, every so many, and the last."""
    return done % every == 0 or done == rounds


def win_rate(credits: Sequence[float | None]) -> float | None:
    """Comparisons won, in per cent, a tie counting half; those without a verdict are left out. None without any."""
    read = [credit for credit in credits if credit is not None]
    return 100 * math.fsum(read) / len(read) if read else None


def questions(prompts: pd.DataFrame, answers: Sequence[Candidate], baseline: Sequence[Candidate]) -> list[Question]:
    """The policy's answers (first) against the start's (second). Raises ValueError where they answer other prompts."""
    messages = dict(zip(prompts["text_id"], prompts["prompt"], strict=True))
    found = []
    for one, other in zip(answers, baseline, strict=True):
        if (one.prompt_id, one.sample_id) != (other.prompt_id, other.sample_id):
            raise ValueError(f"an answer to {one.prompt_id} would be compared with one to {other.prompt_id}")
        sides = (Answer(side.text, side.ended) for side in (one, other))
        found.append(Question(one.prompt_id, list(messages[one.prompt_id]), *sides))
    return found


class Evaluation:
    """Measures a policy. The streams of its answers depend on prompt, sample and seed, not on the round.

    Args:
        prompts: TEXTS rows that are answered.
        judges: who compares; the labeller of the loop first.
        decoding: how answers are sampled.
        seed: training seed.
        capability, texts, format: tasks for `capability.run`, with TEXTS of role `perplexity`; None measures none.
        folder: where an adapter may lie for a moment, for those tasks.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: pd.DataFrame,
        judges: Sequence[Labeller],
        decoding: Decoding,
        seed: int,
        folder: Path,
        capability: Capability | None = None,
        texts: pd.DataFrame | None = None,
        format: str = "plain",
    ) -> None:
        self.policy, self.prompts, self.judges, self.decoding = policy, prompts, judges, decoding
        self.key = f"seed{seed}/evaluation"
        self.folder, self.capability, self.texts, self.format = folder, capability, texts, format

    def answers(self, cost: Cost) -> list[Candidate]:
        """The policy's answers to all evaluation prompts."""
        found = self.policy.generate(self.prompts["text_id"].tolist(), self.decoding, self.key)
        cost.completions += len(found)
        cost.generated_tokens += sum(len(answer.token_ids) for answer in found)
        return found

    def measure(self, answers: Sequence[Candidate], baseline: Sequence[Candidate], cost: Cost) -> list[Measured]:
        """Win rates by every judge, length (tokens, end token not counted), EOS rate, KL to the start, capability."""
        asked = questions(self.prompts, answers, baseline)
        rows = []
        for judge in self.judges:
            credits = [verdict.credit for verdict in judge.compare(asked)]
            rows.append(_row("win_rate", win_rate(credits), judge.id))
            rows.append(_row("judge_null", _mean([float(credit is None) for credit in credits]), judge.id))
        rows.append(_row("answer_tokens", _mean([len(a.token_ids) - a.ended for a in answers])))
        rows.append(_row("eos_rate", _mean([float(a.ended) for a in answers])))
        rows.append(_row("kl", self._kl(answers, cost)))
        return rows + self._tasks()

    def _kl(self, answers: Sequence[Candidate], cost: Cost) -> float | None:
        """Mean log-ratio to the start on the policy's own samples, nats; None where that is no KL."""
        if not self.decoding.exact:
            return None
        ratios = [self.policy.log_probs(answers, side, self.decoding.temperature) for side in (False, True)]
        cost.scored_sequences += 2 * len(answers)
        return _mean([own - start for own, start in zip(*ratios, strict=True)])

    def _tasks(self) -> list[Measured]:
        if self.capability is None or not self.capability.tasks:
            return []
        from marginbench.capability.run import run_tasks  # lm-eval takes seconds to import

        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".capability.") as name:
            save_adapter(self.policy.model, Path(name) / "weights")
            manifest = write_manifest(
                Path(name) / "manifest.json", Path(name) / "weights", "adapter", base=self.policy.start
            )
            found = run_tasks(manifest.path, self.capability, self.texts, self.format)
        return [_row(task, result["value"]) for task, result in found.items()]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _row(metric: str, value: float | None, judge: str = "") -> Measured:
    return {"metric": metric, "judge": judge, "value": value}


def as_rows(answers: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Answers as JSON."""
    return [{**asdict(answer), "token_ids": list(answer.token_ids)} for answer in answers]


def from_rows(rows: Sequence[dict[str, Any]]) -> list[Candidate]:
    """What `as_rows` wrote."""
    return [Candidate(**{**row, "token_ids": tuple(row["token_ids"])}) for row in rows]


def prompts_hash(prompts: pd.DataFrame) -> str:
    """Hash of prompts and their order."""
    asked = zip(prompts["text_id"], prompts["prompt"], strict=True)
    return content_id([[text_id, [dict(message) for message in messages]] for text_id, messages in asked])
