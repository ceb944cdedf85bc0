"""Active preference learning in two stages (Oh et al. 2026, arXiv 2604.02766, after Muldrew et al. 2024, 2402.08114).

The prompts of the highest predictive entropy, half of the pool, get a fresh pair of answers each; of these the n pairs
of the largest implicit reward margin are labelled and trained on:

    pool of 32 n -> 16 n by H(x) -> n by |r(x, y1) - r(x, y2)|

with H as in `entropy` and r as in `margin`. With n = 16 a round samples 512 x 2 + 256 x 2 = 1,536 answers, 48 times
those of `random`.

Deviations from the released code: the entropy is estimated from answers sampled at temperature 1 without truncation
(there 0.9 and top-k 50; `temperature: null` samples as the loop does), padding is masked, answers are averaged by
prompt, and a pair is two answers to one prompt. In the code of Muldrew et al. the two scores are alternatives, not
stages; for their loop see `apl_original`.
"""

import numpy as np
import pandas as pd
from pydantic import Field

from marginbench.selection import entropy, margin
from marginbench.selection.base import Case, EntropyParams, Stage, entropy_stage, share_of


class Params(EntropyParams):
    """Parameters of APL."""

    keep_share: float = Field(
        0.5, gt=0, le=1, description="Share of the pool that the entropy stage keeps, rounded down; at least n."
    )


def stages(params: Params) -> tuple[Stage, ...]:
    """By entropy, then on fresh pairs by margin."""
    return (entropy_stage(params, share_of(params.keep_share)), *margin.stages(params))


pool = entropy.pool


def rank(table: pd.DataFrame, n: int, rng: np.random.Generator, params: Params, stage: int) -> list[str]:
    """The n largest entropies (stage 0) or absolute margins (stage 1), largest first."""
    return (entropy if stage == 0 else margin).rank(table, n, rng, params, 0)


EXAMPLE = (
    Case({}, {"prompt_id": list("abcdefgh"), "entropy": [10, 42, 35, 8, 27, 31, 27, 55]}, 4, ["h", "b", "c", "f"]),
    Case({}, {"prompt_id": list("bcfh"), "margin": [0.05, 0.4, 0.1, 0.2]}, 2, ["c", "h"], stage=1),
)
