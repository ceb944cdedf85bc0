"""Seeded splits by prompt: all pairs of a prompt fall on the same side, whatever the order of the rows."""

import math
from collections.abc import Iterable

from marginbench.errors import UserError
from marginbench.identity import stream


def share_of_prompts(prompt_ids: Iterable[str], fraction: float, purpose: str, seed: int) -> set[str]:
    """A seeded draw of `fraction` of the distinct prompts, at least one, at most all but one.

    Raises UserError when there are fewer than two prompts, because then one side of the split would be empty.
    """
    prompts = sorted(set(prompt_ids))
    if len(prompts) < 2:
        raise UserError(
            f"impossible split: {purpose} wants a share {fraction} of the prompts, there is {len(prompts)} prompt; "
            "use more data"
        )
    n = min(max(1, math.floor(fraction * len(prompts) + 0.5)), len(prompts) - 1)
    order = stream("split", purpose, seed).permutation(len(prompts))
    return {prompts[i] for i in order[:n]}


def draw(ids: Iterable[str], n: int | None, purpose: str, seed: int) -> list[str]:
    """A seeded draw of at most n of the distinct ids, in drawn order; None takes all. The first n of a larger draw."""
    ordered = sorted(set(ids))
    order = stream("draw", purpose, seed).permutation(len(ordered))
    return [ordered[i] for i in order[: len(ordered) if n is None else n]]
