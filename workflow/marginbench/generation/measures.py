"""What can be measured on answers without a judge: repetition and variety. Words are what white space separates."""

from collections.abc import Iterable, Iterator


def _grams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    words = text.lower().split()
    return (tuple(words[start : start + n]) for start in range(len(words) - n + 1))


def repeated_trigrams(text: str) -> float | None:
    """Share of the word trigrams that occurred before in the same answer; None below three words.

    It is 1 - (different trigrams / trigrams), the seq-rep-3 of Welleck et al. 2020 (arXiv:1908.04319).
    """
    grams = list(_grams(text, 3))
    return 1 - len(set(grams)) / len(grams) if grams else None


def distinct_n(texts: Iterable[str], n: int = 2) -> float | None:
    """Different word n-grams over all word n-grams of the texts together (Li et al. 2016); None without any.

    It falls with the amount of text, so compare only sets of equal size.
    """
    if n < 1:
        raise ValueError(f"n is {n}, but an n-gram has at least one word")
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else None
