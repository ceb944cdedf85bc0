"""Reviews: cleaning, and a disjoint, deterministic split into roles."""

import random

import pytest
from data_builders import review_rows, reviews_corpus, write_reviews
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marginbench.data.messages import plain_text
from marginbench.data.reviews import INSTALL, load_reviews, load_with_report, split_reviews
from marginbench.errors import UserError
from marginbench.records import TEXTS, check_table


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    path = write_reviews(tmp_path_factory.mktemp("reviews") / "reviews.csv", review_rows(400))
    return load_reviews(reviews_corpus(path))


def parts_of(split, reviews):
    """source_row of every part of a split."""
    rows = {role: set(group["source_row"]) for role, group in split.texts.groupby("role")}
    return rows | {"a": set(split.classifier_a["source_row"]), "b": set(split.classifier_b["source_row"])}


def test_cleaning_counts_what_it_drops(tmp_path):
    rows = [
        ("Good<br /><br />film,  really", 1), ("Bad film", 0), ("Bad<br />film", 0), ("Mixed", 1), ("Mixed ", 0),
    ]  # fmt: skip
    frame, report = load_with_report(reviews_corpus(write_reviews(tmp_path / "r.csv", rows)))
    assert frame["text"].tolist() == ["Good film, really", "Bad film"]
    assert frame["source_row"].tolist() == [0, 1]
    assert (report["duplicates_dropped"], report["contradictory_dropped"], report["usable"]) == (1, 2, 2)


@given(
    seed=st.integers(0, 2**20),
    classifier_texts=st.integers(1, 120),
    prompts=st.integers(1, 40),
    eval_prompts=st.integers(1, 40),
    sft_texts=st.integers(1, 40),
    perplexity_texts=st.integers(1, 40),
    prompt_words=st.integers(2, 9),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_split_is_disjoint_complete_and_of_the_asked_size(reviews, seed, **numbers):
    corpus = reviews_corpus(None, **numbers)
    split = split_reviews(reviews, corpus, seed)
    parts = parts_of(split, reviews)
    sizes = {
        "a": corpus.classifier_texts, "b": corpus.classifier_texts, "prompt": corpus.prompts,
        "eval": corpus.eval_prompts, "sft": corpus.sft_texts, "perplexity": corpus.perplexity_texts,
    }  # fmt: skip
    assert {name: len(rows) for name, rows in parts.items()} == sizes
    assert len(set().union(*parts.values())) == sum(sizes.values())
    held_out = set(split.held_out["source_row"])
    assert held_out == set(range(400)) - parts["a"] - parts["b"]
    check_table(split.texts, TEXTS, "texts")


def test_the_split_depends_on_contents_and_seed_only(reviews):
    corpus = reviews_corpus(None)
    once = split_reviews(reviews, corpus, 3)
    shuffled = reviews.sample(frac=1, random_state=1).reset_index(drop=True)
    again = split_reviews(shuffled, corpus, 3)
    assert once.texts.equals(again.texts)
    assert once.classifier_a.equals(again.classifier_a)
    assert not split_reviews(reviews, corpus, 4).texts.equals(once.texts)


def test_more_prompts_leave_the_classifiers_as_they_are(reviews):
    few, many = (split_reviews(reviews, reviews_corpus(None, prompts=n), 0) for n in (10, 20))
    assert few.classifier_a.equals(many.classifier_a)
    assert few.classifier_b.equals(many.classifier_b)
    assert set(few.texts.query("role == 'prompt'")["text_id"]) < set(many.texts.query("role == 'prompt'")["text_id"])


def test_prompts_are_negative_and_the_other_roles_balanced(reviews):
    texts = split_reviews(reviews, reviews_corpus(None), 0).texts
    assert texts.groupby("role")["label"].mean().to_dict() == {"eval": 0.5, "perplexity": 0.5, "prompt": 0, "sft": 0.5}


def test_prompts_of_both_labels_where_negative_reviews_run_out(tmp_path):
    rows = [row for i, row in enumerate(review_rows(400)) if row[1] == 1 or i < 40]
    corpus = reviews_corpus(write_reviews(tmp_path / "r.csv", rows), prompts=30)
    texts = split_reviews(load_reviews(corpus), corpus, 0).texts
    prompts = texts[texts["role"] == "prompt"]
    assert len(prompts) == 30
    assert set(prompts["label"]) == {0, 1}


def test_prompt_and_completion_are_the_beginning_of_the_review(reviews):
    by_row = reviews.set_index("source_row")["text"]
    for row in split_reviews(reviews, reviews_corpus(None), 0).texts.itertuples():
        whole = plain_text(row.prompt) + row.completion
        assert row.completion.startswith(" ")
        assert len(plain_text(row.prompt).split()) == 4
        assert by_row[row.source_row].startswith(whole)


def test_no_text_begins_like_a_prompt(tmp_path):
    """Reviews that share their first words in threes: prompts of training and of evaluation must not meet."""
    shared = [(f"The {i // 3} film was {text}", label) for i, (text, label) in enumerate(review_rows(400))]
    random.Random(0).shuffle(shared)
    corpus = reviews_corpus(write_reviews(tmp_path / "r.csv", shared), prompts=20, eval_prompts=20, sft_texts=60)
    texts = split_reviews(load_reviews(corpus), corpus, 0).texts
    begins = {role: [plain_text(p).casefold() for p in group["prompt"]] for role, group in texts.groupby("role")}
    prompts = begins["prompt"] + begins["eval"]
    assert len(set(prompts)) == 40
    assert not set(prompts) & set(begins["sft"] + begins["perplexity"])


def test_reviews_that_differ_only_after_the_excerpt_are_used_once(tmp_path):
    """Near-copies: 50 shared words, then another ending. As texts they would be the same text twice."""
    twins = [(f"{text} {'and so on ' * 12}{end}", label) for text, label in review_rows(80) for end in "xyz"]
    corpus = reviews_corpus(write_reviews(tmp_path / "r.csv", twins), classifier_texts=20, sft_texts=30)
    texts = split_reviews(load_reviews(corpus), corpus, 0).texts
    whole = [plain_text(row.prompt) + row.completion for row in texts.itertuples()]
    assert len(set(whole)) == len(whole)


def test_impossible_splits_say_what_is_wanted_and_what_is_there(reviews, tmp_path):
    with pytest.raises(UserError, match=r"impossible split: 1036 reviews are wanted.*there are 400"):
        split_reviews(reviews, reviews_corpus(None, classifier_texts=500), 0)
    same = [(f"It was a film {text}", label) for text, label in review_rows(400)]
    corpus = reviews_corpus(write_reviews(tmp_path / "r.csv", same))
    with pytest.raises(
        UserError, match=r"impossible split: 10 .* begin differently .* there are 1; raise prompt_words"
    ):
        split_reviews(load_reviews(corpus), corpus, 0)


def test_a_missing_package_names_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=INSTALL):
        load_reviews(reviews_corpus(None))


def test_an_altered_package_is_refused(monkeypatch):
    monkeypatch.setattr("marginbench.data.reviews.PACKAGE_SHA256", "0" * 64)
    with pytest.raises(UserError, match=r"sha256 is d4acac55fe7f"):
        load_reviews(reviews_corpus(None))


def test_the_package_has_the_reviews_that_the_default_study_counts_on():
    frame, report = load_with_report(reviews_corpus(None))
    assert report["rows"] == 25000
    assert len(frame) == report["usable"] == 24902
    assert not frame["text"].str.contains("<br").any()
