"""Whether two arms are as good as the same: two one-sided tests against a margin that was stated beforehand.

A difference that is not significant may only be badly measured; that two arms are equivalent has to be shown
(docs/decisions/0081-equivalence.md).
"""

import math
from dataclasses import dataclass
from functools import cache

import pandas as pd
from scipy import integrate, optimize, special, stats

from marginbench.statistics.claims import PairedTest, seeds_test
from marginbench.statistics.intervals import MIN_SEEDS

EQUIVALENT, DIFFERENT, UNDECIDED = "equivalent", "different", "undecided"
SMALL_BUT_REAL = "equivalent and different"
POWER = 0.8
NEGLIGIBLE = 1e-12
"""Probability that is left out at each end of the integral over the standard error."""


@dataclass(frozen=True)
class Equivalence:
    """Two one-sided t-tests (TOST: Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15:657).

    `p_lower` belongs to the hypothesis that the difference is -margin or less, `p_upper` to margin or more, `p_tost` is
    the larger of the two: at most alpha if and only if `low` to `high`, the 1 - 2 alpha interval, lies within the
    margin. `p_difference` is the two-sided test of no difference. Verdicts (the four of Lakens 2017, Social
    Psychological and Personality Science 8:355):

    - "equivalent": p_tost <= alpha, p_difference > alpha;
    - "different": p_difference <= alpha, p_tost > alpha;
    - "equivalent and different": both at most alpha; a difference that is real and smaller than what matters;
    - "undecided": neither, or nothing could be tested; `reason` then says why, and all but `difference` is None.

    Each verdict is one row's: nothing is corrected for how many there are.
    """

    difference: float | None
    se: float | None
    df: int | None
    low: float | None
    high: float | None
    p_lower: float | None
    p_upper: float | None
    p_tost: float | None
    p_difference: float | None
    margin: float
    alpha: float
    n_seeds: int
    how: str
    verdict: str
    reason: str = ""


def _untestable(test: PairedTest, margin: float) -> str:
    if test.n_seeds < MIN_SEEDS:
        seeds = f"{test.n_seeds} seed{'s' * (test.n_seeds != 1)} with both arms"
        return f"{seeds}, and {MIN_SEEDS} are the fewest that say anything about training again"
    # Against the margin, not against 0: a sum of equal numbers is rounded, and three equal counts are a coincidence.
    if test.se is None or test.se <= 1e-9 * margin:
        return "every seed differs by the same amount, so nothing is known about how another would"
    return ""


def _verdict(p_tost: float, p_difference: float, alpha: float) -> str:
    if p_tost <= alpha:
        return SMALL_BUT_REAL if p_difference <= alpha else EQUIVALENT
    return DIFFERENT if p_difference <= alpha else UNDECIDED


def equivalence(test: PairedTest, margin: float, alpha: float = 0.05) -> Equivalence:
    """TOST of a mean difference whose standard error and degrees of freedom are known: by seed, or seeds x prompts.

    `margin` (above 0, in the unit of the difference) is what matters, stated before the run; it is used on both sides.
    Raises ValueError on a margin or an alpha that is no such thing.
    """
    if not (math.isfinite(margin) and margin > 0):
        raise ValueError(f"margin {margin}: an equivalence margin is a number above 0")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha {alpha} is not between 0 and 0.5")
    common = {"margin": float(margin), "alpha": alpha, "n_seeds": test.n_seeds, "how": test.how}
    reason = _untestable(test, margin)
    if reason:
        return Equivalence(test.difference, *[None] * 8, **common, verdict=UNDECIDED, reason=reason)
    difference, se, df = test.difference, test.se, test.df
    p_lower = float(stats.t.sf((difference + margin) / se, df))
    p_upper = float(stats.t.cdf((difference - margin) / se, df))
    half = float(stats.t.isf(alpha, df)) * se
    tests = (p_lower, p_upper, max(p_lower, p_upper), test.p)
    verdict = _verdict(tests[2], test.p, alpha)
    return Equivalence(difference, se, df, difference - half, difference + half, *tests, **common, verdict=verdict)


def paired_equivalence(ours: pd.Series, theirs: pd.Series, margin: float, alpha: float = 0.05) -> Equivalence:
    """`equivalence` of ours - theirs, one value per seed on each side, matched by index.

    Both arms of a seed meet the same pools of prompts, so what these have in common leaves the difference. Seeds that
    only one arm has, or that lack a value, are left out and not counted in `n_seeds`. Raises ValueError on repeats.
    """
    for name, series in (("ours", ours), ("theirs", theirs)):
        if not series.index.is_unique:
            raise ValueError(f"{name}: seed {series.index[series.index.duplicated()][0]} occurs more than once")
    return equivalence(seeds_test((ours - theirs).dropna().to_numpy(dtype=float)), margin, alpha)


def tost_power(margin: float, se: float, df: int, alpha: float = 0.05, difference: float = 0.0) -> float:
    """Probability that TOST declares equivalence, for a true difference and the true standard error of its estimate.

    With u the estimated over the true standard error, u^2 ~ chi^2_df / df, the estimate must lie within
    margin - t_{1 - alpha} u se of 0: a normal probability, averaged over u in one numerical integral. For normal
    differences this is exact (Phillips 1990, Journal of Pharmacokinetics and Biopharmaceutics 18:137, who writes it as
    a bivariate noncentral t); no simulation, and not the approximation by two noncentral t, which is poor at few
    degrees of freedom.
    """
    if not (se > 0 and margin > 0 and df >= 1):
        raise ValueError(f"margin {margin}, standard error {se}, {df} degrees of freedom: all must be above 0")
    wide, shift, needed = margin / se, difference / se, float(stats.t.isf(alpha, df))

    def density(u: float) -> float:
        left = wide - needed * u
        within = special.ndtr(left - shift) - special.ndtr(-left - shift)
        return float(within * stats.chi.pdf(u * math.sqrt(df), df) * math.sqrt(df))

    low = float(stats.chi.ppf(NEGLIGIBLE, df)) / math.sqrt(df)
    high = min(wide / needed, float(stats.chi.isf(NEGLIGIBLE, df)) / math.sqrt(df))
    return 0.0 if high <= low else float(integrate.quad(density, low, high)[0])


def _standard_error(sd: float, seeds: int, power: float) -> float:
    if seeds < MIN_SEEDS or sd < 0 or not 0 < power < 1:
        raise ValueError(f"{seeds} seeds, sd {sd}, power {power}: at least {MIN_SEEDS}, not negative, between 0 and 1")
    return sd / math.sqrt(seeds)


def _enough(power: float, df: int, needed: float) -> float:
    """Standard errors that surely suffice: estimate and its standard error each miss with half of 1 - power."""
    miss = (1 - power) / 2
    return needed * float(stats.chi.isf(miss, df)) / math.sqrt(df) + float(stats.norm.isf(miss / 2))


@cache
def _margin_ratio(df: int, alpha: float, power: float) -> float:
    """Smallest margin in standard errors."""
    most = _enough(power, df, float(stats.t.isf(alpha, df)))
    return float(optimize.brentq(lambda wide: tost_power(wide, 1.0, df, alpha) - power, 1e-9, most))


def smallest_margin(sd: float, seeds: int, alpha: float = 0.05, power: float = POWER) -> float:
    """Smallest margin within which `seeds` seeds would declare equivalence with this power, were the arms the same.

    `sd` is that of the per-seed differences. A root of `tost_power`, so exact for normal differences. It is what a
    study could have shown at all; from the sd of three seeds it is itself uncertain by a factor of two and more.
    """
    return _standard_error(sd, seeds, power) * _margin_ratio(seeds - 1, alpha, power)


def smallest_difference(sd: float, seeds: int, alpha: float = 0.05, power: float = POWER) -> float:
    """Smallest true difference that the two-sided paired t-test over seeds finds with this power (noncentral t)."""
    se, df = _standard_error(sd, seeds, power), seeds - 1
    needed = float(stats.t.isf(alpha / 2, df))

    def missing(ratio: float) -> float:
        return float(stats.nct.sf(needed, df, ratio) + stats.nct.cdf(-needed, df, ratio)) - power

    return se * float(optimize.brentq(missing, 1e-9, _enough(power, df, needed)))
