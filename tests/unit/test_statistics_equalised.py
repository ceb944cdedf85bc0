"""Equal budgets by interpolation, and labeller x judge."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marginbench.statistics.agreement import difference_matrix
from marginbench.statistics.equalised import BOTH, OURS, THEIRS, equalise, value_at
from marginbench.statistics.intervals import NO_INTERVAL, OVER_SEEDS, paired_seeds_difference

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("steady")

PATH = pd.Series({0: 50.0, 100: 60.0, 300: 80.0})


# --- one path -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "value"), [(0, 50.0), (50, 55.0), (100, 60.0), (200, 70.0), (300, 80.0), (300.1, None), (-0.1, None)]
)
def test_on_the_line_between_checkpoints_and_nowhere_else(budget, value):
    assert value_at(PATH, budget) == value


def test_checkpoints_without_a_value_are_passed_over():
    assert value_at(pd.Series({0: 50.0, 100: np.nan, 300: 80.0}), 100) == 60.0
    assert value_at(pd.Series({0: np.nan, 100: 60.0, 300: 80.0}), 50) is None
    assert value_at(pd.Series({0: 50.0, 100: 60.0, 300: np.nan}), 200) is None
    assert value_at(pd.Series({0: np.nan}), 0) is None


def test_of_equal_budgets_the_last_counts():
    path = pd.Series([50.0, 60.0, 64.0, 80.0], index=[0, 100, 100, 200])
    assert (value_at(path, 100), value_at(path, 150)) == (64.0, 72.0)


def test_one_checkpoint_is_a_point():
    assert value_at(pd.Series({7.0: 3.0}), 7.0) == 3.0
    assert value_at(pd.Series({7.0: 3.0}), 7.1) is None


@pytest.mark.parametrize("index", [[0, 200, 100], [0, np.inf, np.inf]])
def test_a_budget_that_falls_is_refused(index):
    with pytest.raises(ValueError, match="path"):
        value_at(pd.Series([1.0, 2.0, 3.0], index=index), 1)


steps = st.lists(st.floats(0.1, 100), min_size=2, max_size=8)


@given(steps, st.floats(-20, 1000), st.floats(-3, 3))
def test_a_straight_path_is_read_exactly_or_not_at_all(sizes, budget, slope):
    spent = np.cumsum(sizes)
    found = value_at(pd.Series(5 + slope * spent, index=spent), budget)
    if spent[0] <= budget <= spent[-1]:
        assert found == pytest.approx(5 + slope * budget, abs=1e-6)
    else:
        assert found is None


# --- two arms -----------------------------------------------------------------------------------------------------


def paths(per_round, rounds, gain, seeds=3):
    """Win rates 50 + gain x round + seed, evaluated after the given rounds, indexed by what was spent."""
    return {seed: pd.Series({per_round * r: 50.0 + gain * r + seed for r in rounds}) for seed in range(seeds)}


def test_the_cheap_arm_sets_the_budget():
    """random spends 32 a round and ends at 640; apl has spent 1,536 after one round: 640 is on its first line."""
    random, apl = paths(32, range(0, 21, 4), 1.0), paths(1536, range(0, 21, 4), 2.0)
    found = equalise(apl, random)
    assert (found.budget, found.ends_first, found.from_start) == (640, THEIRS, (3, 0))
    assert found.theirs.to_dict() == {0: 70.0, 1: 71.0, 2: 72.0}
    assert found.ours.to_dict() == pytest.approx({seed: 50 + 2 * 640 / 1536 + seed for seed in range(3)})
    back = equalise(random, apl)
    assert (back.budget, back.ends_first, back.from_start) == (640, OURS, (0, 3))
    assert back.ours.equals(found.theirs)


def test_one_budget_for_all_seeds():
    ours, theirs = paths(10, range(6), 1.0), paths(10, range(6), 0.0)
    ours[1] = ours[1].iloc[:4]
    found = equalise(ours, theirs)
    assert (found.budget, found.ends_first) == (30, OURS)
    assert (found.ours - found.theirs).to_dict() == {0: 3.0, 1: 3.0, 2: 3.0}
    assert equalise(theirs, theirs).ends_first == BOTH


def test_runs_without_a_partner_do_not_count():
    ours, theirs = paths(10, range(6), 1.0), paths(10, range(6), 0.0)
    ours[7] = pd.Series({0: 50.0, 10: 51.0})
    theirs[8] = pd.Series({0: 50.0})
    ours[2] = pd.Series({0: np.nan, 10: np.nan})
    found = equalise(ours, theirs)
    assert (found.budget, list(found.ours.index), list(found.theirs.index)) == (50, [0, 1], [0, 1])


def test_nothing_in_common_is_no_budget():
    found = equalise({0: PATH}, {1: PATH})
    assert (found.budget, found.ends_first, len(found.ours), found.from_start) == (None, "", 0, (0, 0))


def test_a_path_that_starts_later_is_not_extended_backwards():
    late = pd.Series({500: 60.0, 900: 70.0})
    found = equalise({0: late, 1: PATH}, {0: PATH, 1: PATH})
    assert found.budget == 300
    assert (list(found.ours.index), list(found.theirs.index)) == ([1], [0, 1])


# --- labeller x judge ---------------------------------------------------------------------------------------------


def judged():
    """apl - random: 4 + seed where the judge labelled, 1 + seed elsewhere; (b, a) measured in two seeds only."""
    rows = []
    for labeller in "ab":
        for judge in "ab":
            for seed in range(3 if (labeller, judge) != ("b", "a") else 2):
                lead = (4.0 if labeller == judge else 1.0) + seed
                rows += [
                    (labeller, judge, "random", seed, 60.0 + 5 * seed),
                    (labeller, judge, "apl", seed, 60.0 + 5 * seed + lead),
                ]
    return pd.DataFrame(rows, columns=["labeller", "judge", "arm", "seed", "value"])


def test_every_labeller_meets_every_judge():
    found = difference_matrix(judged(), "apl", "random", 0.95)
    assert list(zip(found["labeller"], found["judge"], strict=True)) == [("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")]
    assert found["difference"].tolist() == pytest.approx([5.0, 2.0, 1.5, 5.0])
    assert found["same"].tolist() == [True, False, False, True]
    assert found["n_seeds"].tolist() == [3, 3, 2, 3]
    assert found["how"].tolist() == [OVER_SEEDS, OVER_SEEDS, NO_INTERVAL, OVER_SEEDS]
    expected = paired_seeds_difference([4.0, 5.0, 6.0], [0.0, 0.0, 0.0], 0.95)
    assert (found["low"][0], found["high"][0]) == pytest.approx((expected.low, expected.high))
    assert found.loc[2, ["low", "high"]].isna().all()


def test_exchanging_the_arms_turns_every_sign():
    there, back = (difference_matrix(judged(), *arms, 0.95) for arms in (("apl", "random"), ("random", "apl")))
    assert there["difference"].tolist() == pytest.approx((-back["difference"]).tolist())
    assert there["low"].dropna().tolist() == pytest.approx((-back["high"]).dropna().tolist())


def test_the_order_of_rows_does_not_matter():
    frame = judged()
    assert difference_matrix(frame.iloc[::-1], "apl", "random", 0.95).equals(
        difference_matrix(frame, "apl", "random", 0.95)
    )


def test_a_cell_that_was_not_measured_stays_empty():
    frame = judged()
    gone = frame[~((frame["labeller"] == "a") & (frame["judge"] == "b") & (frame["arm"] == "apl"))]
    cell = difference_matrix(gone, "apl", "random", 0.95).iloc[1]
    assert (cell["n_seeds"], cell["how"]) == (0, NO_INTERVAL)
    assert np.isnan(cell["difference"])


def test_a_value_that_occurs_twice_is_refused():
    frame = judged()
    with pytest.raises(ValueError, match="more than once"):
        difference_matrix(pd.concat([frame, frame.iloc[[0]]]), "apl", "random", 0.95)
