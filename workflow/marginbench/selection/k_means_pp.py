"""k-means++ seeding (Arthur and Vassilvitskii 2007, SODA): prompts drawn to be far from one another.

A baseline of diversity that is less drawn to outliers than `k_centre`: the first prompt is uniform, and each next one
is drawn with a probability proportional to its squared distance to the nearest that is taken,

    p(x) ~ min_{s taken} |e(x) - e(s)|^2,

with e an embedding of the prompt and its two answers. Where all distances are 0 the lowest row is next.

The released strategy `dreward` of Oh et al. 2026 (arXiv 2604.02766) draws so from 16 n prompts and multiplies the
weight by the square root of the implicit reward margin; here it is diversity alone, to be set against `margin`.
"""

import numpy as np
import pandas as pd

from marginbench.selection import k_centre
from marginbench.selection.base import Case, PoolParams, prompt_ids, vectors_in
from marginbench.selection.k_centre import squared_distances


class Params(PoolParams):
    """Parameters of k-means++."""


stages = k_centre.stages
pool = k_centre.pool


def rank(table: pd.DataFrame, n: int, rng: np.random.Generator, params: Params, stage: int) -> list[str]:
    """The seeds in the order in which they are drawn."""
    ids, vectors = prompt_ids(table, n), vectors_in(table, "embedding")
    free = np.ones(len(ids), dtype=bool)
    taken = [int(rng.integers(len(ids)))]
    nearest = squared_distances(vectors, vectors[taken[0]])
    while len(taken) < n:
        free[taken[-1]] = False
        total = nearest.sum()
        drawn = rng.choice(len(ids), p=nearest / total) if total > 0 else np.argmax(free)
        taken.append(int(drawn))
        nearest = np.minimum(nearest, squared_distances(vectors, vectors[taken[-1]]))
    return [ids[row] for row in taken]


_PLACES = [[0, 0], [0, 0], [9, 0], [9, 0], [0, 9]]  # a second prompt of a place has no weight while another is free

EXAMPLE = (
    Case({}, {"prompt_id": list("abcde"), "embedding": _PLACES}, 3, ["b", "c", "e"]),
    Case({}, {"prompt_id": list("abcde"), "embedding": _PLACES}, 5, ["b", "d", "e", "a", "c"], seed=1),
)
