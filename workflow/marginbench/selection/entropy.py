"""Predictive entropy (Muldrew et al. 2024, arXiv 2402.08114): the prompts whose answers vary most under the policy.

With N answers sampled to a prompt x, log-probabilities summed over an answer's tokens, the end token included,

    H(x) = -(1 / N) sum_n log pi(y_n | x),

in nats, not divided by length; the n prompts of the highest H are taken and get a fresh pair of answers.

The estimate is unbiased only where answers are sampled from pi itself: temperature 1, no truncation, whatever pairs are
sampled with (the authors' code). Oh et al. 2026 (arXiv 2604.02766) sample at 0.9 with top-k 50, which estimates too
low, take N = 2 where the authors take 32, and their released code sums padding, so that short answers look uncertain,
and averages answers of different prompts, which leaves little but chance.
"""

import numpy as np
import pandas as pd

from marginbench.selection.base import Case, EntropyParams, Stage, entropy_stage, largest, numbers_in, only_n


class Params(EntropyParams):
    """Parameters of selection by entropy."""


def stages(params: Params) -> tuple[Stage, ...]:
    """One stage by entropy, then a fresh pair."""
    return (entropy_stage(params, only_n),)


def pool(params: Params, n: int) -> int:
    """`pool_factor` prompts for each that is taken."""
    return n * params.pool_factor


def rank(table: pd.DataFrame, n: int, rng: np.random.Generator, params: Params, stage: int) -> list[str]:
    """The n largest entropies, largest first."""
    return largest(table, n, numbers_in(table, "entropy"))


_POOL = {"prompt_id": list("abcdefgh"), "entropy": [10.0, 42.0, 35.0, 8.0, 27.0, 31.0, 27.0, 55.0]}

EXAMPLE = (
    Case({}, _POOL, 2, ["h", "b"]),
    Case({}, _POOL, 5, ["h", "b", "c", "f", "e"]),  # e and g tie: the lower row
)
