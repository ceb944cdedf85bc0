"""Scores that strategies rank by, and the guards of online DPO, each shown to fail on its defect."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marginbench.selection.scores import (
    entropy_per_token,
    implicit_reward,
    margin_by_prompt,
    mean_by_prompt,
    predictive_entropy,
    preference_probability,
    sequence_logp,
    uncertainty,
)

Entropy = Callable[[list[str], np.ndarray, np.ndarray, int], pd.Series]
Margin = Callable[[list[str], list[int], np.ndarray], pd.Series]


def _answers(seed: int, prompts: int, samples: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Prompt ids, token log-probabilities and mask of padded answers of different lengths, a prompt's together."""
    draw = np.random.default_rng(seed)
    rows, width = prompts * samples, 7
    mask = np.arange(width) < draw.integers(1, width + 1, rows)[:, None]
    return [f"p{i // samples}" for i in range(rows)], -draw.uniform(0.1, 5, (rows, width)), mask.astype(int)


# Guard: padding never enters entropy (specification D4, vector V1).


def padding_does_not_enter(entropy: Entropy) -> None:
    """What stands on padding, and how much padding there is, changes nothing."""
    ids, logp, mask = _answers(0, prompts=5, samples=3)
    plain = entropy(ids, np.where(mask, logp, 0.0), mask, 3)
    for filler in (-9.0, -1e9, np.nan, -np.inf):
        np.testing.assert_array_equal(entropy(ids, np.where(mask, logp, filler), mask, 3), plain)
    wider = np.pad(logp, ((0, 0), (0, 4)), constant_values=-9.0), np.pad(mask, ((0, 0), (0, 4)))
    np.testing.assert_allclose(entropy(ids, *wider, 3), plain, rtol=1e-12)


def _unmasked(ids: list[str], logp: np.ndarray, mask: np.ndarray, samples: int) -> pd.Series:
    return -mean_by_prompt(ids, logp.sum(axis=1), samples)


def _weighted(ids: list[str], logp: np.ndarray, mask: np.ndarray, samples: int) -> pd.Series:
    return -mean_by_prompt(ids, (logp * mask).sum(axis=1), samples)


def test_padding_never_enters_entropy() -> None:
    padding_does_not_enter(predictive_entropy)
    padding_does_not_enter(entropy_per_token)


@pytest.mark.parametrize("defect", [_unmasked, _weighted], ids=["padding is summed", "NaN times 0"])
def test_padding_that_enters_is_found_out(defect: Entropy) -> None:
    with pytest.raises(AssertionError):
        padding_does_not_enter(defect)


def test_the_end_token_enters() -> None:
    logp = np.array([[-1.0, -2.0, -0.5]])
    with_end = predictive_entropy(["a"], logp, np.array([[1, 1, 1]]), 1)
    assert with_end["a"] == 3.5
    assert predictive_entropy(["a"], logp, np.array([[1, 1, 0]]), 1)["a"] == 3.0


# Guard: samples of different prompts are never averaged (D1, V7).


def averages_stay_with_their_prompt(entropy: Entropy) -> None:
    """Every prompt gets what it gets alone, in whichever order its answers and those of others come."""
    ids, logp, mask = _answers(1, prompts=6, samples=2)
    alone = {
        prompt: entropy([prompt] * 2, logp[2 * i : 2 * i + 2], mask[2 * i : 2 * i + 2], 2)[prompt]
        for i, prompt in enumerate(dict.fromkeys(ids))
    }
    for order in (np.arange(12), np.arange(12).reshape(6, 2).T.ravel(), np.random.default_rng(2).permutation(12)):
        found = entropy([ids[i] for i in order], logp[order], mask[order], 2)
        assert found.to_dict() == pytest.approx(alone, rel=1e-12)


def _reshaped(ids: list[str], logp: np.ndarray, mask: np.ndarray, samples: int) -> pd.Series:
    """The released code: rows stand prompt by prompt and are reshaped as if they stood sample by sample."""
    return pd.Series(-sequence_logp(logp, mask).reshape(samples, -1).mean(axis=0), index=list(dict.fromkeys(ids)))


def _by_place(ids: list[str], logp: np.ndarray, mask: np.ndarray, samples: int) -> pd.Series:
    """Right only while a prompt's answers stand together."""
    return pd.Series(-sequence_logp(logp, mask).reshape(-1, samples).mean(axis=1), index=list(dict.fromkeys(ids)))


def test_samples_of_different_prompts_are_never_averaged() -> None:
    averages_stay_with_their_prompt(predictive_entropy)
    averages_stay_with_their_prompt(entropy_per_token)


@pytest.mark.parametrize("defect", [_reshaped, _by_place])
def test_averages_over_prompts_are_found_out(defect: Entropy) -> None:
    with pytest.raises((AssertionError, ValueError)):
        averages_stay_with_their_prompt(defect)


def test_the_released_reshape_gives_what_the_specification_says() -> None:
    """V7: right means 1.5, 3.5, 55, 7.5; as reshaped 25.5, 31, 5, 6."""
    ids, values = [f"p{i // 2}" for i in range(8)], np.array([1.0, 2, 3, 4, 50, 60, 7, 8])
    assert mean_by_prompt(ids, values, 2).tolist() == [1.5, 3.5, 55.0, 7.5]
    assert _reshaped(ids, -values[:, None], np.ones((8, 1)), 2).tolist() == [25.5, 31.0, 5.0, 6.0]


# Guard: a completion belongs to its prompt (D2, V7).


def pairs_stay_with_their_prompt(margin: Margin) -> None:
    """Every prompt's margin is that of its own two answers, in whichever order the answers come."""
    ids, samples = [f"p{i}" for i in range(4) for _ in range(2)], [0, 1] * 4
    rewards = np.array([1.0, 2.0, 10.0, 30.0, 100.0, 400.0, 1000.0, 5000.0])
    right = {"p0": -1.0, "p1": -20.0, "p2": -300.0, "p3": -4000.0}
    batches = np.array([0, 2, 1, 3, 4, 6, 5, 7])  # two batches of two prompts, each as first answers, second answers
    for order in (np.arange(8), batches, np.random.default_rng(0).permutation(8)):
        found = margin([ids[i] for i in order], [samples[i] for i in order], rewards[order])
        assert found.to_dict() == right


def _cut_once(ids: list[str], samples: list[int], rewards: np.ndarray) -> pd.Series:
    """The released code: the batches as one block, cut once in the middle."""
    half = len(ids) // 2
    return pd.Series(rewards[:half] - rewards[half:], index=list(dict.fromkeys(ids)))


def test_a_pair_is_two_answers_to_one_prompt() -> None:
    pairs_stay_with_their_prompt(margin_by_prompt)


def test_pairs_across_prompts_are_found_out() -> None:
    with pytest.raises(AssertionError):
        pairs_stay_with_their_prompt(_cut_once)


# What is refused.


def test_too_few_or_too_many_answers_are_refused() -> None:
    with pytest.raises(ValueError, match="prompt 'b' has 1 answers, not 2"):
        mean_by_prompt(["a", "a", "b"], np.zeros(3), 2)
    with pytest.raises(ValueError, match="prompt 'a' has 3 answers, not 2"):
        mean_by_prompt(["a", "a", "a", "b", "b"], np.zeros(5), 2)


@pytest.mark.parametrize("samples", [[0, 0], [0], [1, 2], [0, 1, 1]])
def test_a_margin_needs_the_answers_0_and_1(samples: list[int]) -> None:
    with pytest.raises(ValueError, match="prompt 'a' has the answers"):
        margin_by_prompt(["a"] * len(samples), samples, np.zeros(len(samples)))


@pytest.mark.parametrize(
    ("logp", "mask", "message"),
    [
        ([[-1.0, -1.0]], [[1]], "must be"),
        ([[-1.0]], [[0.5]], "0 and 1"),
        ([[-1.0], [-1.0]], [[1], [0]], "answer 1 has no token"),
        ([[float("nan")]], [[1]], "not finite"),
        ([[0.1]], [[1]], "above 0"),
    ],
)
def test_bad_log_probabilities_are_refused(logp: list, mask: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequence_logp(np.array(logp), np.array(mask))


@given(st.lists(st.floats(-700, 700), min_size=1, max_size=9))
@settings(max_examples=50, deadline=None)
def test_certainty_and_uncertainty_are_one_order(margins: list[float]) -> None:
    found, p = uncertainty(np.array(margins)), preference_probability(np.array(margins))
    np.testing.assert_allclose(found, 1 - 2 * np.abs(p - 0.5), rtol=1e-9, atol=1e-15)
    assert ((found >= 0) & (found <= 1)).all()
    order = np.argsort(-np.abs(margins), kind="stable")
    assert (np.diff(found[order]) >= 0).all()


def test_beta_scales_margins_and_leaves_their_order() -> None:
    logp, reference = np.random.default_rng(0).normal(-30, 9, (2, 20))
    ids, samples = [f"p{i // 2}" for i in range(20)], [0, 1] * 10
    one, two = (margin_by_prompt(ids, samples, implicit_reward(logp, reference, beta)) for beta in (0.1, 0.2))
    np.testing.assert_allclose(two, 2 * one)
    assert list(one.abs().sort_values().index) == list(two.abs().sort_values().index)


def test_prompts_come_in_the_order_of_their_first_answer() -> None:
    ids = ["b", "c", "b", "a", "c", "a"]
    assert list(mean_by_prompt(ids, np.zeros(6), 2).index) == ["b", "c", "a"]
    assert list(margin_by_prompt(ids, [0, 0, 1, 0, 1, 1], np.zeros(6)).index) == ["b", "c", "a"]
