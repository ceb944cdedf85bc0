"""What answers behind the local judge server: a scorer of single reviews, turned into a pairwise verdict.

Every backend scores each review (opening + continuation) on its own and prefers the higher score, read as Bradley and
Terry do: P(M) = sigma(s_M - s_m). Being pointwise they have no position bias. A small language model that is
shown both answers at once has nothing else: SmolLM2-135M names the first answer every time.
Verdicts of Arena-Hard and ratings are the same scores in other words, by fixed rules.
"""

import math
from collections.abc import Callable
from typing import Protocol

from marginbench.identity import content_id

FEW_SHOT = (
    ("I was bored after ten minutes and it only got worse.", "negative"),
    ("A warm, funny film with a cast that clearly enjoys itself.", "positive"),
    ("The plot makes no sense and the acting is wooden.", "negative"),
    ("One of the best films of the year, I would watch it again.", "positive"),
)
"""Examples before the review that is scored: our own sentences, two of each kind."""


TIE = 0.5
"""Scores that differ by less, in log-odds, are a tie in an Arena-Hard verdict: P of the better one is below 0.62."""

STRONG = 2.0
"""Scores that differ by at least this much, in log-odds, make a strong verdict: P of the better one is 0.88 or more."""


class Backend(Protocol):
    """A judge model. `score` is a log-odds of being favourable; it depends on the text only."""

    weights_hash: str

    def score(self, text: str) -> float:
        """Log-odds that a review is favourable."""
        ...

    def count(self, text: str) -> int:
        """Tokens of a text, as this backend counts them."""
        ...


def log_probs(backend: Backend, question: str, first: str, second: str) -> tuple[float, float]:
    """log P(m) and log P(M): which of two continuations of `question` is the more favourable."""
    difference = backend.score(question + second) - backend.score(question + first)
    return -_softplus(difference), -_softplus(-difference)


def arena_reply(backend: Backend, question: str, answer_a: str, answer_b: str) -> str:
    """An Arena-Hard verdict on two continuations of `question`, as a judge words it: one label at the end.

    A=B where the scores differ by less than TIE, A>>B or B>>A where they differ by STRONG or more.
    """
    difference = backend.score(question + answer_b) - backend.score(question + answer_a)
    better, worse = ("B", "A") if difference > 0 else ("A", "B")
    sign = "=" if abs(difference) < TIE else ">>" if abs(difference) >= STRONG else ">"
    label = "A=B" if sign == "=" else f"{better}{sign}{worse}"
    return f"Assistant B scores {difference:+.3f} log-odds above assistant A.\n\n[[{label}]]"


def rating_reply(backend: Backend, question: str, answer: str) -> str:
    """A rating of one continuation of `question`: 1 + 9 sigma(score), to one decimal, so from 1.0 to 10.0.

    It never falls when the score rises.
    """
    score = backend.score(question + answer)
    return f"The answer scores {score:+.3f} log-odds.\n\nMark: [[{1.0 + 9.0 * math.exp(-_softplus(-score)):.1f}]]"


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


class ClassifierBackend:
    """The bag-of-words classifier of one half of the reviews. Needs no torch, so the server starts at once."""

    def __init__(self, path: str) -> None:
        from marginbench.data.classifier import TextClassifier

        self._classifier = TextClassifier.load(path)
        self.weights_hash = str(self._classifier.weights_hash)

    def score(self, text: str) -> float:
        """Log-odds of the positive class."""
        return float(self._classifier.logit([text])[0])

    def count(self, text: str) -> int:
        """Words between blanks: a classifier has no tokens."""
        return len(text.split())


class CausalLmBackend:
    """A causal language model with few-shot sentiment prompts: log P(" positive") - log P(" negative").

    One text per forward pass and no padding, so that a score depends on nothing but the text.
    """

    def __init__(self, manifest: str) -> None:
        import torch

        from marginbench.models.loading import load_model, load_tokenizer
        from marginbench.models.manifest import read_manifest

        self._torch = torch
        self._tokenizer = load_tokenizer(manifest)
        self._model = load_model(manifest).eval()
        self._device = next(self._model.parameters()).device
        self._labels = [
            self._tokenizer.encode(f" {label}", add_special_tokens=False) for label in ("positive", "negative")
        ]
        self.weights_hash = content_id(read_manifest(manifest).weights_hash, FEW_SHOT)
        self._known: dict[str, float] = {}

    def _prompt(self, text: str) -> str:
        shots = "".join(f"Review: {review}\nSentiment: {label}\n\n" for review, label in FEW_SHOT)
        return f"{shots}Review: {' '.join(text.split())}\nSentiment:"

    def _label_log_prob(self, prompt: list[int], label: list[int]) -> float:
        torch = self._torch
        ids = torch.tensor([prompt + label], device=self._device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
        picked = logits.gather(1, torch.tensor(label, device=self._device)[:, None])[:, 0]
        return float((picked - logits.logsumexp(-1)).sum())

    def score(self, text: str) -> float:
        """Log-odds of the label `positive`; remembered per text, because every run meets the same baseline answers."""
        if text not in self._known:
            prompt = self._tokenizer.encode(self._prompt(text))
            first, second = self._labels
            if len(first) == len(second) == 1:
                torch = self._torch
                with torch.inference_mode():
                    ids = torch.tensor([prompt], device=self._device)
                    logits = self._model(input_ids=ids).logits[0, -1].float()
                self._known[text] = float(logits[first[0]] - logits[second[0]])
            else:
                self._known[text] = self._label_log_prob(prompt, first) - self._label_log_prob(prompt, second)
        return self._known[text]

    def count(self, text: str) -> int:
        """Tokens of the model's tokenizer."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))


class RewardModelBackend:
    """A trained reward model: its scalar score of opening and continuation, read as log-odds, as in its training.

    Plain text only (no chat template); cut where its training cut, and followed by its cue. No end token is added.
    """

    def __init__(self, manifest: str) -> None:
        from marginbench.models.loading import load_tokenizer
        from marginbench.models.manifest import read_manifest
        from marginbench.models.reward_head import load_reward_model

        known = read_manifest(manifest)
        self._model = load_reward_model(known)
        self._tokenizer = load_tokenizer(known)
        self._cue = list(known.facts.get("cue_ids", []))
        self._room = known.facts["max_length"] - len(self._cue) if "max_length" in known.facts else None
        self.weights_hash = known.weights_hash

    def score(self, text: str) -> float:
        """The reward model's score."""
        from marginbench.models.reward_head import reward_scores
        from marginbench.models.template import encode_prompt

        ids = encode_prompt(self._tokenizer, [{"role": "text", "content": text}], "plain")[: self._room] + self._cue
        return reward_scores(self._model, [ids], self._tokenizer.pad_token_id)[0]

    def count(self, text: str) -> int:
        """Tokens of the model's tokenizer."""
        return len(self._tokenizer.encode(text, add_special_tokens=False))


BACKENDS: dict[str, Callable[[str], Backend]] = {
    "classifier": ClassifierBackend,
    "causal_lm": CausalLmBackend,
    "reward_model": RewardModelBackend,
}
