"""Repetition and variety, on texts that can be counted by hand."""

import pytest
from marginbench.generation.measures import distinct_n, repeated_trigrams


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("two words", None),
        ("all three differ", 0.0),
        ("great great great great great", 2 / 3),  # 3 trigrams, 1 of them new
        ("a b c a b c", 1 / 4),  # abc bca cab abc
        ("A b c a B c", 1 / 4),
    ],
)
def test_repeated_trigrams(text: str, expected: float | None) -> None:
    assert repeated_trigrams(text) == (None if expected is None else pytest.approx(expected))


def test_distinct_n_counts_over_all_texts_together() -> None:
    assert distinct_n(["a b", "a b", "b a"], 2) == pytest.approx(2 / 3)
    assert distinct_n(["a b", "a b"], 1) == pytest.approx(1 / 2)
    assert distinct_n(["a", ""], 2) is None
    with pytest.raises(ValueError, match="at least one word"):
        distinct_n(["a b"], 0)
