"""What a round costs, counted while it happens: completions, tokens, scored sequences, labels, updates, seconds."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd

STAGES = ("generate", "score", "select", "label", "update", "evaluate")
"""Stages of a round, in order. All but `evaluate` are what a strategy spends."""


@dataclass
class Cost:
    """Counters of one stage of one round.

    Attributes:
        completions: answers that were sampled.
        generated_tokens: their tokens, end tokens included.
        scored_sequences: prompt + answer sequences that went through a model once more, policy and start apart.
        labels: pairs whose preference was asked for the first time in this run; equal answers are never asked.
        pair_updates: pairs that an optimiser step read, each as often as it was read.
        seconds: wall clock.
    """

    completions: int = 0
    generated_tokens: int = 0
    scored_sequences: int = 0
    labels: int = 0
    pair_updates: int = 0
    seconds: float = 0.0


@dataclass
class Ledger:
    """The costs of one round by stage."""

    round: int
    clock: Callable[[], float] = time.monotonic
    costs: dict[str, Cost] = field(default_factory=lambda: {name: Cost() for name in STAGES})

    @contextmanager
    def stage(self, name: str) -> Iterator[Cost]:
        """The counters of a stage, whose clock runs while the block does. A stage may be entered several times."""
        cost, start = self.costs[name], self.clock()
        try:
            yield cost
        finally:
            cost.seconds += self.clock() - start

    def rows(self) -> list[dict[str, Any]]:
        """ONLINE_COSTS rows, one for each stage."""
        return [{"round": self.round, "stage": name, **asdict(cost)} for name, cost in self.costs.items()]


def spent(costs: pd.DataFrame, rounds: int) -> dict[str, int | float]:
    """What a run has spent on training when so many rounds are done, from ONLINE_COSTS: evaluation is not counted."""
    paid = costs[(costs["stage"] != "evaluate") & (costs["round"] <= rounds)]
    return {
        **{name: int(paid[name].sum()) for name in ("labels", "completions", "generated_tokens")},
        "seconds": float(paid["seconds"].sum()),
    }
