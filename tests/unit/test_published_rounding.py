"""Interval arithmetic of rounding: it misses no value that could have been printed so, and its ends are reached."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marginbench.reporting import rounding
from marginbench.reporting.rounding import Range, printed_range
from scipy import stats

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=150)
settings.load_profile("steady")

numbers = st.floats(0.5, 99.5)
digits = st.integers(0, 3)
TIGHT = 1e-9


def printed(value, decimals):
    """What a paper prints of a value, as a range."""
    return printed_range(round(value, decimals), decimals)


def holds(found: Range, value: float) -> bool:
    return found.low - TIGHT <= value <= found.high + TIGHT


@given(st.floats(-1000, 1000), digits)
def test_a_value_lies_in_the_range_of_its_print(value, decimals):
    assert holds(printed(value, decimals), value)


def test_ranges_by_hand():
    for found, low, high in [
        (printed_range(2.23, 2), 2.225, 2.235),
        (printed_range(2.082, 3, 0.003), 2.079, 2.085),
        (printed_range(1.75, 2, 0.003), 1.745, 1.755),
    ]:
        assert (found.low, found.high) == pytest.approx((low, high))
    assert Range(0, 1).meets(Range(1, 2))
    assert not Range(0, 1).meets(Range(1.001, 2))
    with pytest.raises(ValueError, match="holds nothing"):
        Range(1, 0)


@given(st.lists(numbers, min_size=1, max_size=7), digits, digits)
def test_a_right_mean_always_agrees(values, decimals, result_decimals):
    mean = sum(values) / len(values)
    found = rounding.mean([printed(value, decimals) for value in values])
    assert holds(found, mean)
    assert printed(mean, result_decimals).meets(found)
    assert found.high - found.low == pytest.approx(10.0**-decimals)


@given(numbers, numbers, digits)
def test_right_differences_ratios_and_gains_always_agree(a, b, decimals):
    left, right = printed(a, decimals), printed(b, decimals)
    assert holds(left - right, a - b)
    assert holds(rounding.total([left, right]), a + b)
    if right.low > 0:
        assert holds(rounding.ratio(left, right), a / b)
        gain = rounding.gain_per_cent(left, right)
        assert holds(gain, 100 * (a / b - 1))
        ends = [100 * (x / y - 1) for x in (left.low, left.high) for y in (right.low, right.high)]
        assert (gain.low, gain.high) == pytest.approx((min(ends), max(ends)))


@given(numbers, st.integers(2, 2000), digits)
def test_the_standard_error_of_a_win_rate_always_agrees(win_rate, n, decimals):
    p = win_rate / 100
    assert holds(rounding.hard_win_rate_se(printed(win_rate, decimals), n), 100 * math.sqrt(p * (1 - p) / (n - 1)))


def test_the_standard_error_turns_at_one_half():
    found = rounding.hard_win_rate_se(Range(40, 70), 101)
    assert found.high == pytest.approx(5.0)
    assert found.low == pytest.approx(100 * math.sqrt(0.7 * 0.3 / 100))


@pytest.mark.parametrize("halves", range(0, 1611, 7))
def test_a_count_of_verdicts_always_agrees(halves):
    shown = printed(100 * halves / 1610, 2)
    assert shown.meets(rounding.nearest_win_rate(shown, 805))


@pytest.mark.parametrize(("win_rate", "possible"), [(36.65, True), (37.64, True), (32.64, False), (24.02, False)])
def test_counts_of_verdicts_by_hand(win_rate, possible):
    """295 of 805 is 36.646 %, 303 is 37.640 %; 262.5 and 263 are 32.609 % and 32.671 %."""
    shown = printed_range(win_rate, 2)
    assert shown.meets(rounding.nearest_win_rate(shown, 805)) == possible


@given(numbers, numbers, st.floats(0.2, 9), st.floats(0.2, 9), st.integers(2, 10))
def test_the_p_of_a_t_test_always_agrees(a, b, sd_a, sd_b, n):
    found = rounding.t_test_p(printed(a, 1), printed(sd_a, 1), printed(b, 1), printed(sd_b, 1), n)
    assert holds(found, float(stats.ttest_ind_from_stats(a, sd_a, n, b, sd_b, n).pvalue))


def test_a_difference_of_nothing_may_have_any_large_p():
    assert rounding.t_test_p(Range(1, 2), Range(1, 1), Range(1.5, 1.6), Range(1, 1), 3).high == 1.0


def test_normal_interval_by_hand():
    """Mean 0.3542, sd 2.109 over 2,000 answers: printed .262 to .447."""
    low, high = rounding.normal_interval(printed_range(0.3542, 4), printed_range(2.109, 3), 2000, 95)
    half = 1.959964 * 2.109 / math.sqrt(2000)
    assert holds(low, 0.3542 - half)
    assert holds(high, 0.3542 + half)
    assert printed_range(0.262, 3).meets(low)
    assert printed_range(0.447, 3).meets(high)


def test_nothing_can_be_made_of_nothing():
    with pytest.raises(ValueError, match="mean of nothing"):
        rounding.mean([])
    with pytest.raises(ValueError, match="positive denominator"):
        rounding.ratio(Range(1, 2), Range(0, 1))
