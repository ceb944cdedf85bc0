"""The stages of a real round: a policy, its labels and its optimiser, and what of them outlives a round."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from marginbench.online.candidates import Candidate, Pair
from marginbench.online.labels import Answer, Labels, Question
from marginbench.online.policy import Policy
from marginbench.online.schedule import Schedule
from marginbench.online.update import Row, Updater, row_of
from marginbench.study import Decoding


class RunStages:
    """The stages of one run's rounds, as loop.Stages asks for them, and what must survive from round to round.

    Args:
        prompts: TEXTS rows that pools are drawn from.
        plan: optimiser steps of every round.
        accumulate: train on all pairs so far, not on the round's alone.
        resets: train from the start in every round.
        axes: of the order of the pairs within a round, beside the round.
    """

    def __init__(
        self,
        policy: Policy,
        updater: Updater,
        labels: Labels,
        prompts: pd.DataFrame,
        plan: Schedule,
        accumulate: bool,
        resets: bool,
        axes: Sequence[Any],
    ) -> None:
        self.policy, self.updater, self.labels, self.plan = policy, updater, labels, plan
        self.accumulate, self.resets, self.axes = accumulate, resets, axes
        self.messages = dict(zip(prompts["text_id"], prompts["prompt"], strict=True))
        self.rows: list[Row] = []
        self.new_rows: list[Row] = []
        self.seen: set[str] = set()
        self.new_keys: list[str] = []
        self.log: list[dict[str, Any]] = []

    def generate(self, prompt_ids: Sequence[str], decoding: Decoding, key: str) -> list[Candidate]:
        """Answers of the policy."""
        return self.policy.generate(prompt_ids, decoding, key)

    def log_probs(self, candidates: Sequence[Candidate], reference: bool) -> list[float]:
        """At temperature 1, under the policy or its start."""
        return self.policy.log_probs(candidates, reference)

    def embed(self, prompt_ids: Sequence[str], candidates: Sequence[Candidate]) -> np.ndarray:
        """By the start's hidden states."""
        return self.policy.embed(prompt_ids, candidates)

    def label(self, pairs: Sequence[tuple[Candidate, Candidate]]) -> tuple[list[bool], int]:
        """By the labeller of the run; pairs that it was asked about in an earlier round are not counted."""
        asked = [
            Question(
                one.prompt_id,
                list(self.messages[one.prompt_id]),
                Answer(one.text, one.ended),
                Answer(other.text, other.ended),
            )
            for one, other in pairs
        ]
        found = self.labels.choose(asked)
        keys = dict.fromkeys(label.key for label in found if label.asked)
        self.new_keys = [key for key in keys if key not in self.seen]
        self.seen |= set(self.new_keys)
        return [label.first_wins for label in found], len(self.new_keys)

    def update(self, pairs: Sequence[Pair], round: int) -> int:
        """Reference log-probabilities of the round's pairs, then the round's optimiser steps."""
        rows = []
        for pair in pairs:
            prompt = self.policy.prompts[pair.prompt_id]
            rows.append({**row_of(pair, prompt.prompt_id, prompt.token_ids), "round": round})
        self.new_rows = self.updater.add_reference(rows)
        self.rows = [*self.rows, *self.new_rows] if self.accumulate else self.new_rows
        steps = self.plan.updates[round - 1]
        if self.resets:
            self.policy.reset()
            self.updater.restart(steps)
        self.log = self.updater.run(self.rows, steps, [*self.axes, round])
        if not self.accumulate:
            self.updater.forget()
        return steps * self.plan.batch_size

    def keep(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and facts of the round that has just ended, from which `take_up` goes on."""
        moments, numbers = self.updater.save()
        tensors = {f"adapter/{name}": value for name, value in self.policy.weights().items()}
        tensors |= {f"optimiser/{name}": value for name, value in moments.items()}
        facts = {"updater": numbers, "labels": self.new_keys, "rows": self.new_rows if self.accumulate else []}
        return tensors, facts

    def take_up(self, tensors: Mapping[str, Tensor], facts: Sequence[Mapping[str, Any]]) -> None:
        """Put everything back as it was after the last of the rounds whose facts are given; its tensors."""
        parts: dict[str, dict[str, Tensor]] = {"adapter": {}, "optimiser": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition("/")
            parts[kind][rest] = value
        self.policy.set_weights(parts["adapter"])
        self.updater.load(parts["optimiser"], facts[-1]["updater"])
        for done in facts:
            self.seen |= set(done["labels"])
            self.rows += done["rows"]
