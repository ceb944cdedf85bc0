"""Which prompts a round looks at: blocks of seeded permutations, the same for every arm of a seed."""

import numpy as np

from marginbench.errors import UserError
from marginbench.identity import stream


def pool_of_round(n_prompts: int, size: int, round: int, seed: int, dataset: str) -> np.ndarray:
    """Positions of the prompts of a round's pool, in pool order, shape (size,).

    An epoch is a permutation keyed by (dataset, seed, epoch); round r takes its r-th block. A block never crosses the
    end of an epoch: what is left over is not looked at in this epoch, and the next one has a permutation of its own. So
    within an epoch no prompt is looked at twice, and over epochs all prompts equally often in expectation. The strategy
    is no axis: an arm that looks at fewer prompts takes the first of the block, so that both arms of a seed see the
    same pools.

    Args:
        n_prompts: prompts of the dataset.
        size: prompts of a block; the same in every arm that is to be compared.
        round: from 0.
        seed: the run's seed.
        dataset: the dataset's id.

    Raises:
        UserError: a block is larger than the dataset.
    """
    if size < 1 or round < 0:
        raise ValueError(f"size {size}, round {round}: a block has at least one prompt, rounds count from 0")
    if size > n_prompts:
        raise UserError(
            f"dataset `{dataset}`: a round looks at {size} prompts, but there are {n_prompts}; "
            "lower pool_factor or the labels of a round, or give more prompts"
        )
    epoch, block = divmod(round, n_prompts // size)
    return stream("pools", dataset, seed, epoch).permutation(n_prompts)[block * size : (block + 1) * size]
