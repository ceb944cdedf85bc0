"""Random selection: n prompts drawn uniformly from the pool, without replacement. The arm that is hard to beat.

The control of Oh et al. 2026 (arXiv 2604.02766, "Random Is Hard to Beat") and of Muldrew et al. 2024 (arXiv
2402.08114). It looks at no more prompts than it takes, so it samples 2 n answers a round. In the loop the n prompts are
the first of the block that the other arms look at (selection.pools).

The released code of the former draws with a generator that is seeded anew by the run's seed in every round: 23 of 50
equal parts of a pool of 10,000 are then never visited in 157 rounds of 16. Here rounds have streams of their own.
"""

import numpy as np
import pandas as pd

from marginbench.selection.base import Case, Stage, StrategyParams, only_n, prompt_ids


class Params(StrategyParams):
    """Random selection has no parameters."""


def stages(params: Params) -> tuple[Stage, ...]:
    """One stage without a score."""
    return (Stage("none", only_n),)


def pool(params: Params, n: int) -> int:
    """No more than are taken."""
    return n


def rank(table: pd.DataFrame, n: int, rng: np.random.Generator, params: Params, stage: int) -> list[str]:
    """The first n of a random permutation."""
    ids = prompt_ids(table, n)
    return [ids[row] for row in rng.permutation(len(ids))[:n]]


EXAMPLE = (
    Case({}, {"prompt_id": ["a", "b", "c", "d"]}, 2, ["a", "c"]),
    Case({}, {"prompt_id": ["a", "b", "c", "d"]}, 3, ["b", "a", "d"], seed=3),
    Case({}, {"prompt_id": ["a"]}, 1, ["a"]),
)
