"""Greedy k-centre (Sener and Savarese 2018, arXiv 1708.00489, "core-set"): prompts far from one another.

A baseline of diversity that asks the policy nothing: with an embedding e(x) of the prompt and its two answers, each
next prompt is the one farthest from those already taken,

    argmax_x min_{s taken} |e(x) - e(s)|,

Euclidean. It starts at the prompt nearest to the pool's mean, so that the order of the rows matters only to ties.

The paper starts from the data labelled so far, and the released strategy `coreset` of Oh et al. 2026 (arXiv
2604.02766) from the replay buffer; here each pool is covered by itself, because the continual loop keeps no data.
"""

import numpy as np
import pandas as pd

from marginbench.selection.base import Case, PoolParams, Stage, only_n, prompt_ids, vectors_in

SAME = 1e-9
"""Squared distances to the mean that differ by this share of the largest are a tie: the mean's rounding knows rows."""


class Params(PoolParams):
    """Parameters of k-centre."""


def stages(params: Params) -> tuple[Stage, ...]:
    """One stage by embedding; the answers that were embedded are trained on."""
    return (Stage("embedding", only_n),)


def pool(params: Params, n: int) -> int:
    """`pool_factor` prompts for each that is taken."""
    return n * params.pool_factor


def squared_distances(vectors: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of every row to a point, shape (rows,)."""
    return np.square(vectors - point).sum(axis=1)


def rank(table: pd.DataFrame, n: int, rng: np.random.Generator, params: Params, stage: int) -> list[str]:
    """The centres in the order in which they are found."""
    ids, vectors = prompt_ids(table, n), vectors_in(table, "embedding")
    central = squared_distances(vectors, vectors.mean(axis=0))
    taken = [int(np.argmax(central <= central.min() + SAME * central.max()))]
    nearest = squared_distances(vectors, vectors[taken[0]])
    while len(taken) < n:
        nearest[taken[-1]] = -1.0  # coinciding prompts stand at 0, and may be taken when nothing else is left
        taken.append(int(np.argmax(nearest)))
        nearest = np.minimum(nearest, squared_distances(vectors, vectors[taken[-1]]))
    return [ids[row] for row in taken]


EXAMPLE = (
    # The mean is (4.2, 0), and b nearest to it; then e (17 from b), c (4 from b, as d is, but higher up), a (1 from c).
    Case(
        {},
        {"prompt_id": list("abcde"), "embedding": [[0, 0], [3, 0], [-1, 0], [-1, 0], [20, 0]]},
        4,
        ["b", "e", "c", "a"],
    ),
)
