"""The two rules by which Arena-Hard reads a verdict from a judge's text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marginbench.judging.verdict_texts import arena_v01_asks_again, parse_arena_v01, parse_arena_v20

SCALE = "[[A>>B]] [[A>B]] [[A=B]] [[B>A]] [[B>>A]]"
LABELS = SCALE.replace("[", "").replace("]", "").split()
# Around a label: letters that make up no label, brackets only where they enclose none.
PROSE = st.text(st.characters(exclude_characters="[]"))


@pytest.mark.parametrize(
    ("text", "v01", "v20"),
    [
        ("My final verdict is [[A>>B]].", "A>>B", "A>>B"),
        ("[[A>B]], to say it again: [[A>B]]", "A>B", "A>B"),
        ("either [[A>B]] or [[B>A]]", None, "B>A"),
        ("the verdict is [B>A]", None, "B>A"),
        ("[B>A] at first, but [[A=B]], see [A>B]", "A=B", "A=B"),
        ("my verdict: [[a>b]]", None, "A>B"),
        ("[[A]]", "A", "A"),
        ("[[ A>B ]]", None, None),
        ("[[Assistant A is better]]", None, None),
        ("[[]] and []", None, None),
        ("", None, None),
    ],
)
def test_by_hand(text, v01, v20):
    assert parse_arena_v01(text) == v01
    assert parse_arena_v20(text) == v20


@given(st.text(st.sampled_from("[]AB<>=ab \n.ß")) | st.text())
def test_never_raises_and_gives_only_what_a_label_is_made_of(text):
    for parse in (parse_arena_v01, parse_arena_v20):
        label = parse(text)
        assert label is None or (label and set(label) <= set("AB<>="))


@given(PROSE, PROSE, PROSE, st.sampled_from(LABELS))
def test_a_format_list_before_the_verdict(before, between, after, label):
    echoed = f"{before}{SCALE}{between}[[{label}]]{after}"
    assert parse_arena_v20(echoed) == label
    assert parse_arena_v01(echoed) is None
    assert not arena_v01_asks_again(echoed)
    assert parse_arena_v01(f"{before}[[{label}]]{between}[[{label}]]{after}") == label


@given(PROSE)
def test_text_without_brackets_is_asked_again(text):
    assert parse_arena_v01(text) is None
    assert parse_arena_v20(text) is None
    assert arena_v01_asks_again(text)
