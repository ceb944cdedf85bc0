"""TOST: worked and published examples, verdicts, invariances, how often it errs, and what it could have shown."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from marginbench.identity import stream
from marginbench.statistics.claims import OVER_BOTH, PairedTest, crossed_test, seeds_test
from marginbench.statistics.equivalence import (
    DIFFERENT,
    EQUIVALENT,
    SMALL_BUT_REAL,
    UNDECIDED,
    equivalence,
    paired_equivalence,
    smallest_difference,
    smallest_margin,
    tost_power,
)
from marginbench.statistics.intervals import mean_interval, wilson_interval
from scipy import stats

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("steady")

differences = st.lists(st.floats(-50, 50).map(lambda x: round(x, 3)), min_size=3, max_size=12)
margins = st.floats(0.1, 60)


def by_seed(values):
    return equivalence(seeds_test(values), 5.0)


# --- worked and published examples --------------------------------------------------------------------------------


def test_three_seeds_by_hand():
    """Differences 1, 2, 3, margin 5: se 1/sqrt(3), t = 7 sqrt(3) and -3 sqrt(3); with 2 degrees of freedom
    P(T > t) = (1 - t / sqrt(2 + t^2)) / 2; t(0.95, 2) = 2.919986 from any t table."""
    found = by_seed([1.0, 2.0, 3.0])
    assert (found.difference, found.se, found.df) == pytest.approx((2, 1 / math.sqrt(3), 2))
    assert found.p_lower == pytest.approx((1 - math.sqrt(147 / 149)) / 2, abs=1e-12)
    assert found.p_upper == pytest.approx((1 - math.sqrt(27 / 29)) / 2, abs=1e-12)
    assert found.p_tost == found.p_upper
    assert found.p_difference == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-12)
    assert (found.low, found.high) == pytest.approx(
        (2 - 2.919986 / math.sqrt(3), 2 + 2.919986 / math.sqrt(3)), abs=1e-6
    )
    assert found.verdict == EQUIVALENT


@given(differences, margins)
def test_equals_scipys_one_sided_tests(values, margin):
    assume(np.std(values) > 1e-3)
    found = equivalence(seeds_test(values), margin)
    lower = stats.ttest_1samp(values, -margin, alternative="greater")
    upper = stats.ttest_1samp(values, margin, alternative="less")
    plain = stats.ttest_1samp(values, 0.0)
    assert (found.p_lower, found.p_upper) == pytest.approx((lower.pvalue, upper.pvalue), abs=1e-9)
    assert found.p_difference == pytest.approx(plain.pvalue, abs=1e-9)
    interval = plain.confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-6)


CROSSOVER = math.sqrt(math.log(1 + 0.2**2)) * math.sqrt(2 / 20)
"""Standard error of a 2 x 2 crossover on the log scale: CV 0.2, 20 subjects, 18 degrees of freedom."""


def test_interval_of_a_bioequivalence_study():
    """R, PowerTOST: CI.BE(pe = 0.95, CV = 0.20, n = 20) prints 0.8522362 and 1.0589787."""
    difference = math.log(0.95)
    t = difference / CROSSOVER
    test = PairedTest(difference, CROSSOVER, 18, t, float(2 * stats.t.sf(abs(t), 18)), 20, 0, "subjects")
    found = equivalence(test, math.log(1.25))
    assert (math.exp(found.low), math.exp(found.high)) == pytest.approx((0.8522362, 1.0589787), abs=1e-7)
    assert found.verdict == EQUIVALENT


def test_power_of_a_bioequivalence_study():
    """R, PowerTOST (exact): sampleN.TOST(theta0 = 0.95, CV = 0.20, design = "2x2") prints 20 and 0.8346802."""
    assert tost_power(math.log(1.25), CROSSOVER, 18, 0.05, math.log(0.95)) == pytest.approx(0.8346802, abs=1e-6)


# --- verdicts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "margin", "verdict"),
    [
        ([1.0, 2.0, 3.0], 5.0, EQUIVALENT),
        ([4.9, 5.0, 5.1], 2.0, DIFFERENT),
        ([-4.9, -5.0, -5.1], 2.0, DIFFERENT),
        ([0.9, 1.0, 1.1], 5.0, SMALL_BUT_REAL),
        ([-4.0, 0.0, 5.0], 2.0, UNDECIDED),
        ([4.0, 5.0, 6.5], 5.0, DIFFERENT),
    ],
)
def test_verdicts(values, margin, verdict):
    found = equivalence(seeds_test(values), margin)
    assert (found.verdict, found.reason) == (verdict, "")


@given(differences, margins, st.sampled_from([0.01, 0.05, 0.2]))
def test_equivalent_is_an_interval_within_the_margin(values, margin, alpha):
    assume(np.std(values) > 1e-3)
    found = equivalence(seeds_test(values), margin, alpha)
    assume(abs(found.p_tost - alpha) > 1e-9)
    within = -margin < found.low and found.high < margin
    assert within == (found.verdict in (EQUIVALENT, SMALL_BUT_REAL))
    assert (found.p_difference <= alpha) == (found.verdict in (DIFFERENT, SMALL_BUT_REAL))
    assert found.p_tost == max(found.p_lower, found.p_upper)


@pytest.mark.parametrize("seeds", [0, 1, 2])
def test_fewer_than_three_seeds_are_undecided(seeds):
    found = by_seed([0.1, 0.2][:seeds])
    assert (found.verdict, found.p_tost, found.low, found.n_seeds) == (UNDECIDED, None, None, seeds)
    assert str(seeds) in found.reason


@pytest.mark.parametrize(
    "values", [[0.0, 0.0, 0.0], [1.1, 1.1, 1.1], [0.1 + 0.2 - 0.3, 0.0, 0.1 + 0.2 - 0.3], [0.8 - 0.7, 0.9 - 0.8, 0.1]]
)
def test_seeds_that_agree_show_nothing(values):
    """Three equal win rates over a few hundred prompts are a coincidence of counts, and rounding is no spread."""
    found = by_seed(values)
    assert (found.verdict, found.p_tost) == (UNDECIDED, None)
    assert "same amount" in found.reason


@pytest.mark.parametrize(
    ("margin", "alpha"), [(0, 0.05), (-1, 0.05), (math.nan, 0.05), (math.inf, 0.05), (1, 0), (1, 0.5)]
)
def test_refuses_what_is_no_margin_or_level(margin, alpha):
    with pytest.raises(ValueError, match=r"margin|alpha"):
        equivalence(seeds_test([1.0, 2.0, 4.0]), margin, alpha)


# --- invariances and pairing --------------------------------------------------------------------------------------


@given(differences, margins)
def test_exchanging_the_arms_turns_the_sign_only(values, margin):
    there, back = (equivalence(seeds_test(sign * np.array(values)), margin) for sign in (1.0, -1.0))
    assert (there.verdict, there.reason) == (back.verdict, back.reason)
    assert there.difference == pytest.approx(-back.difference, abs=1e-12)
    if there.se is not None:
        assert (there.low, there.p_lower) == pytest.approx((-back.high, back.p_upper), abs=1e-9)


@given(differences, margins, st.sampled_from([0.01, 0.5, 100.0]))
def test_units_do_not_matter(values, margin, scale):
    assume(np.std(values) > 1e-3)
    plain, scaled = (equivalence(seeds_test(np.array(values) * by), margin * by) for by in (1.0, scale))
    assert scaled.p_tost == pytest.approx(plain.p_tost, abs=1e-9)
    assert scaled.high == pytest.approx(plain.high * scale, rel=1e-9, abs=1e-9 * scale)


@given(differences, margins)
def test_a_wider_margin_is_easier_to_meet(values, margin):
    assume(np.std(values) > 1e-3)
    narrow, wide = (equivalence(seeds_test(values), by * margin) for by in (1, 2))
    assert wide.p_tost <= narrow.p_tost
    assert wide.p_difference == narrow.p_difference


def test_matched_by_seed_not_by_place():
    ours, theirs = pd.Series({3: 1.0, 1: 2.0, 2: 4.0, 9: 7.0}), pd.Series({1: 1.0, 2: 2.5, 3: 0.8, 5: 3.0})
    found = paired_equivalence(ours, theirs, 3.0)
    assert found == equivalence(seeds_test([1.0, 1.5, 1.0 - 0.8]), 3.0)
    assert found.n_seeds == 3
    theirs[2] = np.nan
    assert paired_equivalence(ours, theirs, 3.0).verdict == UNDECIDED
    with pytest.raises(ValueError, match="seed 1 occurs more than once"):
        paired_equivalence(pd.concat([ours, ours[[1]]]), theirs, 3.0)


def test_pairing_takes_away_what_a_seed_gives_to_both():
    """Good and bad seeds, a small steady lead: shown equivalent when paired, hidden when seeds are mixed up."""
    level, noise = np.array([60.0, 75.0, 52.0, 81.0, 67.0]), np.array([0.2, -0.1, 0.3, -0.2, 0.1])
    ours, theirs = pd.Series(level + noise + 0.1), pd.Series(level)
    assert paired_equivalence(ours, theirs, 3.0).verdict == EQUIVALENT
    mixed = pd.Series(theirs.to_numpy()[[1, 2, 3, 4, 0]])
    assert paired_equivalence(ours, mixed, 3.0).verdict == UNDECIDED


def test_takes_a_test_over_seeds_and_prompts():
    values = stream("equivalence", "crossed").normal(0.1, 1.0, (5, 200))
    test = crossed_test(values)
    found = equivalence(test, 0.5)
    assert (found.difference, found.se, found.how) == (test.difference, test.se, OVER_BOTH)
    assert found.high == pytest.approx(test.difference + stats.t.ppf(0.95, 4) * test.se)


# --- how often it errs, and power ---------------------------------------------------------------------------------


def share(verdicts, true, sd, seeds=5, margin=1.0, trials=1000):
    draws = stream("tost", true, sd, seeds).normal(true, sd, (trials, seeds))
    return float(np.mean([equivalence(seeds_test(row), margin).verdict in verdicts for row in draws]))


def test_size_at_the_margin():
    """A difference of exactly the margin is declared equivalent in alpha of the studies, less where seeds are noisy."""
    met = (EQUIVALENT, SMALL_BUT_REAL)
    assert 0.03 < share(met, true=1.0, sd=0.2) < 0.07
    assert 0.03 < share(met, true=-1.0, sd=0.2) < 0.07
    assert share(met, true=1.0, sd=3.0) < 0.03


def test_a_difference_that_is_not_significant_is_no_equivalence():
    """With three noisy seeds and a true difference of the margin, most studies find nothing significant. Whoever read
    that as equal would be wrong each time; TOST calls hardly any of them equivalent."""
    assert share((EQUIVALENT, UNDECIDED), true=1.0, sd=1.0, seeds=3) > 0.7
    assert share((EQUIVALENT, SMALL_BUT_REAL), true=1.0, sd=1.0, seeds=3) < 0.05


def simulated(margin, sd, seeds, alpha=0.05, true=0.0, trials=40_000):
    """Share of equivalence from draws, written down independently of the library."""
    draws = stream("power", margin, sd, seeds, true).normal(true, sd, (trials, seeds))
    half = stats.t.ppf(1 - alpha, seeds - 1) * draws.std(axis=1, ddof=1) / np.sqrt(seeds)
    return float((np.abs(draws.mean(axis=1)) + half <= margin).mean())


@pytest.mark.parametrize(
    ("margin", "seeds", "true"),
    [(1.0, 3, 0.0), (3.0, 3, 0.5), (1.2, 5, 0.0), (1.2, 5, -0.6), (0.5, 30, 0.1), (9.0, 3, 0.0)],
)
def test_power_is_what_simulation_finds(margin, seeds, true):
    found = tost_power(margin, 1 / math.sqrt(seeds), seeds - 1, 0.05, true)
    expected = simulated(margin, 1.0, seeds, true=true)
    assert found == pytest.approx(expected, abs=4 * math.sqrt(max(expected * (1 - expected), 1e-4) / 40_000))


def test_power_at_the_margin_is_at_most_alpha():
    for seeds, margin in ((3, 0.5), (3, 20.0), (10, 2.0)):
        assert tost_power(margin, 1 / math.sqrt(seeds), seeds - 1, 0.05, margin) <= 0.05 + 1e-6
    assert tost_power(50.0, 1.0, 2, 0.05, 50.0) == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize("seeds", [3, 5, 12])
def test_smallest_margin_has_the_power_it_promises(seeds):
    margin = smallest_margin(2.0, seeds)
    assert simulated(margin, 2.0, seeds) == pytest.approx(0.8, abs=0.01)
    assert smallest_margin(4.0, seeds) == pytest.approx(2 * margin, rel=1e-6)
    assert smallest_margin(2.0, seeds, power=0.9) > margin > smallest_margin(2.0, seeds + 1)
    assert smallest_margin(0.0, seeds) == 0.0


@pytest.mark.parametrize("seeds", [3, 5, 12])
def test_smallest_difference_has_the_power_it_promises(seeds):
    difference = smallest_difference(2.0, seeds)
    draws = stream("mde", seeds).normal(difference, 2.0, (40_000, seeds))
    t = draws.mean(axis=1) / (draws.std(axis=1, ddof=1) / np.sqrt(seeds))
    assert (np.abs(t) > stats.t.ppf(0.975, seeds - 1)).mean() == pytest.approx(0.8, abs=0.01)


PER_SEED = 100 * math.sqrt(2 * 0.25 / 500)
"""Points: sd of a seed's difference of two win rates near 50 %, each from 500 independent judgements."""


def test_v8_resolution_of_one_run():
    """500 judgements, half of them won: standard error 2.236 points (by n, 2.238 by n - 1), 95 % half-width 4.383."""
    found = mean_interval([0.0, 100.0] * 250, 0.95)
    assert found.se * math.sqrt(499 / 500) == pytest.approx(2.236, abs=5e-4)
    assert stats.norm.isf(0.025) * found.se * math.sqrt(499 / 500) == pytest.approx(4.383, abs=5e-4)
    assert (found.high - found.low) / 2 == pytest.approx(stats.t.isf(0.025, 499) * found.se)
    wilson = wilson_interval(250, 500, 0.95)
    assert 100 * (wilson.high - wilson.low) / 2 == pytest.approx(4.383, abs=0.02)


def test_resolution_of_the_released_setting():
    """Two arms, 3 seeds, 500 judgements each: (1.960 + 0.842) sqrt(2 * 0.25 / 1500) = 5.115 points when the standard
    error is known. That is the limit of many degrees of freedom at the same standard error; three seeds that must
    estimate it, too, find differences from twice as much on (docs/decisions/0081-equivalence.md)."""
    many = 3000
    assert smallest_difference(PER_SEED / math.sqrt(3) * math.sqrt(many), many) == pytest.approx(5.115, abs=0.01)
    normal = (stats.norm.isf(0.05) + stats.norm.isf(0.1)) * PER_SEED / math.sqrt(3)
    assert smallest_margin(PER_SEED / math.sqrt(3) * math.sqrt(many), many) == pytest.approx(normal, abs=0.01)


@pytest.mark.parametrize(("seeds", "difference", "margin"), [(3, 10.3, 8.4), (5, 5.3, 5.1), (10, 3.2, 3.2)])
def test_resolution_with_few_seeds(seeds, difference, margin):
    """The numbers of docs/decisions/0081-equivalence.md, with the power that simulation finds there."""
    assert smallest_difference(PER_SEED, seeds) == pytest.approx(difference, abs=0.051)
    assert smallest_margin(PER_SEED, seeds) == pytest.approx(margin, abs=0.051)
    assert simulated(smallest_margin(PER_SEED, seeds), PER_SEED, seeds) == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("call", [smallest_margin, smallest_difference])
def test_nothing_is_promised_for_two_seeds(call):
    for bad in ((1.0, 2), (-1.0, 5)):
        with pytest.raises(ValueError, match="at least 3"):
            call(*bad)
