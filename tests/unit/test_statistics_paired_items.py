"""McNemar's exact test and non-inferiority, on cases with known answers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marginbench.statistics.paired_items import mcnemar_exact, non_inferior, paired_se
from scipy import stats


def test_mcnemar_on_a_textbook_case():
    # 2 x 2 table with 10 and 2 discordant pairs: two-sided exact p = 2 * sum_{k<=2} C(12, k) / 2^12
    assert mcnemar_exact(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 4096)
    assert mcnemar_exact(0, 0) == 1
    with pytest.raises(ValueError, match="below 0"):
        mcnemar_exact(-1, 2)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_symmetric_and_a_probability(lost, gained):
    p = mcnemar_exact(lost, gained)
    assert 0 < p <= 1
    assert p == pytest.approx(mcnemar_exact(gained, lost), rel=1e-12)


def test_the_paired_error_is_that_of_the_mean():
    assert paired_se([1, 0, -1, 0]) == pytest.approx((2 / 3) ** 0.5 / 2)
    assert paired_se([1.0]) is None


def test_non_inferiority_turns_at_the_one_sided_bounds():
    reach = stats.t.ppf(0.95, 99) * 0.01
    assert non_inferior(reach - 0.0299, 0.01, 100, 0.03) == "pass"
    assert non_inferior(reach - 0.0301, 0.01, 100, 0.03) == "inconclusive"
    assert non_inferior(-reach - 0.0299, 0.01, 100, 0.03) == "inconclusive"
    assert non_inferior(-reach - 0.0301, 0.01, 100, 0.03) == "fail"
    assert non_inferior(0.5, None, 0, 0.03) == "inconclusive"
    with pytest.raises(ValueError, match="not above 0"):
        non_inferior(0.0, 0.1, 10, 0.0)
