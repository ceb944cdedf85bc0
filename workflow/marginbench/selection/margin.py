"""Certainty (Muldrew et al. 2024, arXiv 2402.08114): the pairs whose answers the policy is surest to tell apart.

Two answers are sampled to every prompt, and with the implicit reward r(x, y) = beta (log pi(y|x) - log ref(y|x)) the n
prompts of the largest

    |r(x, y1) - r(x, y2)|

are taken, with the pair that was scored: the policy is sure of them and often surely wrong. The order does not depend
on beta. The authors rank by u = 1 - 2 |sigma(r1 - r2) - 1/2|, lowest first, which is the same order until float
rounding makes large margins equal.

The released code of Oh et al. 2026 (arXiv 2604.02766) looks at 64 prompts for each that is taken where the default here
is that of `apl`, and joins answers of different prompts to pairs.
"""

import numpy as np
import pandas as pd

from marginbench.selection.base import Case, PoolParams, Stage, largest, numbers_in, only_n


class Params(PoolParams):
    """Parameters of selection by certainty."""


def stages(params: Params) -> tuple[Stage, ...]:
    """One stage by margin; the pair that was scored is trained on."""
    return (Stage("margin", only_n),)


def pool(params: Params, n: int) -> int:
    """`pool_factor` prompts for each that is taken."""
    return n * params.pool_factor


def rank(table: pd.DataFrame, n: int, rng: np.random.Generator, params: Params, stage: int) -> list[str]:
    """The n largest absolute margins, largest first."""
    return largest(table, n, np.abs(numbers_in(table, "margin")))


EXAMPLE = (
    Case({}, {"prompt_id": list("abcdefgh"), "margin": [0.9, 0.05, 0.4, 0.8, 0.7, 0.1, 0.95, 0.2]}, 2, ["g", "a"]),
    Case({}, {"prompt_id": list("abcd"), "margin": [0.3, 0.0, 0.15, -0.7]}, 4, ["d", "a", "c", "b"]),  # either sign
    Case({}, {"prompt_id": list("abc"), "margin": [0.5, -0.5, 0.5]}, 2, ["a", "b"]),  # ties: the lower rows
)
