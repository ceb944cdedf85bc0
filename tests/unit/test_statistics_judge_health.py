"""Judge health: every column by hand on a few judgments, and judges whose faults are known."""

import pandas as pd
import pytest
from marginbench.identity import stream
from marginbench.statistics.judge_health import COLUMNS, judge_health


def row(question, preference=None, switched=False, **changes):
    base = {
        "question_id": question,
        "turn": 1,
        "answer_ids": [f"b{question}", f"m{question}"],
        "order": "method_first" if switched else "baseline_first",
        "switched": switched,
        "preference": preference,
        "reason": None if preference is not None else "neither m nor M",
    }
    return {**base, **changes}


def rating(question, value, turn=1):
    base = {"question_id": question, "turn": turn, "answer_ids": ["m"], "order": "single"}
    return {**base, "switched": False, "rating": value}


def one(rows, **more):
    return judge_health({"j": rows}, **more).iloc[0]


def test_columns_and_types():
    table = judge_health({"j": [row("a", 1.2)], "k": [row("a", 1.7, True)]})
    assert list(table.columns) == list(COLUMNS)
    assert {str(kind) for kind in table.dtypes} == {"string", "Int64", "Float64"}
    assert all(meaning.endswith(".") for meaning in COLUMNS.values())
    assert list(table["second_judge"]) == ["k", "j"]
    assert judge_health({}).empty


def test_position_by_hand():
    rows = [
        row("a", 1.8), row("a", 1.6, True),  # the method both times
        row("b", 1.9), row("b", 1.1, True),  # whoever is shown second
        row("c", 1.5), row("c", 1.5, True),  # a tie both times
        row("d", 1.5), row("d", 1.7, True),  # a tie, then the method
        row("e", 1.3), row("e", None, True),
        row("f", 1.5, reason="identical"),
    ]  # fmt: skip
    table = one(rows)
    assert (table["n"], table["n_swapped"]) == (10, 4)
    assert table["null_rate"] == pytest.approx(0.1)
    assert table["tie_rate"] == pytest.approx(3 / 9)
    assert table["swap_consistency"] == pytest.approx(2 / 4)
    shown_second, shown_first = (0.8 + 0.9 + 0.5 + 0.5 + 0.3) / 5, (0.6 + 0.1 + 0.5 + 0.7) / 4
    assert table["position_gap"] == pytest.approx(100 * (shown_second - shown_first))
    assert table["p_first"] == pytest.approx((5 * (1 - shown_second) + 4 * shown_first) / 9)


def test_labels_are_read_as_the_judge_said_them():
    """A is the answer shown first, so the same label means another winner when the answers are switched."""
    always_first = [
        row(q, label=label, switched=s) for q, label in (("a", "A>>B"), ("b", "A>B")) for s in (False, True)
    ]
    assert one(always_first)["p_first"] == 1.0
    assert one(always_first)["swap_consistency"] == 0.0
    assert one(always_first)["position_gap"] == -100.0
    method = [row("a", label="B>>A"), row("a", label="A>B", switched=True), row("b", label="A=B")]
    table = one(method)
    assert (table["swap_consistency"], table["tie_rate"], table["null_rate"]) == (1.0, pytest.approx(1 / 3), 0.0)


def test_an_old_zero_is_a_draw():
    assert one([row("a", 0), row("b", 2.0)])["tie_rate"] == 0.5


def test_second_judge_by_hand():
    """The textbook example of kappa: 20 both yes, 15 both no, 5 and 10 apart; 0.70 against 0.50 by chance."""
    cells = [(2.0, 2.0)] * 20 + [(2.0, 1.0)] * 5 + [(1.0, 2.0)] * 10 + [(1.0, 1.0)] * 15
    rows = {judge: [row(str(i), cell[side]) for i, cell in enumerate(cells)] for side, judge in enumerate("jk")}
    rows["k"] += [row("unseen", 2.0)]
    rows["j"] += [row("null", None)]
    rows["k"] += [row("null", 1.0)]
    table = judge_health(rows)
    assert list(table["n_common"]) == [50, 50]
    assert list(table["agreement"]) == pytest.approx([0.7, 0.7])
    assert list(table["kappa"]) == pytest.approx([0.4, 0.4])


def test_a_pair_judged_both_ways_has_one_verdict():
    """k saw one order only; j's mean of 2 and 1 is a tie, and j's half-read pair has no verdict."""
    j = [row("a", 2.0), row("a", 1.0, True), row("b", 1.9), row("b", 1.7, True), row("c", 2.0), row("c", None, True)]
    k = [row("a", 1.5), row("b", 1.1, True), row("c", 2.0)]
    table = judge_health({"j": j, "k": k}).iloc[0]
    assert (table["n_common"], table["agreement"]) == (2, 0.5)


def test_judges_that_never_vary_agree_without_a_kappa():
    table = judge_health({"j": [row("a", 2.0), row("b", 2.0)], "k": [row("a", 1.8), row("b", 1.9)]}).iloc[0]
    assert table["agreement"] == 1.0
    assert pd.isna(table["kappa"])


def test_ratings_agree_by_their_distance():
    grades = [2, 3.5, 4, 6, 8, 10]
    same = {"j": [rating(str(i), g) for i, g in enumerate(grades)]}
    near = {"k": [rating(str(i), g - 0.5) for i, g in enumerate(grades)]}
    far = {"k": [rating(str(i), g) for i, g in enumerate(reversed(grades))]}
    close, apart = judge_health(same | near).iloc[0], judge_health(same | far).iloc[0]
    assert close["agreement"] == 0.0
    # Quadratic weights: 1 - sum (a - b)^2 / (mean over all cross pairs of (a - b)^2).
    shifted = [g - 0.5 for g in grades]
    chance = sum((a - b) ** 2 for a in grades for b in shifted) / 36
    assert close["kappa"] == pytest.approx(1 - 0.25 / chance)
    assert apart["kappa"] < 0 < close["kappa"]
    assert pd.isna(close["p_first"])
    assert pd.isna(close["swap_consistency"])
    assert judge_health(same | {"k": [row("0", 2.0)]}).iloc[0]["n_common"] == 0


def test_noise_of_judging_again_by_hand():
    rows = [row("a", 1.9), row("b", 1.6), row("c", 1.2), row("d", None), row("e", 1.5)]
    again = [row("a", 1.7), row("b", 1.4), row("b", 1.8), row("c", None), row("d", 1.5)]
    table = one(rows, again={"j": again})
    assert table["n_again"] == 3
    assert table["changed"] == pytest.approx(1 / 3)
    # a: two values 0.2 apart; b: 0.6, 0.4, 0.8 about their mean 0.6. Three degrees of freedom.
    assert table["noise_sd"] == pytest.approx(((0.02 + 0.08) / 3) ** 0.5)
    graded = one([rating("a", 7), rating("a", 3, turn=2)], again={"j": [rating("a", 9), rating("a", 3, turn=2)]})
    assert (graded["n_again"], graded["changed"], graded["noise_sd"]) == (2, 0.5, pytest.approx(1.0))
    assert one(rows, again={"j": [row("d", 1.5)]})["n_again"] == 0


def test_longer_answers_win_with_a_judge_that_counts_characters():
    rng = stream("test_judge_health")
    extra = rng.integers(-400, 400, 300)
    lengths = {f"b{i}": 1000 for i in range(300)} | {f"m{i}": 1000 + int(d) for i, d in enumerate(extra)}
    wins = rng.random(300) < 1 / (1 + 2.718281828 ** (-extra / 150))
    fond = one([row(str(i), 1.0 + float(w)) for i, w in enumerate(wins)], lengths=lengths)
    fair = one([row(str(i), 1.0 + float(w)) for i, w in enumerate(rng.random(300) < 0.6)], lengths=lengths)
    assert fond["length_coefficient"] > 5 * fond["length_se"]
    assert abs(fair["length_coefficient"]) < 3 * fair["length_se"]
    assert pd.isna(one([row("1", 2.0)])["length_coefficient"])


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="is judged twice"):
        one([row("a", 1.5), row("a", 1.6)])
    with pytest.raises(ValueError, match="both grades answers and compares pairs"):
        one([row("a", 1.5), rating("a", 5)])
    with pytest.raises(ValueError, match="the length of answer ma is not known"):
        one([row("a", 1.5)], lengths={"ba": 3})
    with pytest.raises(ValueError, match="judged again but was not judged before"):
        one([row("a", 1.5)], again={"j": [row("a", 1.5, True)]})
    with pytest.raises(ValueError, match="judged again by k, of whom"):
        one([row("a", 1.5)], again={"k": []})
