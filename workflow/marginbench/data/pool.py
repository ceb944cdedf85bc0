"""The bookkeeping of a disjoint split: which reviews are free, and which beginnings are taken."""

import pandas as pd


class ReviewPool:
    """Hands out reviews from the front, each once, and no two with the same excerpt.

    With `distinct` their prefixes become taken: no later text of any role begins like them.
    """

    def __init__(self, reviews: pd.DataFrame, prompt_words: int, completion_words: int):
        words = [text.split(" ") for text in reviews["text"]]
        self.prefix = [" ".join(w[:prompt_words]).casefold() for w in words]
        self.excerpt = [" ".join(w[: prompt_words + completion_words]).casefold() for w in words]
        self.long_enough = [len(w) > prompt_words for w in words]
        self.label = reviews["label"].tolist()
        self.free = [True] * len(reviews)
        self.taken_prefixes: set[str] = set()
        self.taken_excerpts: set[str] = set()

    def available(self, label: int | None, distinct: bool, limit: int) -> list[int]:
        """Positions of at most `limit` free reviews, of one label if it is given; `distinct` bars shared prefixes."""
        found: list[int] = []
        seen: set = set()
        for i, free in enumerate(self.free):
            if len(found) == limit:
                break
            if not free or not self.long_enough[i] or (label is not None and self.label[i] != label):
                continue
            if self.prefix[i] in self.taken_prefixes or (distinct and self.prefix[i] in seen):
                continue
            if self.excerpt[i] in self.taken_excerpts or self.excerpt[i] in seen:
                continue
            seen.update((self.prefix[i], self.excerpt[i]))
            found.append(i)
        return found

    def take(self, indices: list[int], distinct: bool) -> list[int]:
        """Mark positions as used and return them; with `distinct` their prefixes become taken."""
        for i in indices:
            self.free[i] = False
            self.taken_excerpts.add(self.excerpt[i])
        if distinct:
            self.taken_prefixes.update(self.prefix[i] for i in indices)
        return indices
