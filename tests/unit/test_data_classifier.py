"""The sentiment classifier: learns, is saved without pickle, comes back bit for bit."""

import zipfile

import numpy as np
import pytest
from data_builders import review_rows, reviews_corpus, write_reviews
from marginbench.data.classifier import TextClassifier, fit_halves, true_reward
from marginbench.errors import UserError

ROWS = review_rows(200)
TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]


@pytest.fixture(scope="module")
def classifier():
    return TextClassifier.fit(TEXTS, LABELS, seed=0)


def test_the_same_texts_give_the_same_weights(classifier):
    assert TextClassifier.fit(TEXTS, LABELS, seed=0).weights_hash == classifier.weights_hash
    assert TextClassifier.fit(TEXTS[:-10], LABELS[:-10], seed=0).weights_hash != classifier.weights_hash


def test_saved_and_loaded_it_scores_bit_for_bit_alike(classifier, tmp_path):
    classifier.save(tmp_path / "c.npz")
    loaded = TextClassifier.load(tmp_path / "c.npz")
    unseen = ["a wonderful ending", "boring and clumsy script", "", "words nobody knows", "Ünïcode 日本語"]
    assert np.array_equal(loaded.logit(TEXTS + unseen), classifier.logit(TEXTS + unseen))
    assert loaded.weights_hash == classifier.weights_hash
    classifier.save(tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()


def test_the_file_holds_no_pickled_object(classifier, tmp_path):
    classifier.save(tmp_path / "c.npz")
    with zipfile.ZipFile(tmp_path / "c.npz") as archive:
        for name in archive.namelist():
            assert b"'|O'" not in archive.read(name)[:128]


def test_scores_agree_with_the_formula_of_tf_idf(classifier):
    """sublinear tf, idf, l2 norm, then a dot product: by hand for a text of three known terms."""
    index = {term: i for i, term in enumerate(classifier.vocabulary)}
    counts = {"boring": 2, "boring boring": 1}
    counts = {term: n for term, n in counts.items() if term in index}
    assert "boring" in counts
    weights = np.array([(1 + np.log(n)) * classifier.idf[index[term]] for term, n in counts.items()])
    weights /= np.linalg.norm(weights)
    want = weights @ np.array([classifier.coef[index[term]] for term in counts]) + classifier.intercept
    assert classifier.logit(["boring boring"])[0] == pytest.approx(want, rel=1e-12)


def test_a_score_does_not_depend_on_the_other_texts(classifier):
    alone = [classifier.logit([text])[0] for text in TEXTS[:20]]
    assert alone == classifier.logit(TEXTS[:20]).tolist()
    assert classifier.logit([]).shape == (0,)


def test_the_true_reward_is_the_probability_on_a_scale_of_three(classifier):
    texts = ["wonderful superb brilliant film", "dreadful awful boring film", ""]
    reward = true_reward(classifier, texts)
    assert reward == pytest.approx(6 * (1 / (1 + np.exp(-classifier.logit(texts))) - 0.5))
    assert 0 < reward[0] <= 3
    assert -3 <= reward[1] < 0


def test_two_halves_are_fitted_on_different_reviews_and_measured_on_others(tmp_path):
    corpus = reviews_corpus(write_reviews(tmp_path / "r.csv", review_rows(300)))
    calls = []
    ground_truth, judge, report = fit_halves(corpus, 0, lambda *call: calls.append(call))
    assert ground_truth.weights_hash != judge.weights_hash
    assert report["held_out"] == 300 - 2 * 60
    assert report["trained_on"] == {"ground_truth": 60, "judge": 60}
    for part in ("full_review", "snippet_48_words"):
        assert set(report[part]) == {"ground_truth_accuracy", "judge_accuracy", "agreement", "logit_correlation"}
        assert all(type(value) is float for value in report[part].values())
        assert report[part]["ground_truth_accuracy"] > 0.95  # the made-up reviews give their label away
    assert calls[-1][:2] == (4, 4)


def test_one_label_is_not_enough():
    with pytest.raises(UserError, match="both labels"):
        TextClassifier.fit(TEXTS[::2], LABELS[::2], seed=0)


def test_texts_without_a_common_word_are_refused():
    with pytest.raises(UserError, match="no word that occurs in two"):
        TextClassifier.fit(["alpha", "beta"], [0, 1], seed=0)


@pytest.mark.parametrize("content", [b"", b"not a zip file", b"PK\x03\x04broken"])
def test_another_file_is_no_classifier(tmp_path, content):
    (tmp_path / "c.npz").write_bytes(content)
    with pytest.raises(UserError, match="not a saved classifier"):
        TextClassifier.load(tmp_path / "c.npz")


def test_a_file_with_other_arrays_or_pickles_is_no_classifier(tmp_path):
    np.savez(tmp_path / "other.npz", idf=np.zeros(3))
    np.savez(tmp_path / "pickled.npz", terms=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name in ("other.npz", "pickled.npz"):
        with pytest.raises(UserError, match="not a saved classifier"):
            TextClassifier.load(tmp_path / name)


@pytest.mark.slow
def test_on_the_real_reviews_both_classifiers_are_good_and_agree():
    _, _, report = fit_halves(reviews_corpus(None, classifier_texts=3000), 0)
    assert report["held_out"] == 2000
    assert report["full_review"]["ground_truth_accuracy"] > 0.83
    assert report["full_review"]["judge_accuracy"] > 0.83
    assert report["snippet_48_words"]["ground_truth_accuracy"] > 0.68
    assert report["snippet_48_words"]["agreement"] > 0.75
