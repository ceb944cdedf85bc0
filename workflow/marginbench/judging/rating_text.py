"""Ratings read from what a judge wrote: MT-Bench's single-answer grading (Zheng et al. 2023, arXiv 2306.05685)."""

import re

LOWEST, HIGHEST = 1.0, 10.0

# The official rule: the first number in double brackets, and only if there is none the first in single brackets.
_DOUBLE = re.compile(r"\[\[([0-9]+\.?[0-9]*)\]\]")
_SINGLE = re.compile(r"\[([0-9]+\.?[0-9]*)\]")


def read_rating(text: str) -> tuple[float | None, str | None]:
    """The rating that a judge gave, or None with the reason why there is none.

    Whole numbers and decimals are read, as in FastChat's `llm_judge`. A number outside 1 to 10 is no rating: FastChat
    would put it into the mean.
    """
    found = _DOUBLE.search(text) or _SINGLE.search(text)
    if found is None:
        return None, "no rating in brackets"
    rating = float(found[1])
    if not LOWEST <= rating <= HIGHEST:
        return None, f"the rating {found[1][:20]} is not within 1 to 10"
    return rating, None


def parse_rating(text: str) -> float | None:
    """The rating that a judge gave, from 1 to 10; None where there is none. `read_rating` also says why."""
    return read_rating(text)[0]
