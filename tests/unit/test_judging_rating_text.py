"""Ratings read from a judge's words."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from marginbench.judging.rating_text import parse_rating, read_rating

RATINGS = st.one_of(st.integers(1, 10), st.decimals(1, 10, places=1))
WORDS = st.text(st.characters(exclude_characters="[]"), max_size=40)


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Rating: [[7]]", 7.0),
        ("Rating: [[8.5]]", 8.5),
        ("Rating: [[10]]", 10.0),
        ("Rating: [[5.]]", 5.0),
        ("[[rating]] is the format. Rating: [[3]]", 3.0),
        ("First [[2]], then [[9]]", 2.0),
        ("[4] alone", 4.0),
        ("See [1] and [2]. Rating: [[6]]", 6.0),
        ("Rating: [[7]/10]", 7.0),
        ("Rating: 7", None),
        ("Rating: [[ 7 ]]", None),
        ("Rating: [[-1]]", None),
        ("", None),
    ],
)
def test_the_official_rule(text, rating):
    assert parse_rating(text) == rating


@pytest.mark.parametrize("number", ["0", "0.5", "10.5", "11", "100", "9" * 400])
def test_a_number_outside_the_scale_is_no_rating(number):
    rating, reason = read_rating(f"Rating: [[{number}]]. Or [[5]].")
    assert rating is None
    assert "is not within 1 to 10" in reason
    assert len(reason) < 80


def test_nothing_in_brackets_has_its_reason():
    assert read_rating("I would rather not say.") == (None, "no rating in brackets")


@settings(deadline=None)
@given(before=WORDS, rating=RATINGS, after=st.text(max_size=40))
def test_the_first_double_bracket_counts_whatever_follows(before, rating, after):
    assert parse_rating(f"{before}[[{rating}]]{after}") == float(rating)


@settings(deadline=None)
@given(before=st.lists(st.integers(0, 99).map("[{}]".format), max_size=3), rating=RATINGS)
def test_a_double_bracket_goes_before_single_ones(before, rating):
    assert parse_rating(f"{' '.join(before)} [[{rating}]]") == float(rating)


@settings(deadline=None)
@given(text=st.text(st.sampled_from("[]0123456789. x"), max_size=30))
def test_any_text_gives_a_rating_of_the_scale_or_a_reason(text):
    rating, reason = read_rating(text)
    assert (rating is None) != (reason is None)
    if rating is not None:
        assert 1 <= rating <= 10
        assert rating in [float(number) for number in re.findall(r"\d+\.?\d*", text)]
