"""Answers of a round: candidates with their ids, labelled pairs of them, and the table of all of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from marginbench.identity import content_id


@dataclass(frozen=True)
class Candidate:
    """A sampled answer.

    Attributes:
        token_ids: every sampled token, the end token included.
        log_prob: of these tokens under logits / temperature, nats; None where none is defined.
        key: axes of the stream that it was sampled from, beside prompt and sample.
    """

    prompt_id: str
    sample_id: int
    text: str
    token_ids: tuple[int, ...]
    ended: bool
    log_prob: float | None
    key: str = ""


@dataclass(frozen=True)
class Pair:
    """A labelled pair of answers to one prompt. Raises ValueError for answers that belong to another."""

    prompt_id: str
    chosen: Candidate
    rejected: Candidate

    def __post_init__(self) -> None:
        for side in (self.chosen, self.rejected):
            if side.prompt_id != self.prompt_id:
                raise ValueError(f"a pair of prompt {self.prompt_id} holds an answer to prompt {side.prompt_id}")

    @property
    def pair_id(self) -> str:
        """Content hash of the prompt's id and both answers."""
        return content_id("online_pair", self.prompt_id, self.chosen.token_ids, self.rejected.token_ids)


class RoundTable:
    """Rows of ROUNDS while a round goes on."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows: dict[tuple[str, str, int], dict[str, Any]] = {}

    def drawn(self, candidates: Sequence[Candidate]) -> None:
        """Note new candidates."""
        for c in candidates:
            self.rows[c.key, c.prompt_id, c.sample_id] = {
                "round": self.number,
                "rng_key": c.key,
                "prompt_id": c.prompt_id,
                "sample_id": c.sample_id,
                "text_hash": content_id("text", c.text),
                "n_tokens": len(c.token_ids),
                "ended": c.ended,
                "log_prob": c.log_prob,
                **dict.fromkeys(("entropy", "entropy_per_token", "margin", "label")),
                "selected": False,
            }

    def scored(self, scores: pd.DataFrame, alive: Mapping[str, Sequence[Candidate]]) -> None:
        """Note the scores of prompts on the candidates that they were made from."""
        for name in set(scores.columns) - {"prompt_id", "embedding"}:
            for prompt_id, value in zip(scores["prompt_id"], scores[name], strict=True):
                for c in alive[prompt_id]:
                    self.rows[c.key, c.prompt_id, c.sample_id][name] = value

    def labelled(self, pair: Pair) -> None:
        """Note the labels of a pair."""
        for label, c in ((1, pair.chosen), (0, pair.rejected)):
            self.rows[c.key, c.prompt_id, c.sample_id].update(selected=True, label=label)

    def frame(self) -> pd.DataFrame:
        """ROUNDS rows, in the order in which they were sampled."""
        frame = pd.DataFrame(list(self.rows.values()))
        return frame.astype({"label": "Int64", **dict.fromkeys(("entropy", "entropy_per_token", "margin"), float)})
