"""Random selection that pays what APL pays: the same pool, the same answers sampled, no score looked at.

A control of our own (APL: Muldrew et al. 2024, arXiv 2402.08114; Oh et al. 2026, arXiv 2604.02766). Where `apl` beats
`random` it may owe it to what it selects or to what it spends; against this arm it owes it to what it selects. The
stages are those of `apl`, each with a random choice in the place of its score, so both sample as many answers in the
same way: with n = 16 and the defaults 512 x 2 and 256 x 2 a round.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from marginbench.selection import apl, random
from marginbench.selection.base import Case, Stage


class Params(apl.Params):
    """Parameters of APL, which say what is paid for."""


def stages(params: Params) -> tuple[Stage, ...]:
    """The stages of APL, without their scores."""
    return tuple(replace(stage, score="none") for stage in apl.stages(params))


pool = apl.pool


def rank(table: pd.DataFrame, n: int, rng: np.random.Generator, params: Params, stage: int) -> list[str]:
    """The first n of a random permutation, in either stage."""
    return random.rank(table, n, rng, random.Params(), stage)


EXAMPLE = (
    Case({}, {"prompt_id": ["a", "b", "c", "d"]}, 2, ["a", "c"]),
    Case({}, {"prompt_id": ["a", "b"]}, 1, ["a"], stage=1),
)
