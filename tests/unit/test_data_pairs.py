"""Pairs made from candidates and a ground truth: tiers, labels, scores, split."""

import numpy as np
import pytest
from data_builders import review_rows, reviews_corpus, sampled, write_reviews
from marginbench.data.classifier import TextClassifier, true_reward
from marginbench.data.corpora import read_corpus
from marginbench.data.messages import plain_text
from marginbench.data.pairs import pairs_from_candidates
from marginbench.errors import UserError
from marginbench.records import PAIRS, TEXTS, check_table, read_table, write_table
from marginbench.study import Dataset
from scipy.special import expit

ANSWERS = [
    "was superb and moving",
    "was boring and awful",
    "and the plot",
    "was brilliant but clumsy",
    "wonderful film",
]


@pytest.fixture(scope="module")
def ground_truth():
    rows = review_rows(200)
    return TextClassifier.fit([text for text, _ in rows], [label for _, label in rows], seed=0)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    path = write_reviews(tmp_path_factory.mktemp("reviews") / "r.csv", review_rows(700))
    return read_corpus(reviews_corpus(path, prompts=200), 0)[0]


@pytest.fixture(scope="module")
def candidates(texts):
    return sampled(texts, ANSWERS)


def make(texts, candidates, ground_truth, tier="high", noise="bradley_terry", seed=0, holdout=0.25):
    return pairs_from_candidates(
        texts, candidates, ground_truth, Dataset(corpus="c", tier=tier, label_noise=noise), holdout, seed
    )


def test_high_pairs_consecutive_samples(texts, candidates, ground_truth):
    pairs, report = make(texts, candidates, ground_truth)
    check_table(pairs, PAIRS, "pairs")
    by_prompt = {p: group.sort_values("sample")["text"].tolist() for p, group in candidates.groupby("prompt_id")}
    want = {(p, frozenset(t[i : i + 2])) for p, t in by_prompt.items() for i in (0, 2)}
    assert {(row.prompt_id, frozenset((row.chosen, row.rejected))) for row in pairs.itertuples()} == want
    assert report["pairs"] == 400
    assert report["sources"] == {"sample_vs_sample": 400}


def test_scores_are_the_ground_truth_of_prompt_and_answer(texts, candidates, ground_truth):
    for tier in ("high", "low"):
        pairs, _ = make(texts, candidates, ground_truth, tier)
        for side in ("chosen", "rejected"):
            whole = [plain_text(p) + a for p, a in zip(pairs["prompt"], pairs[side], strict=True)]
            assert pairs[f"score_{side}"].to_numpy() == pytest.approx(true_reward(ground_truth, whole))


def test_low_sets_the_better_sample_against_as_many_words_of_the_review(texts, candidates, ground_truth):
    pairs, report = make(texts, candidates, ground_truth, "low")
    prompts = texts.set_index("text_id")
    sample_texts = candidates.groupby("prompt_id")["text"].agg(list).to_dict()
    assert report["sources"] == {"sample_vs_review": 400}
    for row in pairs.itertuples():
        sides = {row.chosen, row.rejected}
        (sample,) = sides & set(sample_texts[row.prompt_id])
        (review,) = sides - {sample}
        assert prompts.at[row.prompt_id, "completion"].startswith(review)
        assert len(review.split()) == len(sample.split())
        start = sample_texts[row.prompt_id].index(sample) // 2 * 2
        rivals = sample_texts[row.prompt_id][start : start + 2]
        scores = true_reward(ground_truth, [plain_text(row.prompt) + text for text in rivals])
        assert rivals[int(np.argmax(scores))] == sample
        assert (row.chosen_ended if row.chosen == review else row.rejected_ended) is False


def test_medium_is_half_of_each_by_prompt(texts, candidates, ground_truth):
    pairs, _ = make(texts, candidates, ground_truth, "medium")
    high, low = (make(texts, candidates, ground_truth, tier)[0] for tier in ("high", "low"))
    sources = pairs.groupby("prompt_id")["source"].agg(set)
    assert all(len(source) == 1 for source in sources)
    assert sorted(map(min, sources)).count("sample_vs_review") == 100
    assert set(pairs["pair_id"]) <= set(high["pair_id"]) | set(low["pair_id"])


def test_noise_free_labels_follow_the_score(texts, candidates, ground_truth):
    pairs, report = make(texts, candidates, ground_truth, noise="none")
    assert (pairs["score_chosen"] > pairs["score_rejected"]).all()
    assert report["label_agreement"] == 1.0


def test_noisy_labels_agree_as_often_as_bradley_terry_says(texts, candidates, ground_truth):
    """Over 8 seeds: the number of agreeing labels lies within 4 standard deviations of its expectation."""
    agreeing, want, variance = 0, 0.0, 0.0
    for seed in range(8):
        pairs, report = make(texts, candidates, ground_truth, seed=seed)
        gap = np.abs(pairs["score_chosen"] - pairs["score_rejected"]).to_numpy()
        agreeing += round(report["label_agreement"] * len(pairs))
        want += expit(gap).sum()
        variance += (expit(gap) * expit(-gap)).sum()
    assert abs(agreeing - want) < 4 * np.sqrt(variance)
    assert agreeing < 0.97 * 8 * 400  # there is noise at all


def test_labels_depend_on_the_pair_not_on_the_order_of_anything(texts, candidates, ground_truth):
    once, _ = make(texts, candidates, ground_truth)
    shuffled = candidates.sample(frac=1, random_state=0)
    again, _ = make(texts.sample(frac=1, random_state=1), shuffled, ground_truth)
    assert once.equals(again)
    swapped = candidates.assign(sample=candidates["sample"] ^ 1)
    assert set(make(texts, swapped, ground_truth)[0]["pair_id"]) == set(once["pair_id"])
    fewer = texts[~texts["text_id"].isin(once["prompt_id"].iloc[:2])]
    part, _ = make(fewer, candidates[candidates["prompt_id"].isin(fewer["text_id"])], ground_truth)
    assert set(part["pair_id"]) < set(once["pair_id"])
    assert set(make(texts, candidates, ground_truth, seed=1)[0]["pair_id"]) != set(once["pair_id"])


def test_the_holdout_is_by_prompt_and_of_the_asked_size(texts, candidates, ground_truth):
    pairs, report = make(texts, candidates, ground_truth, holdout=0.1)
    assert pairs.groupby("prompt_id")["split"].nunique().max() == 1
    assert report["splits"] == {"holdout": 40, "train": 360}


def test_an_answer_has_ended_when_generation_stopped(texts, candidates, ground_truth):
    pairs, _ = make(texts, candidates, ground_truth)
    ended = dict(
        zip(
            zip(candidates["prompt_id"], candidates["text"], strict=True),
            candidates["finish_reason"] == "stop",
            strict=True,
        )
    )
    for row in pairs.itertuples():
        assert row.chosen_ended == ended[row.prompt_id, row.chosen]
        assert row.rejected_ended == ended[row.prompt_id, row.rejected]


def test_empty_identical_and_repeated_answers_are_dropped_and_counted(texts, ground_truth):
    four = texts[texts["role"] == "prompt"].head(4)
    candidates = sampled(four, ANSWERS)

    def put(i, *answers):
        candidates.loc[candidates["prompt_id"] == four["text_id"].iloc[i], "text"] = list(answers)

    put(0, " a", " a", " wonderful", " awful")
    put(1, " ", " b", " wonderful", " awful")
    put(2, " wonderful", " awful", " awful", " wonderful")
    put(3, " zzz", " yyy", " wonderful", " awful")
    pairs, report = make(four, candidates, ground_truth, noise="none")
    want = {"unpaired_samples": 0, "empty_answer": 1, "identical_answers": 1, "duplicate_pair": 1, "tie": 1}
    assert report["dropped"] == want
    assert len(pairs) == 4


def test_an_odd_sample_is_left_single_and_counted(texts, ground_truth):
    pairs, report = make(texts, sampled(texts, ANSWERS, samples=3), ground_truth)
    assert len(pairs) == 200
    assert report["dropped"]["unpaired_samples"] == 200


def test_texts_that_went_through_a_file_give_the_same_pairs(texts, candidates, ground_truth, tmp_path):
    write_table(texts, tmp_path / "texts.parquet", TEXTS)
    read = read_table(tmp_path / "texts.parquet", TEXTS)
    for tier in ("high", "low"):
        assert make(read, candidates, ground_truth, tier)[0].equals(make(texts, candidates, ground_truth, tier)[0])


def test_mistakes_are_refused_in_one_line(texts, candidates, ground_truth):
    cases = [
        (texts, candidates, {"tier": None}, "`tier` must be set"),
        (texts, candidates, {"noise": None}, "`label_noise` must be set"),
        (texts, candidates[candidates["sample"] == 0], {}, "has 1 samples, a pair needs 2"),
        (texts, candidates.iloc[4:], {}, "has 0 samples"),
        (texts, candidates.assign(prompt_id="nobody"), {}, "prompt_id nobody is no prompt"),
        (texts.assign(label=1), candidates, {"tier": "low"}, "200 of 200 are not"),
        (texts, candidates.assign(text=" "), {}, "no pair could be made"),
    ]
    for some_texts, some_candidates, options, words in cases:
        with pytest.raises(UserError, match=words) as caught:
            make(some_texts, some_candidates, ground_truth, **options)
        assert "\n" not in str(caught.value)


def test_all_pairs_of_a_prompts_samples_may_meet(texts, candidates, ground_truth):
    dataset = Dataset(corpus="c", tier="high", label_noise="bradley_terry", pairing="all")
    pairs, report = pairs_from_candidates(texts, candidates, ground_truth, dataset, 0.25, 0)
    by_prompt = candidates.groupby("prompt_id")["text"].apply(list)
    met = {(row.prompt_id, frozenset((row.chosen, row.rejected))) for row in pairs.itertuples()}
    wanted = {
        (prompt, frozenset((one, other)))
        for prompt, answers in by_prompt.items()
        for i, one in enumerate(answers)
        for other in answers[i + 1 :]
        if one != other
    }
    assert met == wanted
    assert report["dropped"]["unpaired_samples"] == 0
