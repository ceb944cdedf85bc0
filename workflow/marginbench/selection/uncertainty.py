"""Uncertainty (Muldrew et al. 2024, arXiv 2402.08114): the pairs whose answers the policy can hardly tell apart.

What active learning usually asks for, and the opposite of `margin`: of the implicit rewards
r(x, y) = beta (log pi(y|x) - log ref(y|x)) of two answers, the n prompts of the smallest

    |r(x, y1) - r(x, y2)|

are taken, with the pair that was scored. The authors rank by u = 1 - 2 |sigma(r1 - r2) - 1/2|, highest first: the same
order. In their stored results it beats random selection at none of the first four budgets.
"""

import numpy as np
import pandas as pd

from marginbench.selection import margin
from marginbench.selection.base import Case, PoolParams, largest, numbers_in


class Params(PoolParams):
    """Parameters of selection by uncertainty."""


stages = margin.stages
pool = margin.pool


def rank(table: pd.DataFrame, n: int, rng: np.random.Generator, params: Params, stage: int) -> list[str]:
    """The n smallest absolute margins, smallest first."""
    return largest(table, n, -np.abs(numbers_in(table, "margin")))


EXAMPLE = (
    Case({}, {"prompt_id": list("abcdefgh"), "margin": [0.9, 0.05, 0.4, 0.8, 0.7, 0.1, 0.95, 0.2]}, 2, ["b", "f"]),
    Case({}, {"prompt_id": list("abcd"), "margin": [0.3, 0.0, -0.15, -0.7]}, 4, ["b", "c", "a", "d"]),  # either sign
)
