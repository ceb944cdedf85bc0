"""The test behind a claim: worked examples, invariances, how often it errs, and Holm's correction."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marginbench.identity import stream
from marginbench.statistics.claims import (
    OVER_BOTH,
    crossed_se,
    crossed_test,
    holm,
    needed_ratio,
    paired_test,
    seeds_test,
)
from marginbench.statistics.intervals import NO_INTERVAL, OVER_SEEDS, paired_seeds_difference
from scipy import stats

settings.register_profile("steady", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("steady")

PROMPTS = 40
TRIALS = 1000

grids = st.tuples(st.integers(3, 6), st.integers(2, 9), st.integers(0, 10_000)).map(
    lambda made: stream("grid", made[2]).normal(1, 2, made[:2])
)


def draw(seeds, trials, *, seed=0.0, prompt=0.0, rest=1.0, effect=0.0, prompts=PROMPTS):
    """`trials` arrays (seeds, prompts) of differences with the given standard deviations."""
    rng = stream("claims", seeds, trials, seed, prompt, rest, effect, prompts)
    noise = rng.normal(0, rest, (trials, seeds, prompts))
    return effect + noise + rng.normal(0, seed, (trials, seeds, 1)) + rng.normal(0, prompt, (trials, 1, prompts))


def rejected(arrays, level):
    return float(np.mean([crossed_test(array).p <= level for array in arrays]))


# --- worked examples ----------------------------------------------------------------------------------------------


def test_two_way_table_by_hand():
    """Seed means 1.5, 3.5, 7, prompt means 3, 5: MS_s = 15.5, MS_p = 6, MS_e = 1.5, so Var = (15.5 + 4.5) / 6."""
    found = crossed_test([[1, 2], [3, 4], [5, 9]])
    assert (found.difference, found.se) == pytest.approx((4, (20 / 6) ** 0.5), abs=1e-12)
    assert (found.df, found.n_seeds, found.n_prompts, found.how) == (2, 3, 2, OVER_BOTH)
    # The t distribution with 2 degrees of freedom has a closed form: p = 1 - t / sqrt(2 + t^2).
    assert found.p == pytest.approx(1 - found.t / (2 + found.t**2) ** 0.5, abs=1e-12)


def test_prompts_that_agree_add_nothing():
    """No residual and no prompt effect: the paired t-test on the seeds' values."""
    per_seed = np.array([1.0, 2.0, 4.0, 4.5])
    crossed, plain = crossed_test(np.repeat(per_seed[:, None], 7, axis=1)), seeds_test(per_seed)
    assert (crossed.difference, crossed.se, crossed.p) == pytest.approx(
        (plain.difference, plain.se, plain.p), abs=1e-12
    )
    found = stats.ttest_1samp(per_seed, 0)
    assert (plain.t, plain.p) == pytest.approx((found.statistic, found.pvalue), abs=1e-12)
    assert plain.how == OVER_SEEDS


def test_seeds_that_agree_by_chance_are_not_believed():
    """Equal seed means beside noisy prompts: the residual is the least that a seed's mean must vary by."""
    values = np.array([[1.0, -1.0, 2.0, 0.0], [-1.0, 1.0, 0.0, 2.0], [2.0, 0.0, 1.0, -1.0]]) + 3
    assert np.ptp(values.mean(axis=1)) == 0
    mean, se = crossed_se(values)
    rest = values - values.mean(axis=0) - values.mean(axis=1, keepdims=True) + values.mean()
    assert mean == 3.5
    assert se == pytest.approx(np.sqrt((rest**2).sum() / 6 / 12), abs=1e-12)


def test_weights_make_a_ratio():
    values = stream("weights").normal(0, 1, (4, 6))
    weights = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    mean, se = crossed_se(values, weights)
    assert mean == pytest.approx(np.average(values, axis=1, weights=weights).mean(), abs=1e-12)
    assert crossed_se(values, np.full(6, 3.0)) == pytest.approx(crossed_se(values), abs=1e-12)
    assert crossed_se(values, 10 * weights) == pytest.approx((mean, se), abs=1e-12)


@given(grids)
def test_never_surer_than_the_seeds_alone(grid):
    """The standard error is at least that of the paired interval over seeds in table.csv, on as many degrees."""
    crossed, alone = crossed_test(grid), paired_seeds_difference(grid.mean(axis=1), [0.0] * len(grid), 0.95)
    assert crossed.difference == pytest.approx(alone.mean, abs=1e-9)
    assert crossed.se >= alone.se - 1e-12


@given(grids, st.randoms(use_true_random=False))
def test_order_unit_and_sign_do_not_matter(grid, random):
    found = crossed_test(grid)
    rows, columns = list(range(grid.shape[0])), list(range(grid.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    assert crossed_test(grid[rows][:, columns]).p == pytest.approx(found.p, rel=1e-9)
    assert crossed_test(100 * grid).p == pytest.approx(found.p, rel=1e-9)
    assert crossed_test(-grid).p == pytest.approx(found.p, rel=1e-9)
    moved = crossed_test(grid + 5)
    assert (moved.difference, moved.se) == pytest.approx((found.difference + 5, found.se), rel=1e-9)


# --- how often it errs --------------------------------------------------------------------------------------------

NULLS = {
    "noise alone": {},
    "seeds alone": {"seed": 1.0, "rest": 0.01},
    "seeds differ": {"seed": 1.0},
    "prompts differ": {"prompt": 1.0},
    "both differ": {"seed": 0.3, "prompt": 1.0},
    "seeds differ a little": {"seed": 0.2},
}


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("name", NULLS)
def test_rejects_no_more_often_than_it_says(name, seeds):
    share = rejected(draw(seeds, TRIALS, **NULLS[name]), 0.05)
    assert share <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / TRIALS)
    if name == "seeds alone":
        assert share >= 0.05 - 3 * np.sqrt(0.05 * 0.95 / TRIALS), "where only seeds vary, Student's test is exact"


def test_prompts_taken_for_trainings_would_err_often():
    """Why seeds are the units: the same null, each of S x P values taken for an independent one."""
    arrays = draw(3, TRIALS, seed=0.3, prompt=1.0)
    naive = stats.ttest_1samp(arrays.reshape(TRIALS, -1), 0, axis=1).pvalue
    over_seeds = stats.ttest_1samp(arrays.mean(axis=2), 0, axis=1).pvalue
    assert (naive <= 0.05).mean() > 0.2
    assert (over_seeds <= 0.05).mean() > 0.07, "prompts that methods find differently hard are drawn too"


def test_satterthwaite_would_err_often_where_holm_looks():
    """Mean squares drawn from their exact distributions: 3 seeds, 64 prompts, seed mean square 6 times the residual.

    At 0.0005, near what Holm asks of the clearest of 50, Satterthwaite's degrees of freedom reject over ten times as
    often as they say, because seeds that agree by chance leave him the prompts' degrees of freedom.
    """
    rng, trials, dofs = stream("satterthwaite"), 40_000, np.array([2, 63, 126])
    seed, prompt, rest = (np.array([6.0, 1.0, 1.0]) * rng.chisquare(dofs, (trials, 3)) / dofs).T
    parts = np.array([np.maximum(seed - rest, 0), np.maximum(prompt - rest, 0)])
    variance = parts.sum(axis=0) + rest
    squared = seed**2 / 2 * (parts[0] > 0) + prompt**2 / 63 * (parts[1] > 0)
    squared += rest**2 / 126 * ((parts[0] > 0) == (parts[1] > 0))
    t = np.abs(rng.normal(0, np.sqrt(6.0), trials)) / np.sqrt(variance)
    assert (2 * stats.t.sf(t, variance**2 / squared) <= 0.0005).mean() > 0.005
    assert (2 * stats.t.sf(t, 2) <= 0.0005).mean() <= 0.0005


def test_power_grows_with_the_difference_and_with_seeds():
    shares = [rejected(draw(5, 400, seed=0.3, prompt=0.5, effect=effect), 0.05) for effect in (0.0, 0.3, 0.6, 1.2)]
    assert shares == sorted(shares)
    assert shares[-1] > 0.9
    few, more = (rejected(draw(seeds, 400, seed=0.3, prompt=0.5, effect=0.6), 0.05) for seeds in (3, 8))
    assert more > few + 0.2


# --- where there is no test ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_claim_nothing(seeds):
    found = crossed_test(np.ones((seeds, 5)) + stream("few").normal(0, 1, (seeds, 5)))
    assert (found.p, found.se, found.how, found.n_seeds) == (None, None, NO_INTERVAL, seeds)
    assert found.difference is not None


def test_equal_runs_differ_by_nothing():
    """madpo_unit_weight is DPO bit for bit: its difference is 0 and its p-value 1, not a division by zero."""
    found = crossed_test(np.zeros((3, 4)))
    assert (found.difference, found.t, found.p) == (0, 0, 1)
    assert crossed_test(np.full((3, 7), 0.1)).p is None, "nothing varies, so nothing is known about another training"
    assert seeds_test([0.1, 0.1, 0.1]).p is None


# --- pairing ------------------------------------------------------------------------------------------------------


def frame(seeds, prompts, shift=0.0):
    values = stream("pairing").normal(0, 1, (9, 40))[: len(seeds), : len(prompts)] + shift
    return pd.DataFrame(values, index=seeds, columns=prompts)


def test_matched_by_seed_and_prompt_not_by_place():
    ours, theirs = frame([0, 1, 2], list("abcd"), 2.0), frame([0, 1, 2], list("abcd"))
    ours = ours + stream("more").normal(0, 1, ours.shape)
    found = paired_test(ours, theirs)
    assert paired_test(ours.iloc[::-1, ::-1], theirs) == found
    assert found == crossed_test((ours - theirs).to_numpy())


def test_seeds_that_only_one_has_are_left_out():
    ours, theirs = frame([0, 1, 2, 3, 4], list("abcd"), 1.0), frame([1, 2, 4], list("abcd")) ** 2
    assert paired_test(ours, theirs) == crossed_test((ours.loc[[1, 2, 4]] - theirs).to_numpy())
    assert paired_test(ours, theirs.set_index(pd.Index([7, 8, 9]))) is None


def test_a_prompt_with_a_missing_value_is_left_out_of_every_seed():
    ours, theirs = frame([0, 1, 2], list("abcd"), 1.0), frame([0, 1, 2], list("abcd")) ** 2
    ours.loc[1, "b"] = np.nan
    assert paired_test(ours, theirs) == crossed_test((ours - theirs)[["a", "c", "d"]].to_numpy())


def test_prompts_of_other_seeds_are_not_crossed():
    """Prompts drawn anew for every seed: only chance repeats are shared, and the seeds' means are tested instead."""
    grid = pd.DataFrame(np.nan, index=[0, 1, 2], columns=[f"q{i}" for i in range(28)])
    for seed in grid.index:
        grid.loc[seed, ["q0", *(f"q{i}" for i in range(1 + 9 * seed, 10 + 9 * seed))]] = float(seed)
    assert paired_test(grid, grid + 1) is None


# --- Holm ---------------------------------------------------------------------------------------------------------


def test_holm_by_hand():
    """0.005 x 4 = 0.02; 0.01 x 3 = 0.03; 0.03 x 2 = 0.06; 0.04 x 1 is below the one before and takes its 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_what_was_planned_and_not_tested_counts():
    assert holm([0.01, None, 0.02]) == [pytest.approx(0.03), None, pytest.approx(0.04)]


ps = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(ps, st.randoms(use_true_random=False))
def test_holm_keeps_order_and_is_between_p_and_bonferroni(p, random):
    found = holm(p)
    for one, adjusted in zip(p, found, strict=True):
        assert one <= adjusted <= min(1.0, len(p) * one) or adjusted == pytest.approx(one)
    assert [found[i] for i in np.argsort(p, kind="stable")] == sorted(found)
    order = list(range(len(p)))
    random.shuffle(order)
    assert holm([p[i] for i in order]) == [found[i] for i in order]


@given(ps, st.sampled_from([0.01, 0.05, 0.2]))
def test_holm_rejects_as_his_step_down_says(p, level):
    """Holm 1979: go up through the sorted p-values, stop at the first above level / (m - i)."""
    order, rejected_places = np.argsort(p, kind="stable"), set()
    for rank, place in enumerate(order):
        if (len(p) - rank) * p[place] > level:
            break
        rejected_places.add(int(place))
    assert {i for i, adjusted in enumerate(holm(p)) if adjusted <= level} == rejected_places


def test_what_a_family_asks_of_its_clearest_difference():
    """t tables: t(0.975, 2) = 4.302653; with 50 differences and 3 seeds 5 % becomes 0.1 %: t(0.9995, 2) = 31.599."""
    assert needed_ratio(0.05, 1, 2) == pytest.approx(4.302653, abs=1e-6)
    assert needed_ratio(0.05, 50, 2) == pytest.approx(31.599, abs=1e-3)


@pytest.mark.parametrize("bad", [[[1.0]], [[1.0, np.nan], [1.0, 2.0]], [1.0, 2.0]])
def test_no_number_from_what_is_no_table(bad):
    with pytest.raises(ValueError, match="2 seeds x 2 prompts"):
        crossed_se(np.array(bad))
