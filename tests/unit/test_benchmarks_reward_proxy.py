"""Reward-model proxy: win rates by hand, and against AlpacaEval's own functions on the annotations that we write."""

import json
import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marginbench.benchmarks.alpaca_eval import score as alpaca_score
from marginbench.benchmarks.reward_proxy import annotations, score, win_rate
from marginbench.errors import UserError
from marginbench.identity import stream

SCORES = st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=20)


def test_win_rate_by_hand():
    result = win_rate([2.0, 0.5, -1.0, 3.0], [1.0, 0.5, 4.0, 2.9])
    assert result == {
        "win_rate": 62.5,
        "standard_error": pytest.approx(100 * statistics.stdev([1, 0.5, 0, 1]) / 2),
        "n_wins": 2,
        "n_wins_base": 1,
        "n_draws": 1,
        "n_total": 4,
    }


def test_samples_of_one_prompt_are_one_unit():
    once = win_rate([1, 0, 0, 1], [0, 1, 1, 0])
    twice = win_rate([1, 0, 0, 1] * 2, [0, 1, 1, 0] * 2, prompts=["a", "b", "c", "d"] * 2)
    assert twice["standard_error"] == pytest.approx(once["standard_error"])
    assert win_rate([1, 0], [0, 1], prompts=["a", "a"])["standard_error"] is None


@settings(deadline=None)
@given(pairs=SCORES, scale=st.floats(0.1, 10), shift=st.integers(-5, 5))
def test_only_the_order_of_scores_counts_and_sides_mirror(pairs, scale, shift):
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    plain = win_rate(ours, theirs)
    assert win_rate([scale * a + shift for a in ours], [scale * b + shift for b in theirs]) == plain
    mirrored = win_rate(theirs, ours)
    assert mirrored["win_rate"] == pytest.approx(100 - plain["win_rate"])
    assert mirrored["standard_error"] == pytest.approx(plain["standard_error"])
    assert (mirrored["n_wins"], mirrored["n_draws"]) == (plain["n_wins_base"], plain["n_draws"])


def test_alpaca_eval_reads_our_annotations_and_prints_our_numbers():
    rng = stream("test_reward_proxy")
    ours, theirs = (rng.integers(0, 6, 60).astype(float).tolist() for _ in range(2))
    pairs = [{"question": f"q{i}", "baseline": f"b{i}", "answer": f"a{i}"} for i in range(60)]
    rows = annotations(pairs, ours, theirs, reward_model="rm", method_name="dpo", baseline_name="sft_start")
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0]["output_1"] == "b0"
    assert (rows[0]["score_1"], rows[0]["score_2"]) == (theirs[0], ours[0])
    mine, official = score(rows), alpaca_score(rows)
    assert mine["n_draws"] > 0
    for name, value in mine.items():
        assert value == pytest.approx(official[name], abs=1e-9), name


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="not paired"):
        win_rate([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="one prompt for each pair"):
        win_rate([1.0], [1.0], prompts=["a", "b"])
    with pytest.raises(UserError, match="there are no pairs"):
        win_rate([], [])
    for broken in (math.nan, math.inf):
        with pytest.raises(UserError, match="pair 1 has a score that is not finite"):
            win_rate([1.0, broken], [0.0, broken])
    pair = {"question": "q", "baseline": "b", "answer": "a"}
    with pytest.raises(UserError, match="pair 0 has a score that is not finite"):
        annotations([pair], [math.nan], [1.0], reward_model="rm", method_name="dpo", baseline_name="sft")
    with pytest.raises(UserError, match="`score_1` is missing"):
        score([{"instruction": "q", "score_2": 1.0}])
