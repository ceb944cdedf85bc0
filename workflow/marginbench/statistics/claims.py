"""Which differences between two methods are claimed: a test paired by seed and prompt, and Holm's correction.

The claim is about trainings, asked on prompts that could have been others: seeds and prompts are both drawn again, and
every training answers every prompt, so that they are crossed (docs/decisions/0070-claims.md).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from marginbench.statistics.intervals import MIN_SEEDS, NO_INTERVAL, OVER_SEEDS

OVER_BOTH = "seeds x prompts"
FEWEST_SHARED = 0.5
"""Smallest share of a training's prompts that all trainings must have for the crossed test. Nulls cost a few prompts;
where prompts are drawn anew for every seed hardly any is shared, and the seeds' means already hold their variation."""


@dataclass(frozen=True)
class PairedTest:
    """A two-sided test of a mean difference against 0.

    `how` names what varies: "seeds x prompts", "seeds", or "none" where nothing can be tested, and `se`, `df`, `t` and
    `p` are None. `n_prompts` is 0 where prompts were not taken apart.
    """

    difference: float | None
    se: float | None
    df: int | None
    t: float | None
    p: float | None
    n_seeds: int
    n_prompts: int
    how: str


def crossed_se(differences: np.ndarray, weights: Sequence[float] | np.ndarray | None = None) -> tuple[float, float]:
    """Mean of a (seeds, prompts) array of differences and its standard error when both are random and crossed.

    Model d_sp = mu + a_s + b_p + e_sp. With mean squares MS_s (seeds), MS_p (prompts) and MS_e (residual), var_e is
    MS_e, var_s (MS_s - MS_e) / P and var_p (MS_p - MS_e) / S, none below 0, so that

        Var(mean) = var_s / S + var_p / P + var_e / (S P)
                  = [max(MS_s, MS_e) + max(MS_p - MS_e, 0)] / (S P)

    (Searle, Casella and McCulloch 1992, Variance Components, chapter 4). `weights` (per prompt, above 0) make the mean
    a ratio; values are then linearised around it, mean + w_p / mean(w) (d_sp - mean) (Cochran 1977, 2.11).
    """
    values = np.asarray(differences, dtype=float)
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        raise ValueError(f"{values.shape}: at least 2 seeds x 2 prompts of finite numbers are needed")
    if weights is not None:
        weight = np.asarray(weights, dtype=float)
        if weight.shape != values.shape[1:] or not (weight > 0).all():
            raise ValueError(f"{weight.shape} weights for {values.shape[1]} prompts: one above 0 is needed for each")
        ratio = float(np.average(values, axis=1, weights=weight).mean())
        values = ratio + weight / weight.mean() * (values - ratio)
    seeds, prompts = values.shape
    mean = float(values.mean())
    seed, prompt = values.mean(axis=1), values.mean(axis=0)
    rest = values - seed[:, None] - prompt[None, :] + mean
    ms_seed = prompts * float(((seed - mean) ** 2).sum()) / (seeds - 1)
    ms_prompt = seeds * float(((prompt - mean) ** 2).sum()) / (prompts - 1)
    ms_rest = float((rest**2).sum()) / ((seeds - 1) * (prompts - 1))
    return mean, math.sqrt((max(ms_seed, ms_rest) + max(ms_prompt - ms_rest, 0.0)) / (seeds * prompts))


def _test(mean: float, se: float, n_seeds: int, n_prompts: int, how: str) -> PairedTest:
    """Student's t with S - 1 degrees of freedom; where nothing varies a difference of 0 has p = 1, others no test."""
    nothing_varies = mean != 0 and se <= 1e-9 * abs(mean)  # not `== 0`: a sum of equal numbers is rounded
    if n_seeds < MIN_SEEDS or nothing_varies:
        return PairedTest(mean, None, None, None, None, n_seeds, n_prompts, NO_INTERVAL)
    t = mean / se if se else 0.0
    return PairedTest(mean, se, n_seeds - 1, t, float(2 * stats.t.sf(abs(t), n_seeds - 1)), n_seeds, n_prompts, how)


def seeds_test(per_seed: Sequence[float] | np.ndarray) -> PairedTest:
    """Paired t-test on one difference per seed (Student 1908); fewer than MIN_SEEDS give the difference alone."""
    values = np.asarray(per_seed, dtype=float)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise ValueError("one finite difference per seed is needed")
    if not len(values):
        return PairedTest(None, None, None, None, None, 0, 0, NO_INTERVAL)
    se = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return _test(float(values.mean()), se, len(values), 0, OVER_SEEDS)


def crossed_test(differences: np.ndarray, weights: Sequence[float] | np.ndarray | None = None) -> PairedTest:
    """Test of the mean of a (seeds, prompts) array of differences: `crossed_se`, t with S - 1 degrees of freedom.

    Not Satterthwaite's: where few seeds agree by chance they become the prompts' many, and at the levels that Holm asks
    for the test then rejects over ten times too often. S - 1 rejects too rarely where seeds matter little.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < MIN_SEEDS:
        return seeds_test(np.average(values, axis=1, weights=weights))
    return _test(*crossed_se(values, weights), *values.shape, OVER_BOTH)


def paired_test(ours: pd.DataFrame, theirs: pd.DataFrame, weights: pd.Series | None = None) -> PairedTest | None:
    """`crossed_test` of ours - theirs, (seeds x prompts) frames with NaN where a value is missing.

    Seeds that both have, and prompts that all of those have on both sides; None where too few prompts are left
    (FEWEST_SHARED of the training that has fewest). `weights` is indexed by prompt.
    """
    seeds = ours.index.intersection(theirs.index).sort_values()
    if not len(seeds):
        return None
    prompts = ours.columns.union(theirs.columns).sort_values()
    both = [frame.reindex(index=seeds, columns=prompts) for frame in (ours, theirs)]
    kept = (both[0].notna() & both[1].notna()).all(axis=0).to_numpy()
    fewest = min(int(frame.notna().sum(axis=1).min()) for frame in both)
    if kept.sum() < max(2, FEWEST_SHARED * fewest):
        return None
    differences = (both[0] - both[1]).to_numpy()[:, kept]
    return crossed_test(differences, None if weights is None else weights.reindex(prompts).to_numpy()[kept])


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values, in the order given: reject where they are at most the level of the whole family.

    p_(i) adjusted = max over j <= i of min(1, (m - j + 1) p_(j)) (Holm 1979, Scandinavian Journal of Statistics 6:65).
    None (planned, not testable) counts in m, as if it were 1, and stays None.
    """
    m, largest = len(p_values), 0.0
    adjusted: list[float | None] = [None] * m
    tested = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    for rank, (p, place) in enumerate(tested):
        if not 0 <= p <= 1:
            raise ValueError(f"p-value {p} is not between 0 and 1")
        largest = max(largest, min(1.0, (m - rank) * p))
        adjusted[place] = largest
    return adjusted


def needed_ratio(level: float, family: int, df: int) -> float:
    """How many standard errors the clearest difference of a family must be from 0, so that Holm lets it pass."""
    return float(stats.t.isf(level / family / 2, df))
