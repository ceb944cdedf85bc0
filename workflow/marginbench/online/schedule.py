"""How many rounds, labels and updates a setting makes: arithmetic, done before anything is trained."""

from dataclasses import dataclass

from marginbench.errors import UserError


@dataclass(frozen=True)
class Schedule:
    """Optimiser steps of every round, and what a step and a round read.

    Attributes:
        updates: optimiser steps of each round.
        query: pairs that are labelled in a round.
        batch_size: pairs of an optimiser step.
    """

    updates: tuple[int, ...]
    query: int
    batch_size: int

    @property
    def rounds(self) -> int:
        """Rounds of a run."""
        return len(self.updates)

    @property
    def labelled_pairs(self) -> int:
        """Pairs that are labelled in a run."""
        return self.rounds * self.query

    @property
    def pair_updates(self) -> int:
        """Pairs read by optimiser steps, each as often as it is read."""
        return sum(self.updates) * self.batch_size


def schedule(steps: int, updates_per_query: int, query: int, batch_size: int, loop: str) -> Schedule:
    """The schedule of a run.

    `continual`: every round makes `updates_per_query` steps on its own pairs, the last one what is left of `steps`.
    (The released code of Oh et al. 2026, arXiv 2604.02766, asks one step too early, so that its rounds make 3, 4, 4,
    ..., 2 updates; here it is 4, 4, ..., 1.) `accumulate`: as many rounds, each of which passes `updates_per_query`
    times over all pairs labelled so far, last partial batch dropped. Raises UserError when a round's pairs do not fill
    a batch.
    """
    if query < batch_size:
        raise UserError(
            f"online.query is {query}, fewer than the {batch_size} pairs of a batch; raise it, or lower batch_size"
        )
    rounds = -(-steps // updates_per_query)
    if loop == "continual":
        updates = [min(updates_per_query, steps - number * updates_per_query) for number in range(rounds)]
    else:
        updates = [updates_per_query * (query * (number + 1) // batch_size) for number in range(rounds)]
    return Schedule(tuple(updates), query, batch_size)
