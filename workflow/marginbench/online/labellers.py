"""Who labels and who judges: a classifier, a reward model of the study or from elsewhere, a judge behind a server.

All of them are loaded once for a run. Those that score single texts remember what they scored, because every evaluation
meets the start's answers again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from marginbench.data.classifier import TextClassifier, true_reward
from marginbench.data.messages import Messages, plain_text
from marginbench.errors import UserError
from marginbench.identity import content_id, file_sha256
from marginbench.judging.client import Item, judge_pairs
from marginbench.judging.spec import JudgeSpec
from marginbench.margins.hub_reward_model import check_sanity, encode_text, load_classifier
from marginbench.models.loading import folder_tokenizer, load_tokenizer, model_folder
from marginbench.models.manifest import read_manifest
from marginbench.models.reward_head import load_reward_model, reward_scores
from marginbench.models.template import Format, encode_answer, encode_prompt, template_hash
from marginbench.online.labels import Answer, Question, Verdict
from marginbench.study import FolderRewardModel, HubRewardModel

Score = Callable[[Sequence[tuple[Messages, Answer]]], Sequence[float] | np.ndarray]


@dataclass
class Scored:
    """A labeller that scores answers one by one; the higher score wins, equal scores tie.

    Attributes:
        missing_end_penalty: taken off the score of an answer that met the token limit.
    """

    id: str
    version: str
    template: str
    score: Score
    missing_end_penalty: float = 0.0
    scores: bool = True
    weights: str = ""
    _known: dict[str, float] = field(default_factory=dict)

    def compare(self, questions: Sequence[Question]) -> list[Verdict]:
        """A verdict on every question. Raises UserError for a score that is not finite."""
        asked = {
            _text_key(question, answer): (question.prompt, answer)
            for question in questions
            for answer in (question.first, question.second)
        }
        new = {key: text for key, text in asked.items() if key not in self._known}
        found = np.asarray(self.score(list(new.values())) if new else [], dtype=np.float64)
        if not np.isfinite(found).all():
            raise UserError(f"labeller `{self.id}`: the score of an answer is not finite; use another reward model")
        for (key, (_, answer)), value in zip(new.items(), found.tolist(), strict=True):
            self._known[key] = value - (0.0 if answer.ended else self.missing_end_penalty)
        verdicts = []
        for question in questions:
            first, second = (self._known[_text_key(question, a)] for a in (question.first, question.second))
            verdicts.append(Verdict(0.5 if first == second else float(first > second), first - second))
        return verdicts


def _text_key(question: Question, answer: Answer) -> str:
    return content_id(question.prompt_id, answer.text, answer.ended)


def _version(penalty: float, *parts: Any) -> str:
    return content_id(*parts, penalty)


def classifier(id: str, path: str | Path, missing_end_penalty: float = 0.0) -> Scored:
    """The ground truth: 6 (P(positive) - 0.5) of prompt + answer by a saved text classifier, in [-3, 3]."""
    model = TextClassifier.load(path)

    def score(texts: Sequence[tuple[Messages, Answer]]) -> np.ndarray:
        return true_reward(model, [plain_text(prompt) + answer.text for prompt, answer in texts])

    version = _version(missing_end_penalty, model.weights_hash)
    return Scored(id, version, "", score, missing_end_penalty, weights=file_sha256(path))


def reward_model(id: str, manifest_path: str | Path, format: Format, missing_end_penalty: float = 0.0) -> Scored:
    """A reward model that was trained here; sequences are cut, and the cue put, where its training did."""
    manifest = read_manifest(manifest_path)
    model, tokenizer = _placed(load_reward_model(manifest)), load_tokenizer(manifest)
    cue = list(manifest.facts.get("cue_ids", []))
    longest = manifest.facts.get("max_length")

    def score(texts: Sequence[tuple[Messages, Answer]]) -> list[float]:
        room = None if longest is None else longest - len(cue)
        sequences = [
            [
                *encode_prompt(tokenizer, prompt, format),
                *encode_answer(tokenizer, answer.text, answer.ended, format),
            ][:room]
            + cue
            for prompt, answer in texts
        ]
        return reward_scores(model, sequences, tokenizer.pad_token_id)

    template = template_hash(tokenizer, format)
    version = _version(missing_end_penalty, manifest.weights_hash)
    return Scored(id, version, template, score, missing_end_penalty, weights=manifest.weights_hash)


def hub_reward_model(
    id: str,
    spec: HubRewardModel | FolderRewardModel,
    format: Format,
    sanity: str | Path,
    missing_end_penalty: float = 0.0,
) -> Scored:
    """A reward model from elsewhere, through the checks of scorer `hub_reward_model`: all weights, its sanity set."""
    folder = model_folder(spec)
    tokenizer, model = folder_tokenizer(folder), _placed(load_classifier(folder, spec.precision))
    pad_id = model.config.get_text_config().pad_token_id
    size = 1 if pad_id is None else spec.batch_size

    def encoded(sequences: Sequence[list[int]]) -> list[float]:
        return reward_scores(model, sequences, pad_id or 0, size)

    def encode(prompt: Messages | str, answer: str) -> tuple[list[int], bool]:
        messages = [{"role": "text" if format == "plain" else "user", "content": prompt}]
        return encode_text(tokenizer, messages if isinstance(prompt, str) else prompt, answer, format, spec.max_length)

    def score(texts: Sequence[tuple[Messages, Answer]]) -> list[float]:
        return encoded([encode(prompt, answer.text)[0] for prompt, answer in texts])

    check_sanity(encoded, encode, sanity, spec.sanity_losses)
    weights = {file.name: file_sha256(file) for file in folder.glob("*.safetensors")}
    version = _version(missing_end_penalty, weights, spec.max_length, spec.precision)
    return Scored(id, version, template_hash(tokenizer, format), score, missing_end_penalty)


def _placed(model: Any) -> Any:
    return model.to("cuda") if torch.cuda.is_available() else model


class Judge:
    """A judge that is shown both answers, over HTTP: a local judge server, or one that is already there.

    Args:
        spec: the judge's entry.
        base_url: address of the local server; None takes the entry's own.
        weights_hash: of what answers behind a local server.

    In both orders (`order: both`) the credit is the mean of the two: a judge that names the first answer each time
    gives half.
    """

    scores = False

    def __init__(self, spec: JudgeSpec, base_url: str | None, weights_hash: str = "") -> None:
        self.spec, self.base_url, self.id, self.weights = spec, base_url, spec.id, weights_hash
        self.template = spec.prompt_sha256
        asked = spec.model_dump(
            mode="json", include={"model", "model_date", "base_url", "decoding", "order", "weights"}
        )
        self.version = content_id(asked, weights_hash)

    def compare(self, questions: Sequence[Question]) -> list[Verdict]:
        """A verdict on every question; one without credit carries the reason."""
        items: list[Item] = [
            {
                "question_id": question.prompt_id,
                "question": plain_text(question.prompt),
                "baseline_id": "second",
                "baseline": question.second.text,
                "answer_id": "first",
                "answer": question.first.text,
            }
            for question in questions
        ]
        if not items:
            return []
        orders = 2 if self.spec.order == "both" else 1
        rows = judge_pairs(self.spec, self.base_url, items)
        return [_verdict(rows[start : start + orders]) for start in range(0, len(rows), orders)]


def _verdict(rows: Sequence[dict[str, Any]]) -> Verdict:
    for row in rows:
        if row["preference"] is None:
            return Verdict(None, reason=row["reason"])
    wins = [0.5 if row["preference"] == 1.5 else float(row["preference"] > 1.5) for row in rows]
    return Verdict(sum(wins) / len(wins))
